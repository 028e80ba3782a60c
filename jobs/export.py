"""Writes masks in the format of another tool.

ray job submit --working-dir . -- python jobs/export.py coco config.yaml s3://bucket/coco [name=value ...]
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["export"]
    main()
