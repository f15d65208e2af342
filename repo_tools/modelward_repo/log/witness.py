"""A witness: cosigns a log's tree only if it begins with the one it cosigned before.

What it is about to say is stored before it is said (c2sp.org/tlog-witness). So a witness that is
killed at any point has never said anything that it does not remember, and never signs a fork.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from modelward.errors import FormatError, ModelwardError
from modelward.formats.checkpoint import Checkpoint, SignedCheckpoint
from modelward.formats.cosignature import Cosignature, signed_message
from modelward.formats.note import SignatureLine, VerifierKey
from modelward.trust.cosignature import verify_log_signature
from modelward.trust.merkle import EMPTY_ROOT, ProofError, verify_consistency
from modelward_repo.log.add_checkpoint import SIZE_TYPE, AddCheckpoint

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Seen:
    """The newest tree of a log that a witness has cosigned.

    Attributes:
        size: Its leaves.
        root: Its root hash.
    """

    size: int
    root: bytes


NOTHING = Seen(0, EMPTY_ROOT)


class Store(Protocol):
    """Remembers what a witness has seen, through kills and power cuts."""

    def turn(self, log: str) -> "AbstractContextManager[Turn]":
        """Wait until no other process of this witness looks at the same log, and let this one.

        Args:
            log: Digest or name of the log's key.
        """
        ...


class Turn(Protocol):
    """One look at one log, by one process of a witness."""

    def seen(self) -> Seen:
        """Return the newest tree that was cosigned; `NOTHING` if there was none."""
        ...

    def remember(self, seen: Seen) -> None:
        """Store a tree: on return it outlives a power cut."""
        ...


@dataclass(frozen=True)
class CosigningKey:
    """A key of a witness.

    Attributes:
        vkey: The public key under the witness's name.
        sign: Signs bytes with the private key.
    """

    vkey: VerifierKey
    sign: Callable[[bytes], bytes]

    def cosign(self, checkpoint: Checkpoint, time: int) -> SignatureLine:
        """Cosign a tree.

        Args:
            checkpoint: The tree.
            time: The time, POSIX seconds.
        """
        signature = self.sign(signed_message(self.vkey, checkpoint, time))
        return SignatureLine.by(self.vkey, Cosignature(time, signature).to_bytes())


@dataclass(frozen=True)
class Answer:
    """What a witness answers.

    Attributes:
        status: HTTP's status.
        body: The body.
        content_type: What it is.
    """

    status: HTTPStatus
    body: str
    content_type: str = TEXT


class Witness:
    """Cosigns the logs it knows.

    Args:
        keys: Its keys: each cosigns.
        logs: The keys of the logs it knows.
        store: Its memory.
    """

    def __init__(
        self, keys: Sequence[CosigningKey], logs: Sequence[VerifierKey], store: Store
    ) -> None:
        self.keys = tuple(keys)
        self.logs: Mapping[str, VerifierKey] = {log.name: log for log in logs}
        self._store = store
        if len(self.logs) < len(logs):
            raise ValueError("two logs have the same origin")

    def add_checkpoint(self, body: bytes, now: int) -> Answer:
        """Answer a log that asks for a cosignature.

        Args:
            body: The request.
            now: The time, POSIX seconds.
        """
        try:
            request = AddCheckpoint.parse(body)
        except FormatError as error:
            return Answer(HTTPStatus.BAD_REQUEST, f"{error.reason}\n")
        signed = request.signed
        log = self.logs.get(signed.checkpoint.origin)
        if log is None:
            return Answer(HTTPStatus.NOT_FOUND, "this witness does not know that log\n")
        try:
            verify_log_signature(signed, log)
        except ModelwardError as error:
            return Answer(HTTPStatus.FORBIDDEN, f"{error.reason}\n")
        if request.old_size > signed.checkpoint.size:
            return Answer(HTTPStatus.BAD_REQUEST, "the old size is the larger one\n")
        with self._store.turn(str(log)) as turn:
            refusal = _examine(request, turn.seen())
            if refusal is not None:
                return refusal
            turn.remember(Seen(signed.checkpoint.size, signed.checkpoint.root))
        # Only now: whoever gets the cosignature may show it to everybody.
        return Answer(HTTPStatus.OK, self._cosign(signed, now))

    def _cosign(self, signed: SignedCheckpoint, now: int) -> str:
        return "".join(str(key.cosign(signed.checkpoint, now)) for key in self.keys)


def _examine(request: AddCheckpoint, seen: Seen) -> Answer | None:
    """Return why a tree is not cosigned, or None."""
    tree = request.signed.checkpoint
    if request.old_size != seen.size:
        return Answer(HTTPStatus.CONFLICT, f"{seen.size}\n", SIZE_TYPE)
    if tree.size == seen.size and tree.root != seen.root:
        # The very thing that a witness is there for.
        return Answer(HTTPStatus.CONFLICT, f"{seen.size}\n", SIZE_TYPE)
    try:
        verify_consistency(seen.size, tree.size, request.proof, seen.root, tree.root)
    except ProofError as error:
        return Answer(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error}\n")
    return None
