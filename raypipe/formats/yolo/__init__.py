"""Export of YOLO's polygons."""
