"""Opening what is installed: one model, or several that belong together, of one generation."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from modelward import follow
from modelward.errors import Refused, UsageError
from modelward.formats.installed import Slot
from modelward.formats.names import check_name
from modelward.install.slots import of_this_process
from modelward.install.verified import ChangedError
from modelward.model import Installation, Model
from modelward.settings import state_directory


class Models(Mapping[str, Model]):
    """Models that belong together, open: all are of one generation, whatever is switched meanwhile.

    A mapping from names to models, each as `modelward.open_model` returns it.
    """

    def __init__(
        self, state: Path, seen: Mapping[str, follow.Place], models: Mapping[str, Model]
    ) -> None:
        self._state = state
        self._seen = seen
        self._models = models

    @property
    def fallback(self) -> bool:
        """Whether any of them is the version before."""
        return any(model.fallback for model in self._models.values())

    def wait_for_update(self, timeout: float | None = None) -> bool:
        """Wait until there is another version of any of them; see `Model.wait_for_update`."""
        return follow.wait(self._state, self._seen, timeout)

    def close(self) -> None:
        """Close all of them."""
        for model in self._models.values():
            model.close()

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_model(
    name: str, state: str | os.PathLike[str] | None = None, *, strict: bool = False
) -> Model:
    """Open the model that is installed under a name.

    If it was tampered with, an alarm is raised, and the version before it is opened instead: see
    `Model.fallback`. An alarm is logged, and kept for `modelward status`.

    A program that uses several models which belong together opens them with `open_models`.

    Args:
        name: The model's name.
        state: The device's state directory; default $MODELWARD_STATE, then /var/lib/modelward.
        strict: Hash every file, even if nothing has written to it since it was last hashed.

    Raises:
        UsageError: No such model is installed.
        Refused: Neither version is what was approved; nothing of them was handed out.
        OSError: This process may not open as many files, or may not read them.
    """
    return open_models((name,), state, strict=strict)[name]


def open_models(
    names: Iterable[str], state: str | os.PathLike[str] | None = None, *, strict: bool = False
) -> Models:
    """Open several models as they were installed together, though an update may come between.

    If one was tampered with, an alarm is raised and the version before it is opened, as by
    `open_model`. Those that it parts from the versions that they were approved with (the components
    that a release pins) go back with it: what is opened was approved together.

    Args:
        names: The models' names.
        state: As for `open_model`.
        strict: As for `open_model`.

    Raises:
        UsageError: One is not installed.
        Refused: No versions of all of them that go together are what was approved; nothing of
            them was handed out.
        OSError: This process may not open as many files, or may not read them.
    """
    wanted = tuple(names)
    try:
        for name in wanted:
            check_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    place = state_of(state)
    while True:
        current = _current(place)
        with ExitStack() as closing:
            try:
                found = Installation.of(place, wanted, strict=strict)
                opening = _Opening(found, closing)
                changed = opening.open_current()
                if not changed or _current(place) == current:
                    opening.fall_back(changed)
                    closing.pop_all()
                    seen = {name: installation.seen for name, installation in found.items()}
                    return Models(place, seen, opening.models)
            except Refused as error:
                if (why := of_this_process(error)) is not None:
                    raise why from None
                if _current(place) == current:
                    raise
        # An update came between: what was looked for may be gone, and rightly so.


def state_of(state: str | os.PathLike[str] | None) -> Path:
    """Return the state directory that is meant."""
    return Path(state) if state is not None else state_directory(None, os.environ)


def _current(state: Path) -> str | None:
    """Return where the one link that is switched points to."""
    try:
        return os.readlink(state / "current")  # noqa: PTH115 - compared, not followed
    except OSError:
        return None


class _Opening:
    """Models of one generation while they are being opened.

    Args:
        found: How each of them is installed.
        closing: Closes what was opened, unless all went well.

    Attributes:
        models: Those that are open.
    """

    def __init__(self, found: Mapping[str, Installation], closing: ExitStack) -> None:
        self.models: dict[str, Model] = {}
        self._slots: dict[str, Slot] = {}
        self._found = found
        self._closing = closing

    def open_current(self) -> dict[str, ChangedError]:
        """Open what runs; return what is wrong with those that are not what was approved."""
        changed = {}
        for name, installation in self._found.items():
            try:
                self._take(name, installation.active, installation.open())
            except ChangedError as error:
                changed[name] = error
        return changed

    def fall_back(self, changed: Mapping[str, ChangedError]) -> None:
        """Raise the alarm about what was changed, and open the versions before that go together.

        Raises:
            Refused: There are none.
        """
        try:
            self._go_back(set(changed))
        except ChangedError as error:
            refusals = [
                self._found[name].alarm(self._found[name].active, f"{problem}{error}")
                for name, problem in changed.items()
            ]
            raise refusals[0] from error
        for name, problem in changed.items():
            installation = self._found[name]
            installation.alarm(installation.active, str(problem), served=self.models[name].version)

    def _go_back(self, moving: set[str]) -> None:
        """Put the version before in the place of some, and of all that they are parted from.

        Raises:
            ChangedError: There are no versions that go together; says why.
        """
        gone_back: set[str] = set()
        while moving:
            for name in sorted(moving):
                self._open_before(name)
            gone_back |= moving
            moving = self._parted(gone_back)

    def _open_before(self, name: str) -> None:
        installation = self._found[name]
        before = installation.before
        if before is None:
            raise ChangedError(f"; no {name} before {installation.active.version} is kept")
        try:
            self._take(name, before, installation.open_before(before))
        except ChangedError as error:
            installation.alarm(before, str(error))
            raise ChangedError(f"; and so was {name} {before.version}: {error}") from error

    def _parted(self, gone_back: set[str]) -> set[str]:
        """Return which of those that run do not go with one that went back.

        Raises:
            ChangedError: Two that went back do not go together.
        """
        parted = set()
        for name, model in self.models.items():
            for component, needed in self._found[name].components(self._slots[name]):
                there = self.models.get(component)
                pair = {name, component}
                if there is None or there.version == needed or not pair & gone_back:
                    continue
                if pair <= gone_back:
                    raise ChangedError(
                        f"; and {name} {model.version}, kept from before, needs {component} "
                        f"{needed}, but {there.version} is kept"
                    )
                parted |= pair - gone_back
        return parted

    def _take(self, name: str, slot: Slot, model: Model) -> None:
        if name in self.models:
            self.models[name].close()
        self._slots[name] = slot
        self.models[name] = model
        self._closing.callback(model.close)
