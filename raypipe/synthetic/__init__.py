"""The synthetic dataset: textured objects with exact masks, and saliency maps with known errors."""
