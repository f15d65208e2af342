"""Loading a model again whenever another version of it becomes current."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Self

from modelward import follow
from modelward.errors import ModelwardError
from modelward.model import Model
from modelward.opening import open_model, state_of

Loaded = Callable[[Model], object]


class Watch:
    """Calls back with every version of a model that becomes current, until it is stopped."""

    def __init__(self, name: str, callback: Loaded, state: Path, *, strict: bool) -> None:
        self._name = name
        self._callback = callback
        self._state = state
        self._strict = strict
        self._stop = Event()
        self._seen = follow.place(state, name)
        callback(open_model(name, state, strict=strict))
        self._thread = Thread(target=self._run, name=f"modelward-watch-{name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop. When this returns, the callback does not run and will not be called again."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        while follow.wait(self._state, {self._name: self._seen}, None, self._stop.wait):
            self._seen = follow.place(self._state, self._name)
            try:
                self._callback(open_model(self._name, self._state, strict=self._strict))
            except (ModelwardError, OSError):
                logging.getLogger("modelward").exception("%s was not loaded again", self._name)
            except Exception:  # the callback's own: the next version may suit it
                logging.getLogger("modelward").exception("the callback for %s failed", self._name)


def watch(
    name: str,
    callback: Loaded,
    state: str | os.PathLike[str] | None = None,
    *,
    strict: bool = False,
) -> Watch:
    """Call back with a model now, and again each time another version of it becomes current.

    The first call is made before this returns, in the same thread, and what it raises is raised
    here; later ones are made in a thread of their own, and what they raise is logged. Each gets a
    model of its own, opened as `modelward.open_model` does, and closes it when it is done with it.

    Args:
        name: The model's name.
        callback: Is called with the open model.
        state: The device's state directory; default $MODELWARD_STATE, then /var/lib/modelward.
        strict: As for `modelward.open_model`.

    Returns:
        A handle to stop it with, also as a context manager.
    """
    return Watch(name, callback, state_of(state), strict=strict)
