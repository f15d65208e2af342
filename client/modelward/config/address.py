"""Addresses of repositories."""

from urllib.parse import urlsplit

from modelward.errors import UsageError


def check_repository(url: str) -> str:
    """Return a repository's address without a final slash.

    Raises:
        UsageError: It is not an http or https address.
    """
    if not _is_address(url):
        raise UsageError(
            f"{url!r} is not a repository's address", "it is like https://models.example.com"
        )
    return url.rstrip("/")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # as connecting to it will
        strange = parts.port == 0 or parts.username is not None or parts.query or parts.fragment
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    return plain and not strange and parts.scheme in ("http", "https") and bool(parts.hostname)
