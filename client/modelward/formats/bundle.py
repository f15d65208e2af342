"""bundle.json: what somebody put on a stick for devices that no network reaches.

Nobody signs it, and no gate goes by it: it says which models there are to ask for, and makes it
plain whether the copy is whole. What is on the stick is judged as what a server sends.
"""

from dataclasses import dataclass
from datetime import datetime

from modelward.formats import strict
from modelward.formats.names import check_name, check_path, check_version
from modelward.formats.release import MAX_LENGTH, Blob

FILE = "bundle.json"
DOCUMENT = "bundle.json"
SCHEMA = "modelward/bundle/1"
CAP = 16 << 20
FOLDERS = ("blobs", "log", "metadata", "targets")  # of a repository: all that a bundle may have


@dataclass(frozen=True)
class BundleFile:
    """One file of a bundle.

    Attributes:
        path: Where it is, as in a repository.
        blob: Its content.
    """

    path: str
    blob: Blob


@dataclass(frozen=True)
class Bundle:
    """What a bundle has.

    Attributes:
        created: When it was made.
        expires: When the first of its metadata expires: devices refuse it from then on.
        timestamp: Version of its timestamp, by which older and newer bundles are told apart.
        channel: The channel it is for.
        models: Per model, the version that the channel offers.
        files: Its files, sorted by path.
    """

    created: datetime
    expires: datetime
    timestamp: int
    channel: str
    models: tuple[tuple[str, str], ...]
    files: tuple[BundleFile, ...]

    @classmethod
    def parse(cls, data: bytes) -> "Bundle":
        """Parse bundle.json.

        Raises:
            FormatError: It is ill-formed.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        fields.critical()
        bundle = cls(
            created=fields.time("created"),
            expires=fields.time("expires"),
            timestamp=fields.integer("timestamp", least=1),
            channel=fields.checked("channel", check_name),
            models=_models(fields.fields("models")),
            files=tuple(_file(item) for item in fields.each("files")),
        )
        paths = [file.path for file in bundle.files]
        if paths != sorted(set(paths)):
            raise fields.wrong("files", "is not sorted by path, or names a path twice")
        return bundle

    def to_bytes(self) -> bytes:
        """Return the document."""
        return strict.dump(
            {
                "schema": SCHEMA,
                "created": strict.rfc3339(self.created),
                "expires": strict.rfc3339(self.expires),
                "timestamp": self.timestamp,
                "channel": self.channel,
                "models": dict(self.models),
                "files": [
                    {"path": file.path, "length": file.blob.length, "sha256": file.blob.sha256}
                    for file in self.files
                ],
                "critical": [],
            }
        )

    @property
    def length(self) -> int:
        """Total bytes of all files."""
        return sum(file.blob.length for file in self.files)


def check_place(path: str) -> str:
    """Return the path of a file in a bundle.

    Raises:
        ValueError: It is not one that a repository has (attack row 25).
    """
    check_path(path)
    folder, slash, _ = path.partition("/")
    if not slash or folder not in FOLDERS:
        raise ValueError(f"{path[:80]!r} is in none of the folders {', '.join(FOLDERS)}")
    return path


def _models(fields: strict.Fields) -> tuple[tuple[str, str], ...]:
    for name in fields.raw:
        try:
            check_name(name)
        except ValueError as error:
            raise fields.wrong(name, str(error)) from error
    return tuple((name, fields.checked(name, check_version)) for name in sorted(fields.raw))


def _file(fields: strict.Fields) -> BundleFile:
    return BundleFile(
        fields.checked("path", check_place),
        Blob(fields.sha256("sha256"), fields.integer("length", most=MAX_LENGTH)),
    )
