"""From what a reader has found to a manifest: classes, images, ids and masks, decided alike for every layout."""
