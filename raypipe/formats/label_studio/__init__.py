"""Import from and export to Label Studio."""
