"""What a device keeps of the log: the last tree it believed, and evidence against the log."""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from modelward.errors import FormatError, Gate
from modelward.formats.heard import Heard
from modelward.formats.log_evidence import LogEvidence
from modelward.formats.log_state import LogState
from modelward.install import fsops, memory
from modelward.trust.split_view import Judgement, judge

COPIES = ("log.state.a", "log.state.b")
EVIDENCE = "evidence"
HEARD = "log.heard"
MAX_EVIDENCE = 8  # files: one that proves something is enough
_ID = 16  # hexadecimal digits


@dataclass(frozen=True)
class Kept:
    """Evidence on disk.

    Attributes:
        name: By which it is called: the same for the same two checkpoints.
        evidence: The evidence.
        judgement: What it shows, judged again when it was read.
    """

    name: str
    evidence: LogEvidence
    judgement: Judgement


class LogStore:
    """Keeps the state of the log in two copies, and evidence beside it.

    Args:
        directory: The state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> LogState | None:
        """Return the state: of two copies the first that is intact, which is the newer one.

        Raises:
            Unavailable: They cannot be read, and may be intact.
        """
        copies = memory.read_copies(self._directory, COPIES, LogState.parse, Gate.LOG)
        for data in copies.values():
            with contextlib.suppress(FormatError):
                return LogState.parse(data)
        return None

    def save(self, state: LogState) -> None:
        """Write both copies, durably; a power cut leaves each as it was or as it is to be."""
        fsops.write_copies(self._directory, COPIES, state.to_bytes(), 0o600)

    def is_empty(self) -> bool:
        """Tell whether there is nothing at all, without reading anything."""
        return not any((self._directory / name).exists() for name in (*COPIES, EVIDENCE))

    def evidence(self) -> tuple[Kept, ...]:
        """Return all evidence, the oldest first.

        Raises:
            Unavailable: Some cannot be read, and may prove that a log lies.
        """
        found = []
        for path in sorted(self._evidence_files(), key=_age):
            data = memory.read(path, Gate.LOG)
            with contextlib.suppress(FormatError):
                if data is not None:
                    evidence = LogEvidence.parse(data)
                    found.append(Kept(path.stem, evidence, judge(evidence)))
        return tuple(found)

    def _evidence_files(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if path.suffix == ".json"]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise memory.Unreadable(self._folder, error, Gate.LOG) from error

    def keep(self, evidence: LogEvidence) -> str | None:
        """Keep evidence, durably.

        At most `MAX_EVIDENCE` files are kept: what proves nothing gives way to what does, and
        otherwise what came first stays. Nobody can fill a disk with it, or crowd a proof out.

        Returns:
            Its name; None if there was no room for it.

        Raises:
            Unavailable: What is kept already cannot be read.
        """
        proven, name = judge(evidence).proven, _name(evidence)
        already = self.evidence()
        if any(kept.name == name and kept.judgement.proven >= proven for kept in already):
            return name
        others = [kept for kept in already if kept.name != name]
        if len(others) >= MAX_EVIDENCE:
            spare = [kept for kept in others if not kept.judgement.proven]
            if not proven or not spare:
                return None
            fsops.remove(self._path(spare[0].name))
        fsops.make_directory(self._folder)
        fsops.write_file(self._path(name), evidence.to_bytes())
        return name

    def heard(self) -> Heard | None:
        """Return the largest tree that others have seen and this device has not; or None.

        Raises:
            Unavailable: That cannot be read.
        """
        data = memory.read(self._directory / HEARD, Gate.LOG)
        with contextlib.suppress(FormatError):
            return Heard.parse(data) if data is not None else None
        return None

    def save_heard(self, heard: Heard | None) -> None:
        """Remember what others have seen, durably; or forget it."""
        if heard is None:
            fsops.remove(self._directory / HEARD)
        else:
            fsops.write_file(self._directory / HEARD, heard.to_bytes(), 0o600)

    @property
    def _folder(self) -> Path:
        return self._directory / EVIDENCE

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _name(evidence: LogEvidence) -> str:
    """Return what the two trees are called by: cosignatures make no other evidence of them."""
    text = f"{evidence.policy.vkey}\n{evidence.seen.checkpoint}\n{evidence.shown.checkpoint}"
    return hashlib.sha256(text.encode()).hexdigest()[:_ID]


def _age(path: Path) -> tuple[float, str]:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime, path.name
    return 0.0, path.name
