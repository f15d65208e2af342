"""What is to be published: a model's files, and the evidence of how they were made."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelward.errors import FormatError, Gate, Refused, UsageError
from modelward.formats import dsse
from modelward.formats.policy import KNOWN_FORMATS, format_of
from modelward.formats.release import Blob, ReleaseFile
from modelward.formats.ticket import CAP as TICKET_CAP
from modelward.formats.ticket import FILE as TICKET_FILE
from modelward.formats.ticket import Ticket
from modelward.trust.model_format import Reader
from modelward_repo.supply_chain.hasher import Known, Progress, hash_files, no_progress

LINKS = "*.link"
# Loading any of these can run code that is in the file.
RUNS_CODE = frozenset(
    (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".h5", ".keras", ".npz")
)

Meter = Callable[[str], AbstractContextManager[Progress]]
"""Shows the progress of what its label says."""


@dataclass(frozen=True)
class Bundle:
    """A directory that is to become a release, hashed.

    Attributes:
        directory: The directory.
        files: Its files.
        ticket: The ticket among them.
    """

    directory: Path
    files: tuple[ReleaseFile, ...]
    ticket: Ticket

    def read(self, blob: Blob) -> bytes:
        """Return the content of a small file, verified.

        Raises:
            Refused: The file was changed since it was hashed.
        """
        path = next(file.path for file in self.files if file.blob == blob)
        with (self.directory / path).open("rb") as file:
            data = file.read(blob.length + 1)
        if Blob(hashlib.sha256(data).hexdigest(), len(data)) != blob:
            raise Refused(
                Gate.RELEASE,
                f"{self.directory / path} was changed while it was being published",
                "let nothing else write there, then publish again",
            )
        return data

    def reader(self, file: ReleaseFile) -> AbstractContextManager[Reader]:
        """Open a file, to be read here and there."""
        return open_reader(self.directory / file.path, file.path)


@contextmanager
def open_reader(path: Path, name: str) -> Iterator[Reader]:
    """Open a file, to be read here and there."""
    with path.open("rb") as opened:
        yield Reader(
            name,
            os.fstat(opened.fileno()).st_size,
            lambda offset, length: os.pread(opened.fileno(), length, offset),
        )


def read_bundle(
    directory: Path, progress: Progress = no_progress, known: Known | None = None
) -> Bundle:
    """Hash a directory and find out what its files are.

    Args:
        directory: The directory.
        progress: Told how far hashing is.
        known: What was hashed before, and need not be again; None to hash everything.

    Raises:
        UsageError: It holds no ticket, or a file that no device would load.
        Refused: It holds a symbolic link or special file, or changed meanwhile.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", "name the folder with the files")
    ticket = _ticket(directory / TICKET_FILE)
    digests = hash_files(directory, ["."], progress, known)
    files = tuple(
        ReleaseFile(
            path=path,
            blob=Blob(digest, (directory / path).stat().st_size),
            format=known_format(path),
        )
        for path, digest in digests.items()
    )
    return Bundle(directory, files, ticket)


def known_format(path: str) -> str:
    """Return the format of a file.

    Raises:
        UsageError: It is of none that devices load.
    """
    found = format_of(path)
    if found is not None:
        return found
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in RUNS_CODE:
        raise UsageError(
            f"{path}: loading a {suffix} file can run code that is hidden in it",
            "export the model to onnx, safetensors, gguf or tflite",
        )
    known = ", ".join(text for suffixes in KNOWN_FORMATS.values() for text in suffixes)
    raise UsageError(
        f"{path}: {f'the suffix {suffix}' if suffix else 'a name without suffix'} stands for "
        "no format that devices know",
        f"leave the file out, or give it one of the suffixes {known}",
    )


def read_evidence(paths: Sequence[Path]) -> bytes:
    """Return evidence.jsonl made of link files, and of all link files in directories.

    Raises:
        UsageError: A path is missing, a directory has no links, or a file is not a link.
    """
    files: dict[Path, None] = {}
    for path in paths:
        found = sorted(path.glob(LINKS)) if path.is_dir() else [path]
        if not found:
            raise UsageError(
                f"there is no {LINKS} file in {path}", "make one with `modelward-repo attest`"
            )
        files |= dict.fromkeys(found)
    # Each envelope on one line, each link once, in an order that does not depend on file names.
    lines = sorted({_link(path) for path in files})
    return b"".join(lines)


def _link(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return dsse.Envelope.parse(path.name, file.read(dsse.ENVELOPE_CAP + 1)).to_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except FormatError as error:
        raise UsageError(f"{path} is not a link: {error.reason}") from error


def _ticket(path: Path) -> Ticket:
    try:
        with path.open("rb") as file:
            return Ticket.parse(file.read(TICKET_CAP + 1))
    except OSError as error:
        raise UsageError(
            f"there is no ticket in the bundle: {path}: {error.strerror}",
            "begin every run with `modelward-repo ticket MODEL VERSION`, and package it, too",
        ) from error
    except FormatError as error:
        raise UsageError(f"{path} is not a ticket: {error.reason}") from error
