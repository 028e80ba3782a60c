"""Trains the segmentation network.

ray job submit --working-dir . -- python jobs/train_segmenter.py config.yaml [name=value ...]
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["train", "segmenter"]
    main()
