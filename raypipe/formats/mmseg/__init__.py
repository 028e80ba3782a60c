"""Export to mmsegmentation."""
