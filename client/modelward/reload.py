"""Loading a model again whenever another version of it becomes current."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Self

from modelward import follow
from modelward.model import Model
from modelward.opening import open_model, state_of

Loaded = Callable[[Model], object]

# Seconds from a version that could not be opened to the next try; each failure doubles it.
PAUSE = 1.0
LONGEST = 600.0


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
        while (model := self._next()) is not None:
            try:
                self._callback(model)
            except Exception:  # its own: the next version may suit it
                logging.getLogger("modelward").exception("the callback for %s failed", self._name)
            del model  # how long it stays open is up to the callback

    def _next(self) -> Model | None:
        """Wait for another version and open it, however many tries that takes; None if stopped."""
        pause = PAUSE
        while self._wait(self._seen, None):
            found = follow.place(self._state, self._name)
            try:
                model = open_model(self._name, self._state, strict=self._strict)
            except Exception:  # what is short now, memory or a thread, need not be so for long
                logging.getLogger("modelward").exception(
                    "%s was not loaded again; the next try is in %g s", self._name, pause
                )
                another = self._wait(found, pause)
                pause = PAUSE if another else min(2 * pause, LONGEST)
            else:
                self._seen = found
                return model
        return None

    def _wait(self, seen: follow.Place, timeout: float | None) -> bool:
        """Tell whether another folder runs than one that was seen, by then; false once stopped."""
        return not self._stop.is_set() and follow.wait(
            self._state, {self._name: seen}, timeout, self._stop.wait
        )


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
    A later version that cannot be opened is logged and tried again, less and less often.

    Args:
        name: The model's name.
        callback: Is called with the open model.
        state: The device's state directory; default $MODELWARD_STATE, then /var/lib/modelward.
        strict: As for `modelward.open_model`.

    Returns:
        A handle to stop it with, also as a context manager.
    """
    return Watch(name, callback, state_of(state), strict=strict)
