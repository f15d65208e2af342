"""Collecting cosignatures: every witness is asked at once, and none is waited for for ever."""

import http.client
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from modelward.errors import FormatError, ModelwardError, Unavailable
from modelward.formats.checkpoint import SignedCheckpoint, parse_decimal
from modelward.formats.log_policy import LogPolicy
from modelward.formats.note import SignatureLine, VerifierKey, parse_signatures
from modelward.trust.cosignature import verify_cosignatures
from modelward_repo.log.add_checkpoint import DOCUMENT, PATH, AddCheckpoint

ANSWER_CAP = 64 << 10  # bytes: room for post-quantum cosignatures
TRIES = 3  # a witness may have seen less, or more, than we think


@dataclass(frozen=True)
class Patience:
    """How long to wait for witnesses.

    Attributes:
        total: Most seconds for all of them.
        grace: Seconds that are left to the others once there are enough.
    """

    total: float = 15.0
    grace: float = 2.0


@dataclass(frozen=True)
class Tree:
    """What witnesses are asked to cosign.

    Attributes:
        signed: The tree, signed by the log.
        policy: The witnesses, and how many of them it takes.
        urls: Where each is reached, by name.
        old_size: Leaves of the tree that they have probably cosigned last.
        prove: Returns the consistency proof from a smaller size.
        not_after: Cosignatures from later than this do not count.
    """

    signed: SignedCheckpoint
    policy: LogPolicy
    urls: Mapping[str, str]
    old_size: int
    prove: Callable[[int], tuple[bytes, ...]]
    not_after: datetime


@dataclass(frozen=True)
class Collected:
    """What witnesses answered.

    Attributes:
        signed: The tree with the log's signature and every valid cosignature.
        cosigned: Whose they are.
        problems: Why there is none of the others.
    """

    signed: SignedCheckpoint
    cosigned: frozenset[str]
    problems: Mapping[str, str]


Collect = Callable[[Tree], Collected]
"""Asks witnesses for their cosignatures."""

Ask = Callable[[str, bytes, float], tuple[int, bytes]]
"""Posts a body to an address within so many seconds; returns the status and the answer."""


def post(url: str, body: bytes, seconds: float) -> tuple[int, bytes]:
    """Post a request over HTTP. Redirects are not followed.

    Raises:
        Unavailable: No answer, or too long a one.
    """
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=seconds)
        try:
            headers = {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "modelward-repo"}
            connection.request("POST", parts.path, body, headers)
            response = connection.getresponse()
            answer = response.read(ANSWER_CAP + 1)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"{url} does not answer: {type(error).__name__}: {error}") from error
    if len(answer) > ANSWER_CAP:
        raise Unavailable(f"{url} answers with more than {ANSWER_CAP} bytes")
    return response.status, answer


@dataclass(frozen=True)
class Collector:
    """Asks every witness of a policy at once.

    Attributes:
        patience: How long to wait.
        ask: Sends one request.
        clock: Monotonic seconds.
    """

    patience: Patience = field(default_factory=Patience)
    ask: Ask = post
    clock: Callable[[], float] = time.monotonic

    def __call__(self, tree: Tree) -> Collected:
        """Collect what comes in time; see `Collect`."""
        found: dict[str, SignatureLine] = {}
        problems = {
            name: "nobody said where it is: `modelward-repo log witnesses NAME=URL`"
            for name in tree.policy.witnesses
            if name not in tree.urls
        }
        answers: queue.SimpleQueue[tuple[str, SignatureLine | str]] = queue.SimpleQueue()
        deadline = self.clock() + self.patience.total
        left = set()
        for name in tree.policy.witnesses.keys() & tree.urls.keys():
            left.add(name)
            # A thread of a witness that never answers must not keep this process alive.
            threading.Thread(
                target=self._one, args=(tree, name, deadline, answers), daemon=True
            ).start()
        while left:
            try:
                name, answer = answers.get(timeout=max(0.0, deadline - self.clock()))
            except queue.Empty:
                break
            left.discard(name)
            if isinstance(answer, str):
                problems[name] = answer
                continue
            found[name] = answer
            if tree.policy.quorum is not None and tree.policy.is_quorum(found):
                deadline = min(deadline, self.clock() + self.patience.grace)
        problems |= dict.fromkeys(left, "it did not answer in time")
        lines = [found[name] for name in tree.policy.witnesses if name in found]
        signed = SignedCheckpoint.of(tree.signed.note.signed(lines))
        return Collected(signed, frozenset(found), problems)

    def _one(
        self,
        tree: Tree,
        name: str,
        deadline: float,
        answers: "queue.SimpleQueue[tuple[str, SignatureLine | str]]",
    ) -> None:
        try:
            answers.put((name, self._cosignature(tree, name, deadline)))
        except ModelwardError as error:
            answers.put((name, error.reason))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is that witness's failure
            answers.put((name, f"{type(error).__name__}: {error}"))

    def _cosignature(self, tree: Tree, name: str, deadline: float) -> SignatureLine:
        key = tree.policy.witnesses[name]
        url = tree.urls[name].rstrip("/") + PATH
        old = min(tree.old_size, tree.signed.checkpoint.size)
        for _ in range(TRIES):
            seconds = max(0.1, deadline - self.clock())
            request = AddCheckpoint(old, tree.prove(old), tree.signed)
            status, answer = self.ask(url, request.to_bytes(), seconds)
            if status == http.client.OK:
                return _own(tree, key, answer)
            if status != http.client.CONFLICT:
                raise Unavailable(f"{url} answers {status}: {_shown(answer)}")
            seen = _size(url, answer)
            if seen > tree.signed.checkpoint.size:
                raise Unavailable(
                    f"it has cosigned a larger tree, of {seen} leaves: this log was restored from "
                    "a backup, or somebody else writes to it"
                )
            if seen == old == tree.signed.checkpoint.size:
                raise Unavailable(f"it has cosigned another tree of {seen} leaves: a fork")
            old = seen
        raise Unavailable(f"{url} changes its mind about what it has seen")


def _own(tree: Tree, key: VerifierKey, answer: bytes) -> SignatureLine:
    """Return the witness's own line of an answer, verified."""
    lines = parse_signatures(answer.decode("utf-8", "replace"))
    for line in lines:
        if (line.name, line.key_id) == (key.name, key.key_id):
            signed = SignedCheckpoint.of(tree.signed.note.signed([line]))
            cosigners = verify_cosignatures(signed, tree.policy, tree.not_after)
            for reason in cosigners.ignored.values():
                raise Unavailable(reason)
            return line
    raise Unavailable(f"it did not sign with the key {key.name}+{key.key_id.hex()} that root names")


def _size(url: str, answer: bytes) -> int:
    try:
        return parse_decimal(answer[:32].decode("ascii").removesuffix("\n"), DOCUMENT, "size")
    except (UnicodeDecodeError, FormatError) as error:
        raise Unavailable(f"{url} answers 409 without the size that it has seen") from error


def _shown(answer: bytes) -> str:
    return answer[:200].decode("utf-8", "replace").strip()
