"""Taking device reports over HTTP. What is reported is stored in private and never served."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from flask import Flask, Response, request
from tuf.api.metadata import Metadata, Root

from modelward.errors import NotFound
from modelward.formats.leaf import REPOSITORY_FIELD
from modelward.formats.log_policy import LogPolicy
from modelward.formats.report import CAP
from modelward.formats.tile import Tile
from modelward_repo.fleet.gossip import Ledger
from modelward_repo.fleet.intake import ACCEPTED, Answer, Intake
from modelward_repo.fleet.store import Fleet
from modelward_repo.log.places import CHECKPOINT, tile_path
from modelward_repo.publish.ledger import log_policy
from modelward_repo.storage.local import LocalStorage

FLEET = "MODELWARD_SERVE_FLEET"
PATH = "/reports"


def fleet_folder(directory: Path) -> Path:
    """Return where reports on a repository go if nobody says otherwise: beside it, not in it."""
    where = directory.resolve()
    return where.with_name(f"{where.name}-fleet")


def add_intake(
    app: Flask, directory: Path, folder: Path, clock: Callable[[], float] = time.time
) -> None:
    """Let an application take reports, once a device is registered.

    Args:
        app: The application.
        directory: The repository.
        folder: The private folder of the fleet.
        clock: Tells the time, POSIX seconds.
    """
    app.config["MAX_CONTENT_LENGTH"] = CAP
    fleet = Fleet(folder)
    ledger = Ledger(ServedLog(directory))
    intake = Intake(fleet, ledger)

    @app.post(PATH)
    def take() -> Response:
        """Take a report, or say why not."""
        if not fleet.exists():
            return Response("404 no device is registered here\n", 404, content_type="text/plain")
        return _respond(intake.take(request.get_data(), int(clock())), ledger)


def _respond(answer: Answer, ledger: Ledger) -> Response:
    """Answer, with the newest checkpoint beside it: the device compares as well."""
    shown = ledger.checkpoint() if answer.outcome in ACCEPTED else None
    said = {
        "outcome": answer.outcome,
        "reason": answer.reason,
        "checkpoint": shown.decode() if shown is not None else None,
    }
    response = Response(json.dumps(said), answer.status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    if answer.retry_after is not None:
        response.headers["Retry-After"] = str(answer.retry_after)
    return response


class ServedLog:
    """The log in a repository's directory; see `modelward_repo.fleet.gossip.Served`.

    Args:
        directory: The repository.
    """

    def __init__(self, directory: Path) -> None:
        self._storage = LocalStorage(directory)
        self._root: Root | None = None

    def repository_id(self) -> str | None:
        """See `Served.repository_id`."""
        value = self._newest_root().unrecognized_fields.get(REPOSITORY_FIELD)
        return value if isinstance(value, str) else None

    def policy(self) -> LogPolicy | None:
        """See `Served.policy`."""
        return log_policy(self._newest_root())

    def checkpoint(self) -> bytes | None:
        """See `Served.checkpoint`."""
        return self._storage.read(CHECKPOINT) if self._storage.exists(CHECKPOINT) else None

    def tile(self, tile: Tile) -> bytes:
        """See `Served.tile`."""
        path = tile_path(tile)
        if not self._storage.exists(path):
            raise NotFound(f"there is no {path}")
        return self._storage.read(path)

    def _newest_root(self) -> Root:
        version = self._root.version if self._root else 1
        while self._storage.exists(f"metadata/{version + 1}.root.json"):
            version += 1
        if self._root is None or self._root.version != version:
            data = self._storage.read(f"metadata/{version}.root.json")
            self._root = Metadata[Root].from_bytes(data).signed
        return self._root
