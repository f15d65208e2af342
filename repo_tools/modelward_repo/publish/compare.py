"""Finding two things to compare: files, repositories, or what a repository has now."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from modelward.errors import FormatError, UsageError
from modelward.formats import dsse, strict
from modelward.formats.policy import FleetPolicy
from modelward_repo.documents.inspect import CAP, read
from modelward_repo.publish.staging import TIMESTAMP, Staging
from modelward_repo.roles.difference import (
    Change,
    changes,
    document_changes,
    signature_changes,
)
from modelward_repo.roles.history import role_of_file
from modelward_repo.roles.holders import Authorities, Names
from modelward_repo.storage.local import LocalStorage

_READABLE = ("policies/", "layouts/", "channels/")


@dataclass(frozen=True)
class Side:
    """One of two things to compare.

    Attributes:
        label: What to call it.
        documents: Metadata by role, or one document under what it is.
        delegators: Versions of root and targets that say whose signatures count.
        whole: Whether it is a repository, of which a single role can be taken.
    """

    label: str
    documents: dict[str, Any]
    delegators: tuple[Root | Targets, ...] = ()
    whole: bool = False


def find(name: str, repository: Path | None, now: datetime) -> Side:
    """Find what somebody named.

    Args:
        name: A repository's directory; a file; the name of a metadata file in the repository,
            such as ``3.targets.json``; or a role, for what the repository has now.
        repository: The repository, if there is one.
        now: The time, which matters for nothing here.

    Raises:
        UsageError: There is no such thing, or it is nothing that can be compared.
    """
    path = Path(name)
    if path.is_dir():
        return _repository(path, now)
    if path.is_file():
        return _file(path)
    if repository is not None:
        inside = repository / "metadata" / name
        if "/" not in name and inside.is_file():
            return _file(inside)
        whole = _repository(repository, now)
        if name in whole.documents:
            documents = {name: whole.documents[name]}
            return Side(f"{name} now", documents, whole.delegators)
    raise UsageError(
        f"there is no {name!r}",
        "name two files, two repositories, or, with --repository, metadata files such as "
        "3.targets.json and roles such as targets",
    )


def compare(one: Side, other: Side, names: Names) -> Iterator[Change]:
    """Yield what is different between two sides.

    Raises:
        UsageError: They have nothing in common.
    """
    authorities = Authorities((*one.delegators, *other.delegators), names)
    first, second = _matched(one, other)
    for role in [*first, *(role for role in second if role not in first)]:
        prefix = f"{role}: " if one.whole and other.whole else ""
        if role not in first or role not in second:
            which = one.label if role in first else other.label
            yield Change(role, f"only in {which}")
            continue
        for change in _changes(role, first[role], second[role], authorities):
            yield Change(f"{prefix}{change.where}", change.text, change.routine)


def _changes(role: str, one: Any, other: Any, authorities: Authorities) -> Iterator[Change]:
    if not isinstance(one, Metadata) or not isinstance(other, Metadata):
        if isinstance(one, Metadata) or isinstance(other, Metadata):
            raise UsageError("only one of the two is TUF metadata", "compare like with like")
        yield from document_changes(one, other)
        return
    if type(one.signed) is not type(other.signed):
        raise UsageError(
            f"one is metadata of type {one.signed.type}, the other of {other.signed.type}",
            "compare two versions of one role",
        )
    yield from changes(one.signed, other.signed, authorities)
    yield from signature_changes(role, one, other, authorities)


def _matched(one: Side, other: Side) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the documents of both sides that are to be compared, under the same names."""
    first, second = one.documents, other.documents
    if one.whole != other.whole:
        (role,) = second if one.whole else first
        if role not in (first if one.whole else second):
            raise UsageError(f"the repository has no role {role!r}", "compare like with like")
        return {role: first[role]}, {role: second[role]}
    if not one.whole:
        (role,), (same,) = first, second
        anonymous = {role, same} & {"", "document"}
        if role != same and not anonymous:
            raise UsageError(
                f"one is of {role!r}, the other of {same!r}", "compare two versions of one role"
            )
        name = role if role not in ("", "document") else same
        return {name: first[role]}, {name: second[same]}
    return first, second


def _repository(directory: Path, now: datetime) -> Side:
    storage = LocalStorage(directory)
    if not storage.exists(TIMESTAMP):
        raise UsageError(f"{directory} is a directory, but not a repository", "name another one")
    staging = Staging.of(storage, now)
    documents: dict[str, Any] = {"root": staging.root}
    listed = [name.removesuffix(".json") for name in staging.snapshot.signed.meta]
    documents |= {role: staging.targets(role) for role in sorted(listed)}
    documents |= {"snapshot": staging.snapshot, "timestamp": staging.timestamp}
    documents |= _small_targets(staging, documents)
    return Side(
        str(directory),
        documents,
        (staging.root.signed, *_all(documents)),
        whole=True,
    )


def _small_targets(staging: Staging, documents: dict[str, Any]) -> dict[str, Any]:
    """Return the documents that say what is trusted and offered, by their target paths."""
    found = {}
    for role, metadata in documents.items():
        for path in metadata.signed.targets if isinstance(metadata.signed, Targets) else ():
            if path == FleetPolicy.TARGET or path.startswith(_READABLE):
                data = staging.target(role, path) or b""
                found[path] = _content(path, strict.load(path, data, CAP), data)
    return found


def _content(name: str, content: Any, data: bytes) -> Any:
    """Return what is signed in an envelope; anything else as it is."""
    if isinstance(content, dict) and content.get("payloadType") == dsse.PAYLOAD_TYPE:
        return dsse.Envelope.parse(name, data).content
    return content


def _all(documents: dict[str, Any]) -> Iterator[Targets]:
    targets = documents.get(Targets.type)
    if targets is not None:
        yield targets.signed


def _file(path: Path) -> Side:
    data = read(path)
    try:
        content = strict.load(str(path), data, CAP)
        if isinstance(content, dict) and "signed" in content:
            return _metadata(path, Metadata[Any].from_bytes(data))
        content = _content(str(path), content, data)
    except FormatError as error:
        raise UsageError(f"{path} cannot be compared: {error.reason}") from error
    except (RepositoryError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TUF metadata, though it looks like it: {error}") from error
    return Side(str(path), {"document": content})


def _metadata(path: Path, metadata: Metadata[Any]) -> Side:
    """Return metadata, with whatever the repository that it lies in says of its signers."""
    signed = metadata.signed
    named = role_of_file(f"metadata/{path.name}")
    role = signed.type if not isinstance(signed, Targets) else ""
    if not role and named and named[1] is not None:
        role = named[0]
    delegators: list[Root | Targets] = [signed] if isinstance(signed, Root | Targets) else []
    around = path.resolve().parent
    if (around / "timestamp.json").is_file():
        for name in ("root", Targets.type):
            delegators += _versions(around, name)
    return Side(str(path), {role: metadata}, tuple(delegators))


def _versions(folder: Path, role: str) -> Iterator[Root | Targets]:
    """Yield all versions of a delegating role in a folder, oldest first; damaged ones are none."""
    found = []
    for path in folder.glob(f"*.{role}.json"):
        named = role_of_file(f"metadata/{path.name}")
        if named and named[0] == role and named[1] is not None:
            found.append((named[1], path))
    for _, path in sorted(found):
        try:
            signed = Metadata[Any].from_bytes(path.read_bytes()).signed
        except (RepositoryError, ValueError, OSError):
            continue
        if isinstance(signed, Root | Targets):
            yield signed
