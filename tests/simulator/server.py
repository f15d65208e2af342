"""The real application over real HTTP, in this process, and able to lie.

`Server` notes every request. `Server.lie` replaces the answers for some paths, as a mirror in the
wrong hands would.
"""

import gzip
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from werkzeug.middleware.shared_data import SharedDataMiddleware
from werkzeug.wrappers import Response
from werkzeug.wsgi import ClosingIterator

from modelward_repo.server.app import create_app
from tests.simulator.listener import Listener

Answer = Callable[[bytes], Response]
"""Makes an answer out of the honest content."""


class Server:
    """Serves a repository while used as a context manager.

    Args:
        directory: The repository.
        others: Other directories to serve, by the path they appear under.

    Attributes:
        url: Where it is, without a final slash.
        requests: The paths that were asked for, in order.
        sent: Bytes of honest content that were sent, by path.
        posts: The paths that something was posted to.
    """

    def __init__(self, directory: Path, others: Mapping[str, Path] | None = None) -> None:
        shared = {path: str(folder) for path, folder in (others or {}).items()}
        self._honest: Any = SharedDataMiddleware(create_app(directory), shared, cache=False)
        self._lies: list[tuple[re.Pattern[str], Answer]] = []
        self._listener = Listener(self._answer)
        self.url = self._listener.url
        self.requests: list[str] = []
        self.sent: Counter[str] = Counter()
        self.posts: list[str] = []

    def lie(self, pattern: str, answer: Answer) -> None:
        """Answer requests differently whose path matches, from its start on."""
        self._lies.append((re.compile(pattern), answer))

    def lies_about(self, path: str) -> bool:
        """Tell whether any lie concerns a path."""
        return any(pattern.match(path) for pattern, _ in self._lies)

    def poured(self) -> int:
        """Return how many bytes endless answers have sent."""
        return sum(answer.sent for _, answer in self._lies if isinstance(answer, Endless))

    def be_honest(self) -> None:
        """End all lies."""
        self._lies.clear()

    def asked(self, pattern: str) -> list[str]:
        """Return the paths that were asked for and match, from their start on."""
        return [path for path in self.requests if re.match(pattern, path)]

    def _answer(self, environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] == "POST":
            self.posts.append(path)
        else:
            self.requests.append(path)
        for pattern, answer in self._lies:
            if pattern.match(path):
                honest = Response.from_app(self._honest, environ, buffered=True).get_data()
                return answer(honest)(environ, start_response)
        answer = self._honest(environ, start_response)
        return ClosingIterator(self._counted(path, answer), getattr(answer, "close", None))

    def _counted(self, path: str, answer: Iterable[bytes]) -> Iterator[bytes]:
        for block in answer:
            self.sent[path] += len(block)
            yield block

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.stop()


class Endless:
    """An answer that never ends, and knows how much of it was taken.

    Attributes:
        sent: Bytes that were handed to the network.
    """

    def __init__(self) -> None:
        self.sent = 0

    def __call__(self, honest: bytes) -> Response:
        """Begin with the honest content and go on for ever."""
        return Response(self._pour(honest), direct_passthrough=True)

    def _pour(self, honest: bytes) -> Iterator[bytes]:
        yield honest
        block = b" " * 65536
        while True:
            self.sent += len(block)
            yield block


def instead(data: bytes) -> Answer:
    """Answer with other content."""
    return lambda _honest: Response(data)


def cut(honest: bytes) -> Response:
    """Announce everything and send half of it."""
    return _announcing(len(honest), honest[: len(honest) // 2])


def announce_too_much(honest: bytes) -> Response:
    """Announce a terabyte."""
    return _announcing(1 << 40, honest)


def redirect(url: str) -> Answer:
    """Send elsewhere whoever asks."""
    return lambda _honest: Response(status=302, headers={"Location": url})


def gzip_bomb(_honest: bytes) -> Response:
    """Send a little that would unpack to 64 MiB."""
    packed = gzip.compress(bytes(64 << 20), compresslevel=9)
    return Response(packed, headers={"Content-Encoding": "gzip"})


def drip(honest: bytes) -> Response:
    """Announce everything and send a byte now and then."""

    def bytes_() -> Iterator[bytes]:
        for at in range(len(honest)):
            yield honest[at : at + 1]
            time.sleep(0.05)

    headers = {"Content-Length": str(len(honest))}
    return Response(bytes_(), headers=headers, direct_passthrough=True)


def other_range(honest: bytes) -> Response:
    """Answer with a part that was not asked for."""
    headers = {"Content-Range": f"bytes 1-{len(honest)}/{len(honest) + 1}"}
    return Response(honest, status=206, headers=headers)


def status(code: int) -> Answer:
    """Answer with an error."""
    return lambda _honest: Response(status=code)


def _announcing(length: int, data: bytes) -> Response:
    return Response(iter([data]), headers={"Content-Length": str(length)})
