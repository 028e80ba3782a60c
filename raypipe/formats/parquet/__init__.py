"""Parquet files that hold images, such as those of Hugging Face datasets."""
