"""What columns of URIs say of places in containers, without a look at each in Python."""

import pyarrow as pa
import pyarrow.compute as pc

_PLACE = r"#(offset=\d+&length=|column=[^#&]+&row=)\d+(&group=\d+)?(&type=[A-Za-z0-9]+)?$"
_ROW_GROUP = r"^(.*)#column=[^#&]+&row=\d+&group=(\d+)(&type=[A-Za-z0-9]+)?$"


def in_containers(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns True for the URIs that name a place in a container."""
    return pc.fill_null(pc.match_substring_regex(uris, _PLACE), fill_value=False)


def row_groups(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns what is the same for all cells of a Parquet file's row group, and null for other URIs."""
    keys = pc.replace_substring_regex(uris, _ROW_GROUP, r"\1#\2")
    return pc.if_else(pc.match_substring_regex(uris, _ROW_GROUP), keys, pa.scalar(None, keys.type))
