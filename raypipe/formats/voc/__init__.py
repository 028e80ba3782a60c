"""Import and export of PASCAL VOC's folders."""
