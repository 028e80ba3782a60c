"""Export as a Hugging Face dataset."""
