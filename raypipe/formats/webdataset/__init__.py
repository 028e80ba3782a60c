"""WebDataset: samples in tars."""
