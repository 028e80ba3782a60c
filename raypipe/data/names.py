"""Makes file names for ids of any form."""

import hashlib
import re


def file_stem(image_id: str) -> str:
    """Returns a file name without ending for an id: the id if that is safe, else its safe part and a digest.

    The name never leads out of its folder, and no two ids have the same name.
    """
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", image_id):
        return image_id
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", image_id).strip("-")[:60]
    return f"{safe}~{hashlib.sha256(image_id.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
