"""URIs hold no credentials: they are written to records, tables and logs, where a secret would stay for good."""

import re

_PASSWORD = re.compile(r"://[^/?#@]*:(?!\d*(?:[/?#]|$))[^@]*@")
"""`scheme://user:password@`; AWS's secrets may have slashes in them. A port, and an @ further on, are no password."""


def has_credentials(uri: str) -> bool:
    """True where a user's name and password, or a key and its secret, stand in the URI."""
    return _PASSWORD.search(uri) is not None


def refuse_credentials(uri: str, *, where: str) -> None:
    """Refuses a URI with credentials in it.

    Args:
        uri: any text.
        where: names it in the message, which never quotes it.

    Raises:
        ValueError: if there are any.
    """
    if has_credentials(uri):
        raise ValueError(
            f"{where} holds credentials (user:password@), which would be kept in records and logs: take them out, and "
            "give them by the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or the provider's own chain"
        )
