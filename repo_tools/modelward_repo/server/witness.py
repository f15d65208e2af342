"""A witness over HTTP (c2sp.org/tlog-witness)."""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from modelward.errors import FormatError, UsageError
from modelward.formats.note import VerifierKey
from modelward_repo.log import witness_keys
from modelward_repo.log.add_checkpoint import CAP, PATH
from modelward_repo.log.witness import Answer, Witness
from modelward_repo.log.witness_store import SqliteStore

SETTINGS = "MODELWARD_WITNESS"


@dataclass(frozen=True)
class Settings:
    """What a witness is made of, as its worker processes are told. No secret is part of it.

    Attributes:
        name: The witness's name.
        keys: Files of its private keys.
        logs: The vkeys of the logs it knows.
        memory: The file with what it has seen.
        passphrase_file: The file with the keys' passphrase; None if they are not encrypted.
    """

    name: str
    keys: tuple[Path, ...]
    logs: tuple[str, ...]
    memory: Path
    passphrase_file: Path | None = None

    def witness(self) -> Witness:
        """Return the witness.

        Raises:
            UsageError: Something of it cannot be read, or makes no sense.
        """
        try:
            logs = [VerifierKey.parse(log) for log in self.logs]
        except FormatError as error:
            raise UsageError(f"that is no log's vkey: {error.problem}") from error
        keys = [witness_keys.load(path, self.name, self._passphrase) for path in self.keys]
        if len({log.name for log in logs}) < len(logs):
            raise UsageError("two logs have the same origin", "a witness tells them apart by it")
        return Witness(keys, logs, SqliteStore(self.memory))

    def to_json(self) -> str:
        """Return the settings as text."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """Read what `to_json` wrote."""
        raw = json.loads(text)
        file = raw["passphrase_file"]
        return cls(
            raw["name"],
            tuple(map(Path, raw["keys"])),
            tuple(raw["logs"]),
            Path(raw["memory"]),
            Path(file) if file else None,
        )

    def _passphrase(self, path: Path) -> bytes:
        if self.passphrase_file is None:
            raise UsageError(
                f"the key {path} is encrypted",
                "name the file with its passphrase with --passphrase-file",
            )
        try:
            return self.passphrase_file.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
        except OSError as error:
            raise UsageError(f"{self.passphrase_file} cannot be read: {error.strerror}") from error


def create_app(witness: Witness, clock: Callable[[], float] = time.time) -> Flask:
    """Return the application of a witness.

    Args:
        witness: The witness.
        clock: Tells the time, POSIX seconds.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = CAP

    @app.get("/")
    def page() -> Response:
        """Say who this is and which logs it knows, to people who follow the address."""
        lines = ["A witness of transparency logs (c2sp.org/tlog-witness). Its keys:"]
        lines += [f"  {key.vkey}" for key in witness.keys]
        lines += ["The logs it knows:", *(f"  {log}" for log in witness.logs.values())]
        return _text(Answer(HTTPStatus.OK, "\n".join([*lines, ""])))

    @app.post(PATH)
    def add_checkpoint() -> Response:
        """Cosign a log's tree, or say why not."""
        return _text(witness.add_checkpoint(request.get_data(), int(clock())))

    @app.errorhandler(HTTPException)
    def error(problem: HTTPException) -> Response:
        """Say what is wrong, in one line."""
        text = f"{problem.code} {problem.name}\n"
        return Response(text, problem.code, problem.get_headers(), content_type="text/plain")

    return app


def from_environment() -> Flask:
    """Return the application for the settings in `MODELWARD_WITNESS`: see `server.app`."""
    return create_app(Settings.from_json(os.environ[SETTINGS]).witness())


def _text(answer: Answer) -> Response:
    response = Response(answer.body, answer.status, content_type=answer.content_type)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
