"""One tree of errors: every refusal names the gate, the reason and what to do next.

Exit codes are part of the interface: scripts and monitoring rely on them (docs/device.md).
"""

import copyreg
from enum import Enum, IntEnum
from typing import Any

PUT_ROOT_BACK = "all trust follows from it: put back the root metadata that the device came with"


class ExitCode(IntEnum):
    """What a command's exit status means."""

    DONE = 0  # done, or nothing to do
    ERROR = 1  # anything else
    USAGE = 2
    REFUSED = 3  # a security check said no; the running model was left alone
    UNAVAILABLE = 4  # try again later
    ROLLED_BACK = 5  # a new model proved unfit: the one before it runs


class Gate(Enum):
    """The gates of an update, in the order they are passed (docs/gates.md)."""

    RECOVER = (1, "recover")
    CLOCK = (2, "clock")
    METADATA = (3, "metadata")
    LOG = (4, "log")
    CHANNEL = (5, "channel")
    RELEASE = (6, "release")
    SUPPLY_CHAIN = (7, "supply chain")
    POLICY = (8, "policy")
    PLAN = (9, "plan")
    FETCH = (10, "fetch")
    INSTALL = (11, "install")
    HEALTH = (12, "health")
    COMMIT = (13, "commit")

    @property
    def number(self) -> int:
        """Position in the list of gates, from 1."""
        return self.value[0]

    @property
    def label(self) -> str:
        """The gate's name as people read it."""
        return self.value[1]

    def __str__(self) -> str:
        return f"gate {self.number} ({self.label})"


class ModelwardError(Exception):
    """An error meant for people.

    Attributes:
        reason: What is wrong, in one sentence.
        advice: What to do next, in one sentence; may be empty.
        gate: The gate that stopped, once known.
    """

    exit_code = ExitCode.ERROR
    outcome = "error"

    def __init__(self, reason: str, advice: str = "", gate: Gate | None = None) -> None:
        self.reason = _printable(reason)
        self.advice = _printable(advice)
        super().__init__(self.reason)
        self.gate = gate

    def __str__(self) -> str:
        where = f"{self.gate}: " if self.gate else ""
        return f"{where}{self.reason}" + (f"\n  What to do: {self.advice}" if self.advice else "")

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it pass from one process to another; `Exception` would call `__init__` anew."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def to_dict(self) -> dict[str, Any]:
        """Return the error as a JSON object, for `--json`."""
        return {
            "outcome": self.outcome,
            "exit_code": int(self.exit_code),
            "gate": self.gate.label if self.gate else None,
            "gate_number": self.gate.number if self.gate else None,
            "reason": self.reason,
            "advice": self.advice,
        }


class UsageError(ModelwardError):
    """The command or configuration asks for something that makes no sense."""

    exit_code = ExitCode.USAGE
    outcome = "usage"


class Refused(ModelwardError):
    """A security check said no. Nothing was changed; the running model still runs."""

    exit_code = ExitCode.REFUSED
    outcome = "refused"

    def __init__(self, gate: Gate, reason: str, advice: str = "") -> None:
        super().__init__(reason, advice, gate)


class RolledBack(ModelwardError):
    """A new model proved unfit on this device (gate 12). The one that ran before runs on."""

    exit_code = ExitCode.ROLLED_BACK
    outcome = "rolled back"

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason, advice, Gate.HEALTH)


class FormatError(Refused):
    """A document breaks its format. The gate that read it is filled in by the caller.

    Attributes:
        document: What kind of document, such as ``release.json``.
        field: Path of the offending field, such as ``files[3].path``; empty for the whole.
    """

    def __init__(self, document: str, field: str, problem: str) -> None:
        where = f"{document}: {field}" if field else document
        ModelwardError.__init__(
            self,
            f"{where}: {problem}",
            "the document was made by a broken or hostile tool: tell whoever published it",
        )
        self.document = document
        self.field = field
        self.problem = problem

    def to_dict(self) -> dict[str, Any]:
        """Return the error as a JSON object, with the document and field that were refused."""
        return super().to_dict() | {
            "part": "formats",
            "document": self.document,
            "field": self.field,
        }


class Unavailable(ModelwardError):
    """Something needed could not be had now. Try again later; the running model still runs.

    Attributes:
        again: Seconds after which asking the same server again may help; None if it will not.
        vain: Seconds for which that server was waited for, and gave nothing worth the wait.
    """

    exit_code = ExitCode.UNAVAILABLE
    outcome = "unavailable"
    again: float | None = None
    vain: float = 0.0


class Busy(Unavailable):
    """Another process is at work on this device."""


class NotNow(Unavailable):
    """This device's own settings, or a rollout's, say: later. Nothing is wrong.

    Attributes:
        opens_in: Seconds until they no longer do.
    """

    def __init__(self, reason: str, advice: str, gate: Gate, opens_in: int) -> None:
        super().__init__(reason, advice, gate)
        self.opens_in = opens_in

    def to_dict(self) -> dict[str, Any]:
        """Return the error as a JSON object, with when to come again."""
        return super().to_dict() | {"opens_in": self.opens_in}


class NotFound(Unavailable):
    """The server answered that there is no such file.

    Attributes:
        status: The HTTP status, 403 or 404.
    """

    def __init__(self, reason: str, status: int = 404) -> None:
        super().__init__(reason)
        self.status = status


class NoRanges(Unavailable):
    """The server sends a whole file where a part was asked for. Nothing of it was read."""


class TooLong(Unavailable):
    """The server sent more bytes than the document may have. The rest was not read."""


def _printable(text: str) -> str:
    """Escape what a terminal would obey: errors quote servers and documents, hostile ones too."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
