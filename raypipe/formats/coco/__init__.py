"""Import and export of COCO's JSON files."""
