"""Scores many settings of the walk and chooses one.

ray job submit --working-dir . -- python jobs/sweep.py config.yaml [name=value ...]
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["sweep"]
    main()
