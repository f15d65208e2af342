"""All witnesses are asked at once; none is waited for for ever, and none is believed."""

import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest

from modelward.errors import Unavailable
from modelward.formats.note import SignatureType
from modelward_repo.log.add_checkpoint import AddCheckpoint
from modelward_repo.log.cosigning import Collected, Collector, Patience, Tree, post
from modelward_repo.log.witness import CosigningKey, Witness
from modelward_repo.log.witness_store import SqliteStore
from tests.simulator import merkle
from tests.simulator.log import NOW, Log, key, leaf

TIME = int(NOW.timestamp())
NAMES = ("w1.example", "w2.example", "w3.example")
Post = Callable[[bytes], tuple[int, bytes]]


@pytest.fixture
def log() -> Log:
    made = Log(witnesses=NAMES)
    made.append(*map(leaf, range(6)))
    return made


@pytest.fixture
def honest(log: Log, tmp_path: Path) -> dict[str, Post]:
    """What each witness does with a request."""

    def poster(name: str) -> Post:
        store = SqliteStore(tmp_path / name)
        keys = [CosigningKey(*key(name, SignatureType.COSIGNATURE_ED25519))]
        witness = Witness(keys, [log.policy.vkey], store)

        def answer(body: bytes) -> tuple[int, bytes]:
            answered = witness.add_checkpoint(body, TIME)
            return int(answered.status), answered.body.encode()

        return answer

    return {name: poster(name) for name in NAMES}


def collect(
    log: Log, posts: dict[str, Post], old_size: int = 0, patience: Patience | None = None
) -> Collected:
    def ask(url: str, body: bytes, _seconds: float) -> tuple[int, bytes]:
        return posts[url.split("/")[2]](body)

    entries = list(log.entries)
    tree = Tree(
        log.signed(by=()),
        log.policy,
        {name: f"http://{name}" for name in posts},
        old_size,
        lambda old: tuple(merkle.proof(old, entries)) if 0 < old < len(entries) else (),
        NOW,
    )
    return Collector(patience or Patience(total=5), ask)(tree)


def test_every_answer_counts(log: Log, honest: dict[str, Post]) -> None:
    done = collect(log, honest)
    assert done.cosigned == set(NAMES)
    assert done.problems == {}
    assert len(done.signed.note.signatures) == 4
    log.append(leaf(6))
    # Whatever we think that they have seen, they say what they have.
    for guess in (6, 0, 3):
        assert collect(log, honest, guess).cosigned == set(NAMES)


def test_one_that_hangs_keeps_nobody_waiting(log: Log, honest: dict[str, Post]) -> None:
    import threading  # noqa: PLC0415

    ended = threading.Event()

    def hang(_body: bytes) -> tuple[int, bytes]:
        ended.wait(20)
        return 200, b""

    began = time.monotonic()
    done = collect(log, {**honest, "w2.example": hang}, patience=Patience(total=15, grace=0.05))
    ended.set()
    assert time.monotonic() - began < 10
    assert done.cosigned == {"w1.example", "w3.example"}
    assert done.problems == {"w2.example": "it did not answer in time"}


@pytest.mark.parametrize(
    ("status", "answer", "problem"),
    [
        (500, b"broken\n", "answers 500: broken"),
        (200, b"", "must end in a signature"),
        (200, b"\xff\xfe\n", "em dash"),
        (409, b"many\n", "without the size"),
        (409, b"99\n", "restored from a backup"),
        (409, b"6\n", "a fork"),
        (409, b"2\n", "changes its mind"),
    ],
)
def test_what_witnesses_may_answer(
    log: Log, honest: dict[str, Post], status: int, answer: bytes, problem: str
) -> None:
    done = collect(log, {**honest, "w1.example": lambda _body: (status, answer)}, old_size=6)
    assert done.cosigned == {"w2.example", "w3.example"}
    assert problem in done.problems["w1.example"]


def test_anothers_signature_is_not_a_witnesss_own(log: Log, honest: dict[str, Post]) -> None:
    done = collect(log, {**honest, "w1.example": honest["w2.example"]})
    assert done.cosigned == {"w2.example", "w3.example"}
    assert "did not sign with the key w1.example" in done.problems["w1.example"]


def test_a_forged_or_future_signature_is_not_taken(log: Log, honest: dict[str, Post]) -> None:
    def forged(body: bytes) -> tuple[int, bytes]:
        status, answer = honest["w1.example"](body)
        return status, answer.replace(b"AAAAA", b"AAAAB", 1)

    done = collect(log, {**honest, "w1.example": forged})
    assert "w1.example" not in done.cosigned

    def future(body: bytes) -> tuple[int, bytes]:
        signing = CosigningKey(*key("w1.example", SignatureType.COSIGNATURE_ED25519))
        tree = AddCheckpoint.parse(body).signed.checkpoint
        return HTTPStatus.OK, str(signing.cosign(tree, TIME + 1)).encode()

    done = collect(log, {**honest, "w1.example": future})
    assert done.problems["w1.example"] == "its time is in the future"


def test_a_witness_that_nobody_can_find_is_named(log: Log, honest: dict[str, Post]) -> None:
    del honest["w3.example"]
    done = collect(log, honest)
    assert "log witnesses" in done.problems["w3.example"]


def test_no_answer_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        post("http://127.0.0.1:1/add-checkpoint", b"", 1)
    with pytest.raises(Unavailable, match="does not answer"):
        post("http://[::1", b"", 1)
