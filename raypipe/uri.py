"""URIs: paths that mean the same in every process."""

import os
import re
from typing import Annotated

from pydantic import AfterValidator


def protocol(uri: str) -> str:
    """What comes before the URI's ://, in small letters; "file" where there is nothing."""
    # fsspec's own takes what is before any "::" for a protocol, so that such a file could not be named.
    match = re.match(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)", uri)
    return match[0].lower() if match else "file"


def absolute(uri: str) -> str:
    """The URI as other processes understand it: a relative local path counts from this one's working directory."""
    if protocol(uri) not in ("file", "local"):
        return uri
    # Path.resolve() raises where links go round in a circle.
    return os.path.realpath(re.sub(r"^[A-Za-z]+://", "", uri))


Uri = Annotated[str, AfterValidator(absolute)]
"""A URI in a config: it makes itself absolute."""
