"""Alarms that are pending: kept until somebody repairs what they are about.

They lie in the state directory; a reader that may not write there keeps its own in a folder of
its user, where `modelward status` of the same user finds them.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from modelward.errors import FormatError, ModelwardError
from modelward.formats.tampering import CAP, Tampering
from modelward.install import fsops
from modelward.install.opened import Folder
from modelward.install.own import LASTING, own_folder
from modelward.install.owner import is_owner, name_of, owner_of

FOLDER = "alarms"


class AlarmStore:
    """The alarms of one device, as one user sees them.

    Args:
        state: The state directory.
        environment: The process's environment.
    """

    def __init__(self, state: Path, environment: Mapping[str, str]) -> None:
        own = own_folder(state, environment, LASTING)
        self._shared = state / FOLDER
        self._own = [own / FOLDER] if own else []
        self._folders = [self._shared, *self._own]

    def keep(self, alarm: Tampering) -> Path | None:
        """Keep an alarm, durably. What was found first about a slot stays.

        Returns:
            Where it is kept; None if there is no place that this process may write to.
        """
        # Root may write there, but the owner could not end what root made in its directory.
        as_root = os.geteuid() == 0 and not is_owner(self._shared.parent)
        for folder in self._own if as_root else self._folders:
            path = folder / f"{alarm.name}.json"
            with contextlib.suppress(OSError):
                if not path.exists():
                    fsops.make_directory(folder)
                    fsops.write_file(path, alarm.to_bytes())
                return path
        return None

    def pending(self) -> tuple[Tampering, ...]:
        """Return all alarms, the oldest first."""
        found = {(alarm.model, alarm.release): alarm for _, alarm in _read(self._folders)}
        return tuple(sorted(found.values(), key=lambda alarm: (alarm.at, alarm.model)))

    def clear(self, model: str, release: str) -> None:
        """End the alarms about a slot: it is intact again.

        Raises:
            ModelwardError: This user may not.
        """
        for path, alarm in tuple(_read(self._folders)):
            if (alarm.model, alarm.release) == (model, release):
                try:
                    fsops.remove(path)
                except PermissionError as error:
                    raise _may_not(error, path.parent) from error

    def settle(self, is_over: Callable[[str, str], bool]) -> None:
        """End alarms of this very user that are over: whoever mends cannot see them.

        Args:
            is_over: Tells of a model and a release of it whether they are intact, or gone.
        """
        for path, alarm in tuple(_read(self._own)):
            if is_over(alarm.model, alarm.release):
                with contextlib.suppress(OSError):
                    fsops.remove(path)


def _may_not(error: PermissionError, folder: Path) -> ModelwardError:
    me = name_of(os.geteuid())
    return ModelwardError(
        f"an alarm that is over cannot be ended: {error}; {folder} belongs to "
        f"{owner_of(folder)}, and this runs as {me}",
        f"as root: chown {me} {folder}",
    )


def _read(folders: Iterable[Path]) -> Iterator[tuple[Path, Tampering]]:
    for folder in folders:
        # What this user may not read is none of its own, or will be heard of again.
        with contextlib.suppress(OSError), Folder(folder) as opened:
            for name in sorted(opened.names()):
                if name.endswith(".json"):
                    with contextlib.suppress(OSError, FormatError):
                        yield folder / name, Tampering.parse(opened.read(name, CAP))
