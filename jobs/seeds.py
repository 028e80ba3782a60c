"""Computes class activation maps and trimaps.

ray job submit --working-dir . -- python jobs/seeds.py config.yaml [name=value ...]
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["seeds"]
    main()
