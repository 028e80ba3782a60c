"""What is said of files that can't be read as what they should be, and of packages that are missing."""

import re

from raypipe.messages.chains import Chain, path_of, words_of
from raypipe.messages.codes import SURROUNDINGS, WRONG_INPUT, Found

_DAMAGED = re.compile(r"(BadZip|Read|\w*Decode|Parse|Parser|Scanner|\w*YAML|UnidentifiedImage)\w*")


def of_content(chain: Chain) -> Found:
    """Errors of libraries that read files."""
    for error in chain:
        place, said = path_of(chain), words_of(error)
        if isinstance(error, ImportError):
            package = (error.name or "").split(".")[0]
            if package != "raypipe":
                text = f"a package is missing or doesn't work ({said})"
                return f"{text}. Run `pip install {package or '…'}`, on all machines of a cluster", SURROUNDINGS
        if isinstance(error, UnicodeError):
            return f"{place or 'a text'} can't be read or written as text ({said}). Save it as UTF-8", WRONG_INPUT
        if type(error).__module__.split(".")[0] == "pyarrow" or _DAMAGED.fullmatch(type(error).__name__):
            text = f"{place or 'a file'} can't be read ({said}): it is damaged, or no file of this format"
            return f"{text}. Make it again", WRONG_INPUT
    return None
