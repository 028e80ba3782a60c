"""Images that lie in tar and Parquet files: the URI of a place in a container, and reading many places at once."""
