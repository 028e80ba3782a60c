"""Checks storage, networks and cluster before a run, and forecasts its hours and bytes.

ray job submit --working-dir . -- python jobs/doctor.py config.yaml [name=value ...]
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["doctor"]
    main()
