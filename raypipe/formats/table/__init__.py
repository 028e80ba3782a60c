"""Tables: CSV and Parquet."""
