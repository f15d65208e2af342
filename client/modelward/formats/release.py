"""release.json: what one version of a model consists of, by digest."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelward.formats import chunks, strict
from modelward.formats.names import (
    check_distribution,
    check_name,
    check_path,
    check_tree,
    check_version,
)
from modelward.formats.ticket import Ticket

DOCUMENT = "release.json"
SCHEMA = "modelward/release/1"
CAP = 1 << 20
MAX_FILES = 4096
MAX_LENGTH = 1 << 50  # bytes of one file


@dataclass(frozen=True)
class Blob:
    """A file of the repository that is named by its content.

    Attributes:
        sha256: Digest, 64 hex digits.
        length: Bytes.
    """

    sha256: str
    length: int


@dataclass(frozen=True)
class ReleaseFile:
    """One file of a release.

    Attributes:
        path: Where it stands inside the release.
        blob: Its content.
        format: What it is, such as ``onnx``; see `modelward.formats.policy.KNOWN_FORMATS`.
        chunks: The chunk index (`modelward.formats.chunks`), where there is one.
    """

    path: str
    blob: Blob
    format: str
    chunks: Blob | None = None


@dataclass(frozen=True)
class Patch:
    """A cheaper way to a file. Whoever does not know its method passes it over.

    Attributes:
        to: Digest of the file it makes.
        base: Digest of the file it needs (``from`` in the document); None if it needs none.
        method: How to apply it.
        blob: The patch itself.
        memory: Most bytes of memory that applying it takes.
        chunks: The chunk index of the patch itself, where there is one.
    """

    to: str
    base: str | None
    method: str
    blob: Blob
    memory: int
    chunks: Blob | None = None


@dataclass(frozen=True)
class Requirements:
    """What a device must have.

    Attributes:
        hardware: Machine names as `platform.machine()` gives them; empty for any.
        runtime: Python distributions and the versions they need, such as ``>=1.17``.
        components: Other models, pinned to exact versions, that switch in the same commit.
    """

    hardware: tuple[str, ...] = ()
    runtime: tuple[tuple[str, str], ...] = ()
    components: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Release:
    """One version of a model.

    Attributes:
        model: Name of the model.
        version: The version, as people say it; it carries no order.
        counter: Rises by one per release of the model: the order that rollback is judged by.
        released: When it was published.
        ticket: The run of the supply chain that made it.
        files: Its files, every one an attested product of the step `approve`.
        patches: Cheaper ways to its files.
        requires: What a device must have.
        signature: Path of an OpenSSF model signature among the files, or None.
        golden: Path of golden inputs and outputs among the files, or None.
    """

    model: str
    version: str
    counter: int
    released: datetime
    ticket: Ticket
    files: tuple[ReleaseFile, ...]
    patches: tuple[Patch, ...] = ()
    requires: Requirements = Requirements()
    signature: str | None = None
    golden: str | None = None

    @classmethod
    def parse(cls, data: bytes) -> "Release":
        """Parse release.json.

        Raises:
            FormatError: The document breaks the format; the error names the field.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        fields.critical()
        if fields.has("encryption"):
            raise fields.wrong(
                "encryption", "encrypted releases are not understood by this version"
            )
        release = cls(
            model=fields.checked("model", check_name),
            version=fields.checked("version", check_version),
            counter=fields.integer("counter", least=1),
            released=fields.time("released"),
            ticket=Ticket.from_fields(fields.fields("ticket")),
            files=tuple(_file(item) for item in fields.each("files", MAX_FILES)),
            patches=tuple(
                _patch(item) for item in (fields.each("patches") if fields.has("patches") else ())
            ),
            requires=_requirements(fields.fields("requires"))
            if fields.has("requires")
            else Requirements(),
            signature=_member(fields, "signature", "path"),
            golden=_member(fields, "health", "golden"),
        )
        release._check(fields)
        return release

    def _check(self, fields: strict.Fields) -> None:
        if not self.files:
            raise fields.wrong("files", "is empty")
        try:
            check_tree(file.path for file in self.files)
        except ValueError as error:
            raise fields.wrong("files", str(error)) from error
        lengths = {file.blob.sha256: file.blob.length for file in self.files}
        for index, file in enumerate(self.files):
            if lengths[file.blob.sha256] != file.blob.length:
                raise fields.wrong(f"files[{index}].length", "differs for the same sha256")
        paths = {file.path for file in self.files}
        for name, path in (("signature.path", self.signature), ("health.golden", self.golden)):
            if path is not None and path not in paths:
                raise fields.wrong(name, f"{path!r} is not one of the release's files")
        if (self.ticket.model, self.ticket.version) != (self.model, self.version):
            raise fields.wrong(
                "ticket",
                f"was issued for {self.ticket.model} {self.ticket.version}, "
                f"not for {self.model} {self.version}",
            )
        if self.ticket.counter != self.counter:
            # The role's key alone must not make an old release look new (attack row 13).
            raise fields.wrong(
                "counter", f"is {self.counter}, but the ticket was issued for {self.ticket.counter}"
            )

    def to_bytes(self) -> bytes:
        """Return the document."""
        return strict.dump(
            {
                "schema": SCHEMA,
                "model": self.model,
                "version": self.version,
                "counter": self.counter,
                "released": strict.rfc3339(self.released),
                "ticket": self.ticket.to_dict(),
                "files": [_file_dict(file) for file in self.files],
                "patches": [_patch_dict(patch) for patch in self.patches],
                "signature": {"path": self.signature} if self.signature else None,
                "requires": {
                    "hardware": list(self.requires.hardware),
                    "runtime": dict(self.requires.runtime),
                    "components": dict(self.requires.components),
                },
                "health": {"golden": self.golden} if self.golden else None,
                "encryption": None,
                "critical": [],
            }
        )

    def file(self, path: str) -> ReleaseFile | None:
        """Return the file at a path, or None."""
        return next((file for file in self.files if file.path == path), None)

    @property
    def blobs(self) -> list[tuple[Blob, Blob | None]]:
        """What a device may fetch of it: files and patches, each with its chunk index, or None."""
        return [
            *((file.blob, file.chunks) for file in self.files),
            *((patch.blob, patch.chunks) for patch in self.patches),
        ]

    @property
    def length(self) -> int:
        """Total bytes of all files."""
        return sum(file.blob.length for file in self.files)

    @property
    def target_path(self) -> str:
        """The TUF target path of this document."""
        return target_path(self.model, self.version)


def target_path(model: str, version: str) -> str:
    """Return the TUF target path of a release's document."""
    return f"models/{model}/{version}/release.json"


def evidence_path(model: str, version: str) -> str:
    """Return the TUF target path of a release's evidence."""
    return f"models/{model}/{version}/evidence.jsonl"


def _member(fields: strict.Fields, name: str, key: str) -> str | None:
    return fields.fields(name).checked(key, check_path) if fields.has(name) else None


def _file(fields: strict.Fields) -> ReleaseFile:
    return ReleaseFile(
        path=fields.checked("path", check_path),
        blob=Blob(fields.sha256("sha256"), fields.integer("length", most=MAX_LENGTH)),
        format=fields.text("format", most=64),
        chunks=_index(fields),
    )


def _file_dict(file: ReleaseFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "length": file.blob.length,
        "sha256": file.blob.sha256,
        "format": file.format,
        **_index_dict(file.chunks),
    }


def _patch(fields: strict.Fields) -> Patch:
    return Patch(
        to=fields.sha256("to"),
        base=None if fields.any("from") is None else fields.sha256("from"),
        method=fields.text("method", most=64),
        blob=Blob(fields.sha256("blob"), fields.integer("length", most=MAX_LENGTH)),
        memory=fields.integer("memory"),
        chunks=_index(fields),
    )


def _patch_dict(patch: Patch) -> dict[str, Any]:
    return {
        "to": patch.to,
        "from": patch.base,
        "method": patch.method,
        "blob": patch.blob.sha256,
        "length": patch.blob.length,
        "memory": patch.memory,
        **_index_dict(patch.chunks),
    }


def _index(fields: strict.Fields) -> Blob | None:
    if not fields.has("chunks"):
        return None
    index = fields.fields("chunks")
    return Blob(index.sha256("blob"), index.integer("length", most=chunks.CAP))


def _index_dict(index: Blob | None) -> dict[str, Any]:
    return {"chunks": {"blob": index.sha256, "length": index.length}} if index else {}


def _requirements(fields: strict.Fields) -> Requirements:
    return Requirements(
        hardware=fields.texts("hardware") if fields.has("hardware") else (),
        runtime=_by_name(fields, "runtime", check_distribution, str),
        components=_by_name(fields, "components", check_name, check_version),
    )


def _by_name(
    fields: strict.Fields,
    name: str,
    check_key: Callable[[str], str],
    check_value: Callable[[str], str],
) -> tuple[tuple[str, str], ...]:
    if not fields.has(name):
        return ()
    inner = fields.fields(name)
    try:
        return tuple(
            (check_key(key), check_value(inner.text(key, most=128))) for key in sorted(inner.raw)
        )
    except ValueError as error:
        raise fields.wrong(name, str(error)) from error
