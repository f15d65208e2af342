"""What a device has, as its `modelward status --json` tells: so that a stick need not carry it."""

import json
from dataclasses import dataclass
from pathlib import Path

from modelward.errors import FormatError, UsageError
from modelward.formats import strict
from modelward.formats.names import check_name, check_version

DOCUMENT = "status"
CAP = 4 << 20  # bytes


@dataclass(frozen=True)
class Having:
    """What one device has.

    Attributes:
        channel: The channel it follows.
        releases: The model and version of every release whose files it keeps.
        log_size: Leaves of the tree of the log that it believes; None if it has seen none.
    """

    channel: str
    releases: tuple[tuple[str, str], ...]
    log_size: int | None

    @classmethod
    def parse(cls, data: bytes) -> "Having":
        """Parse what `modelward status --json` printed.

        Raises:
            FormatError: It is something else.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        models = fields.fields("models")
        releases = []
        for model in models.raw:
            try:
                check_name(model)
            except ValueError as error:
                raise models.wrong(model, str(error)) from error
            entry = models.fields(model)
            releases.append((model, entry.checked("version", check_version)))
            if entry.has("previous"):
                releases.append((model, entry.checked("previous", check_version)))
        log = fields.fields("log") if fields.has("log") else None
        return cls(
            fields.checked("channel", check_name),
            tuple(releases),
            log.integer("size") if log is not None and log.has("size") else None,
        )

    @classmethod
    def read(cls, file: Path) -> "Having":
        """Read a file that holds what `modelward status --json` printed.

        Raises:
            UsageError: It cannot be read, or is something else.
        """
        try:
            return cls.parse(file.read_bytes())
        except (OSError, json.JSONDecodeError, FormatError) as error:
            why = error.reason if isinstance(error, FormatError) else str(error)
            raise UsageError(
                f"{file} does not say what a device has: {why}",
                "on the device: modelward status --json > FILE",
            ) from error
