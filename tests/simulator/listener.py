"""A WSGI application that listens, in this process: what all simulated servers are made with."""

from contextlib import suppress
from threading import Thread
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server


class Listener:
    """Has an application listen on a free port from `start` to `stop`.

    Args:
        application: Called for each request, each in a thread of its own.

    Attributes:
        url: Where it is, without a final slash; known before it starts.
    """

    def __init__(self, application: Any) -> None:
        self._server = make_server(
            "127.0.0.1", 0, application, threaded=True, request_handler=_Silent
        )
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End, with whatever is being answered."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Silent(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """Stay silent: tests look at what was asked for."""

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()
