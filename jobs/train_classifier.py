"""Trains the classifier.

ray job submit --working-dir . -- python jobs/train_classifier.py config.yaml [name=value ...]
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["train", "classifier"]
    main()
