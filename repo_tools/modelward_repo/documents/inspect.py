"""Telling what a file is, from its content alone: names and suffixes can be anything."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from modelward.errors import FormatError, UsageError
from modelward.formats import chunks, dsse, strict
from modelward_repo.documents import format_words, in_toto_words, tuf_words
from modelward_repo.documents.description import Description

CAP = 64 << 20  # bytes; the largest metadata that anybody should have to look at
KNOWN = (
    "TUF metadata, a layout, a link, evidence.jsonl, release.json, a channel, a policy, a ticket, "
    "a public key, a device's floors, a signing request"
)
_PRIVATE = b"PRIVATE KEY-----"


def inspect(path: Path, now: datetime) -> Description:
    """Describe a file.

    Args:
        path: The file.
        now: The time to judge expiry by.

    Raises:
        UsageError: It cannot be read, or is nothing that is known here.
        FormatError: It is something known, but ill-formed.
    """
    data = read(path)
    found = describe(data, str(path), now)
    return replace(
        found,
        more={"file": str(path), "sha256": format_words.sha256(data), "length": len(data)},
    )


def read(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        UsageError: It cannot be read, or is too long for any document.
    """
    try:
        with path.open("rb") as file:
            data = file.read(CAP + 1)
    except IsADirectoryError as error:
        raise UsageError(
            f"{path} is a directory",
            "name a file; `modelward-repo status` and `log` show a whole repository",
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > CAP:
        raise UsageError(f"{path} is longer than {CAP} bytes: no document is", f"known: {KNOWN}")
    return data


def describe(data: bytes, name: str, now: datetime) -> Description:
    """Describe a document; see `inspect`."""
    if _PRIVATE in data[:200]:
        return Description(
            "private key",
            ("A PRIVATE KEY. Nobody but its holder should have this file; it was not opened.",),
            (("that it can be opened, or which public key it belongs to: "
             "`modelward-repo key test` shows that"),),
        )  # fmt: skip
    if data.startswith(chunks.SCHEMA):
        return format_words.describe_chunks(data)
    if b"\n{" in data.strip():  # several documents, one a line
        return in_toto_words.describe_evidence(data)
    content = _parse(data, name)
    found = _kind(content, name)(data, content, now)
    return found if found.content is not None else replace(found, content=content)


def _parse(data: bytes, name: str) -> dict[str, Any]:
    try:
        content = strict.load(name, data, CAP)
    except FormatError as error:
        if data.lstrip()[:1] in (b"{", b"["):
            raise
        raise UsageError(
            f"{name} is nothing that is known here: {error.problem}", f"known: {KNOWN}"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{name} is JSON, but not a document", f"known: {KNOWN}")
    return content


def _kind(
    content: dict[str, Any], name: str
) -> Callable[[bytes, dict[str, Any], datetime], Description]:
    """Return what describes a document, by the fields that only its kind has."""
    schema = content.get("schema")
    if "signed" in content and "signatures" in content:
        return tuf_words.describe
    if content.get("payloadType") == dsse.PAYLOAD_TYPE:
        return lambda data, _content, now: in_toto_words.describe_envelope(data, now)
    if isinstance(schema, str) and schema in format_words.BY_SCHEMA:
        return lambda data, _content, _now: format_words.BY_SCHEMA[schema](data)
    if isinstance(schema, str):
        return lambda _data, content, _now: format_words.describe_unknown(content)
    if "keyid" in content and "keyval" in content:
        return lambda data, _content, _now: format_words.describe_key(data)
    raise UsageError(f"{name} is JSON, but nothing that is known here", f"known: {KNOWN}")
