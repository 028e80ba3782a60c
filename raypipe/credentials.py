"""Refuses URIs with credentials, because URIs are written to records, tables and logs, where a secret would stay."""

import re

_PASSWORD = re.compile(r"://[^/?#@]*:(?!\d*(?:[/?#]|$))[^@]*@")
"""Matches `scheme://user:password@`. AWS's secrets may contain slashes; a port isn't one."""

_BEFORE_OTHERS = re.compile(
    r"\b(?:zip|tar|simplecache|filecache|blockcache|cached)(?:://.*?)?::", re.DOTALL | re.IGNORECASE
)
"""What fsspec puts before another URI, as in `zip://a.png::s3://bucket/b.zip`: its colons separate no password."""


def has_credentials(uri: str) -> bool:
    """Returns True if the URI holds a user name and password, or a key and its secret."""
    return _PASSWORD.search(_BEFORE_OTHERS.sub("", uri)) is not None


def refuse_credentials(uri: str, *, where: str) -> None:
    """Refuses a URI with credentials in it.

    Args:
        uri: any text.
        where: name of the URI for the message, which never quotes the URI.

    Raises:
        ValueError: the URI holds credentials.
    """
    if has_credentials(uri):
        raise ValueError(
            f"{where} holds credentials (user:password@), which would be kept in records and logs: take them out, and "
            "give them by the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or the provider's own chain"
        )
