"""Makes the masks' confidence a probability.

ray job submit --working-dir . -- python jobs/calibrate.py config.yaml [name=value ...]
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["calibrate"]
    main()
