"""The repository over HTTP: static files, with what caches and resuming downloads need.

Only names that the repository's own layout knows are served; whatever else lies in the directory,
such as locks and half-written files, does not exist as far as HTTP is concerned.
"""

import hashlib
import os
import re
from pathlib import Path

from flask import Flask, Response, request, send_file
from markupsafe import escape
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.security import safe_join

from modelward_repo.server.reports import FLEET, add_intake, fleet_folder

DIRECTORY = "MODELWARD_SERVE_DIRECTORY"
IMMUTABLE = "public, max-age=31536000, immutable"
CHANGING = "no-cache"
_SMALL = 1 << 20  # bytes of the two files that change; they are kept far below

_NAME = r"[A-Za-z0-9_%+][A-Za-z0-9._%+-]*"
_CHANGING = re.compile(r"metadata/timestamp\.json|log/checkpoint")
_BY_DIGEST = re.compile(
    rf"targets/(?:{_NAME}/)*([0-9a-f]{{64}}|[0-9a-f]{{128}})\.{_NAME}"
    r"|blobs/sha256/([0-9a-f]{2})/(\2[0-9a-f]{62})"
    r"|log/archive/([0-9a-f]{2})/(\4[0-9a-f]{62})"
)
_VERSIONED = re.compile(rf"metadata/[1-9][0-9]*\.{_NAME}\.json|log/tile/[0-9a-z/]+(?:\.p/[0-9]+)?")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>modelward repository</title></head>
<body><h1>A modelward repository</h1>
<p>This server hands out AI models to devices. Nothing it says is taken on trust: every device
checks who published a model, how it was made, and every byte of it.</p>
<p>Point a device at this address:
<code>modelward init --repository {url} --root root.json --state DIR</code></p>
<p>See <a href="metadata/timestamp.json">metadata/timestamp.json</a> for what is current.</p>
</body></html>
"""


def create_app(directory: Path, fleet: Path | None = None) -> Flask:
    """Return the application that serves one repository.

    Args:
        directory: The repository.
        fleet: Private folder for device reports; None for the one beside the repository.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # a path is right or does not exist; no redirects
    root = directory.resolve()

    @app.get("/")
    def page() -> str:
        """Say what this is, to people who follow the address."""
        return _PAGE.format(url=escape(request.url_root.rstrip("/")))

    add_intake(app, directory, fleet or fleet_folder(directory))

    @app.get("/<path:path>")
    def file(path: str) -> Response:
        """Serve one file of the repository."""
        place = _place(root, path)
        if _CHANGING.fullmatch(path):
            return _changing(place)
        if match := _BY_DIGEST.fullmatch(path):
            return _immutable(place, match[1] or match[3] or match[5])
        if _VERSIONED.fullmatch(path):
            # The name holds no digest, and two repositories may use the same version.
            status = place.stat()
            response = _immutable(place, f"{status.st_size:x}-{status.st_mtime_ns:x}")
            if ".p/" in path:
                # Where one log takes the place of another, their small tiles have the same names.
                response.headers["Cache-Control"] = CHANGING
            return response
        raise NotFound

    @app.after_request
    def harden(response: Response) -> Response:
        """Keep browsers from guessing what a file might be."""
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Content-Security-Policy"] = "default-src 'none'"
        return response

    @app.errorhandler(HTTPException)
    def error(problem: HTTPException) -> Response:
        """Say what is wrong, in one line."""
        text = f"{problem.code} {problem.name}\n"
        return Response(text, problem.code, problem.get_headers(), content_type="text/plain")

    return app


def from_environment() -> Flask:
    """Return the application for the directory that `MODELWARD_SERVE_DIRECTORY` names.

    The server's worker processes call this: they inherit the environment and nothing else.
    """
    return create_app(Path(os.environ[DIRECTORY]), Path(os.environ[FLEET]))


def _place(root: Path, path: str) -> Path:
    """Return the file that a path names, or end the request."""
    joined = safe_join(str(root), path)
    if joined is None or any(part.startswith(".") for part in path.split("/")):
        raise NotFound
    place = Path(joined)
    if not place.is_file():
        raise NotFound
    return place


def _changing(place: Path) -> Response:
    """Serve a small file that is replaced now and then: content and ETag from one read."""
    with place.open("rb") as file:
        data = file.read(_SMALL)
    response = Response(data, content_type=_content_type(place))
    response.set_etag(hashlib.sha256(data).hexdigest())
    response.headers["Cache-Control"] = CHANGING
    return _conditional(response, len(data))


def _immutable(place: Path, etag: str) -> Response:
    response = send_file(place, mimetype=_content_type(place), conditional=True, etag=etag)
    response.headers["Cache-Control"] = IMMUTABLE
    response.headers["Accept-Ranges"] = "bytes"
    response.headers.pop("Content-Disposition", None)
    return response


def _conditional(response: Response, length: int) -> Response:
    response.make_conditional(request.environ, accept_ranges=True, complete_length=length)
    return response


def _content_type(place: Path) -> str:
    return "application/json" if place.suffix == ".json" else "application/octet-stream"
