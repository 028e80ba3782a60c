"""What is handed over: datasets in the formats of other tools, and the segmentation network as a file."""
