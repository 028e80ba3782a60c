"""The `raypipe` command as a file, for `ray job submit`.

ray job submit --working-dir . -- python jobs/submit.py run config.yaml [name=value ...]
ray job submit --working-dir . -- python jobs/submit.py train classifier config.yaml [name=value ...]
"""

from raypipe.cli import main

if __name__ == "__main__":
    main()
