"""What a trained classifier knows of its labels: how it is measured, kept and used."""
