"""What is said of disks, rights, memory and devices."""

import errno
import tempfile

from raypipe.faults import is_of_device
from raypipe.messages.chains import Chain, path_of, text_of, words_of
from raypipe.messages.codes import AGAIN, SURROUNDINGS, WRONG_INPUT, Found

_NO_RIGHTS = ("no rights to {place}. Give them to whoever runs the command, or name another place", SURROUNDINGS)

_BY_NUMBER = {
    errno.EACCES: _NO_RIGHTS,
    errno.EPERM: _NO_RIGHTS,
    errno.EROFS: ("{place} can only be read: its disk is mounted read-only. Name another place", SURROUNDINGS),
    errno.ENOSPC: (
        f"no space is left on the disk of {{place}}. Free some; temporary files are in {{temporary}} (TMPDIR). {AGAIN}",
        SURROUNDINGS,
    ),
    errno.EDQUOT: (f"the quota of the disk of {{place}} is used up. Free some of it. {AGAIN}", SURROUNDINGS),
    errno.EFBIG: ("{place} gets larger than its disk allows. Name a place on another one", SURROUNDINGS),
    errno.EMFILE: (f"too many files are open. Raise the limit (`ulimit -n 65536`). {AGAIN}", SURROUNDINGS),
    errno.ENFILE: (f"the machine has too many open files. Raise its limit (fs.file-max). {AGAIN}", SURROUNDINGS),
    errno.ENAMETOOLONG: ("the path {place} is too long. Shorten it", WRONG_INPUT),
    errno.ELOOP: ("links go round in a circle at {place}. Mend them", WRONG_INPUT),
    errno.EINVAL: ("{place} can't be used ({words}). Mend the path, or name another place", WRONG_INPUT),
    errno.ENOMEM: (f"out of memory ({{words}}). Give the machine more. {AGAIN}", SURROUNDINGS),
}
"""Messages and codes by error number."""

_FULL_MEMORY = ("OutOfMemoryError", "ArrowMemoryError", "ObjectStoreFullError")


def of_memory(chain: Chain) -> Found:
    """Memory, Ray's disk, and GPUs."""
    for error in chain:
        name, said = type(error).__name__, words_of(error)
        if name == "OutOfDiskError":
            return (
                f"Ray's disk is full ({said}). Free it, or set RAY_TMPDIR to a folder on a larger one. {AGAIN}",
                SURROUNDINGS,
            )
        if is_of_device(error) or "CUDA out of memory" in text_of(error):
            text = f"the GPU fails ({said}). Lower a training's batch_size or crop_size where its memory is full, else"
            return f"{text} look at nvidia-smi. {AGAIN}", SURROUNDINGS
        if name in _FULL_MEMORY or isinstance(error, MemoryError):
            text = (
                f"out of memory ({said}). Give the machine more, or lower cluster.network_actors, cluster.cpu_actors,"
            )
            return f"{text} images.max_side or a training's batch_size. {AGAIN}", SURROUNDINGS
    return None


def of_files(chain: Chain) -> Found:
    """What the operating system says of a file, by its numbers."""
    place = path_of(chain) or "a file"
    for error in chain:
        if isinstance(error, IsADirectoryError):
            return f"{place} is a folder, needed is a file. Name a file in it, or another one", WRONG_INPUT
        if isinstance(error, NotADirectoryError):
            above = error.filename if isinstance(error.filename, str) else place  # what is noted lies below it
            return f"{above} is a file, needed is a folder. Name another place", WRONG_INPUT
        if isinstance(error, FileExistsError):
            return f"{place} is there already. Delete it, or name another place", WRONG_INPUT
        if isinstance(error, OSError) and error.errno in _BY_NUMBER:
            text, code = _BY_NUMBER[error.errno]
            return text.format(place=place, words=words_of(error), temporary=tempfile.gettempdir()), code
    if isinstance(chain[0], OSError):
        return (
            f"{place} can't be used ({words_of(chain[0])}). Look at the disk or mount that holds it. {AGAIN}",
            SURROUNDINGS,
        )
    return None
