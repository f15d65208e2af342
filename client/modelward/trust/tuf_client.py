"""TUF's own client, fenced in: what it fetches through, and what its errors mean to a person."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tuf.api import exceptions as tuf_errors
from tuf.ngclient import FetcherInterface, Updater

from modelward.errors import Gate, NotFound, Refused, TooLong, Unavailable

_DISTRUST = (
    "do not trust this server: use another mirror, and tell the security team; if it was "
    "restored from a backup, whoever runs it must publish past what was lost"
)

Keep = Callable[[Path, bytes], None]  # replaces a file, at once and for good

logging.getLogger("tuf").setLevel(logging.ERROR)


class Fetcher(Protocol):
    """Brings bytes from anywhere; nothing it brings is trusted."""

    def fetch(self, url: str, limit: int) -> bytes:
        """Return the body at `url`.

        Raises:
            TooLong: The body is longer than `limit` bytes; reading stopped there.
            NotFound: The server has no such file.
            Unavailable: Anything else went wrong.
        """
        ...


class TufFetcher(FetcherInterface):
    """Lets TUF's client fetch through a `Fetcher`, in memory.

    Attributes:
        served_timestamp: The last `timestamp.json` that was served, byte for byte, or None.

    Args:
        fetcher: Brings the bytes.
        before_timestamp: Called before a timestamp is asked for: root is the newest by then.
    """

    def __init__(self, fetcher: Fetcher, before_timestamp: Callable[[], None]) -> None:
        self._inner = fetcher
        self._before_timestamp = before_timestamp
        self.served_timestamp: bytes | None = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise NotImplementedError  # never called: both callers are overridden below

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return the body at `url`, with TUF's own errors if it cannot be had.

        Raises:
            Refused: What was delivered is not what the fetcher was to bring.
            DownloadError: Anything else went wrong.
        """
        is_timestamp = url.rpartition("/")[2] == "timestamp.json"
        if is_timestamp:
            self._before_timestamp()
        try:
            data = self._inner.fetch(url, max_length)
        except Refused as error:
            error.gate = Gate.METADATA
            raise
        except TooLong as error:
            raise tuf_errors.DownloadLengthMismatchError(error.reason) from error
        except NotFound as error:
            raise tuf_errors.DownloadHTTPError(error.reason, error.status) from error
        except Unavailable as error:
            raise tuf_errors.DownloadError(error.reason) from error
        if is_timestamp:
            self.served_timestamp = data
        return data


class KeepingUpdater(Updater):
    """TUF's client, which keeps what it verified by a way of the caller's own.

    TUF's own replaces each file without syncing it: after a power cut it may be there, and empty.

    Args:
        arguments: As of `Updater`.
        keep: That way; None for TUF's own.
        options: As of `Updater`.
    """

    def __init__(self, *arguments: Any, keep: Keep | None, **options: Any) -> None:
        self._keep = keep
        super().__init__(*arguments, **options)

    def _persist_file(self, filename: str, data: bytes) -> None:
        if self._keep is None:
            super()._persist_file(filename, data)
        else:
            self._keep(Path(filename), data)


@contextmanager
def errors_about(subject: str, if_invalid: str = _DISTRUST) -> Iterator[None]:
    """Turn what TUF's client raises into what a person can act upon.

    Args:
        subject: What is being read, for people.
        if_invalid: What to do if it is not valid.
    """
    try:
        yield
    except tuf_errors.ExpiredMetadataError as error:
        raise Refused(
            Gate.METADATA,
            f"{subject}: {sentence(error)}",
            "either the repository is no longer kept up, or someone keeps newer metadata from "
            "this device; check this device's clock and the repository",
        ) from error
    except tuf_errors.DownloadLengthMismatchError as error:
        raise Refused(
            Gate.METADATA,
            f"{subject}: {sentence(error)}",
            "the server sends more than the repository signed: use another mirror",
        ) from error
    except tuf_errors.DownloadError as error:
        problem = Unavailable(
            f"{subject} could not be fetched: {sentence(error)}",
            getattr(error.__cause__, "advice", "")
            or "check the network and the repository's address, then try again",
            Gate.METADATA,
        )
        problem.again = getattr(error.__cause__, "again", None)
        raise problem from error
    except OSError as error:
        raise Unavailable(
            f"TUF's cache could not be read or written: {error}",
            "check the permissions and free space of the state directory",
            Gate.METADATA,
        ) from error
    except (
        tuf_errors.RepositoryError,
        RecursionError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        # Beside TUF's own errors, whatever its parser trips over: it was not well-formed.
        raise Refused(
            Gate.METADATA,
            f"{subject} is not valid: {sentence(error)}",
            if_invalid,
        ) from error


def sentence(error: BaseException) -> str:
    """Return what an error says, on one line that fits a terminal."""
    text = " ".join(str(error).split())
    return text if len(text) < 300 else text[:297] + "..."  # noqa: PLR2004 - fits a terminal
