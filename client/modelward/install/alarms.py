"""Alarms that are pending: kept until somebody repairs what they are about.

They lie in the state directory; a reader that may not write there keeps its own in a folder of
its user, where `modelward status` of the same user finds them.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from modelward.errors import FormatError
from modelward.formats.tampering import CAP, Tampering
from modelward.install import fsops
from modelward.install.opened import Folder
from modelward.install.own import LASTING, own_folder

FOLDER = "alarms"


class AlarmStore:
    """The alarms of one device, as one user sees them.

    Args:
        state: The state directory.
        environment: The process's environment.
    """

    def __init__(self, state: Path, environment: Mapping[str, str]) -> None:
        own = own_folder(state, environment, LASTING)
        self._folders = [state / FOLDER, *([own / FOLDER] if own else [])]

    def keep(self, alarm: Tampering) -> Path | None:
        """Keep an alarm, durably. What was found first about a slot stays.

        Returns:
            Where it is kept; None if there is no place that this process may write to.
        """
        for folder in self._folders:
            path = folder / f"{alarm.name}.json"
            with contextlib.suppress(OSError):
                if not path.exists():
                    fsops.make_directory(folder)
                    fsops.write_file(path, alarm.to_bytes())
                return path
        return None

    def pending(self) -> tuple[Tampering, ...]:
        """Return all alarms, the oldest first."""
        found = {(alarm.model, alarm.release): alarm for _, alarm in self._read()}
        return tuple(sorted(found.values(), key=lambda alarm: (alarm.at, alarm.model)))

    def clear(self, model: str, release: str) -> None:
        """End the alarms about a slot: it is intact again."""
        for path, alarm in tuple(self._read()):
            if (alarm.model, alarm.release) == (model, release):
                fsops.remove(path)

    def _read(self) -> Iterator[tuple[Path, Tampering]]:
        for folder in self._folders:
            for path in sorted(folder.glob("*.json")):
                with contextlib.suppress(OSError, FormatError), Folder(folder) as opened:
                    yield path, Tampering.parse(opened.read(path.name, CAP))
