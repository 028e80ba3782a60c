"""What a command of this process has said, without what the suite's own Ray says meanwhile."""

import re

_RAYS = re.compile(r"^(?:\x1b\[\d+m)?\((?:raylet|autoscaler|.*pid=\d+).*\n", re.MULTILINE)


def own_words(printed: str) -> str:
    """Leaves out the lines that Ray prints from its threads; those of a command's Ray go into the command's log.

    The Ray that a test's process has had for other tests isn't the command's, and speaks at any time, such as when a
    disk is nearly full.
    """
    return _RAYS.sub("", printed)
