"""A witness signs what only grows, whatever it is sent and whenever it is killed."""

import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.note import SignatureType, parse_signatures
from modelward.trust.cosignature import verify_cosignatures
from modelward_repo.log.add_checkpoint import CAP, AddCheckpoint
from modelward_repo.log.witness import Answer, Seen, Witness
from modelward_repo.log.witness_store import SqliteStore
from modelward_repo.server.witness import create_app
from tests.repo_tools.log.site import cosigning_key
from tests.simulator import merkle
from tests.simulator.log import NOW, Log, key, leaf

TIME = int(NOW.timestamp())
NAME = "w1"


def grown(log: Log, count: int, salt: int = 0) -> Log:
    log.append(*(leaf(salt * 1000 + len(log.entries) + n) for n in range(count)))
    return log


def request(log: Log, old: int, size: int | None = None) -> bytes:
    size = len(log.entries) if size is None else size
    proof = merkle.proof(old, log.entries[:size]) if 0 < old < size else []
    return AddCheckpoint(old, tuple(proof), log.signed(size, by=())).to_bytes()


def witness_of(log: Log, memory: Path) -> Witness:
    return Witness([cosigning_key(NAME)], [log.policy.vkey], SqliteStore(memory))


@pytest.fixture
def log() -> Log:
    return grown(Log(witnesses=(f"{NAME}.example",), threshold=1), 7)


@pytest.fixture
def witness(log: Log, tmp_path: Path) -> Witness:
    return witness_of(log, tmp_path / "memory")


def check(log: Log, answer: Answer, size: int | None = None) -> None:
    """The answer is one valid cosignature."""
    assert answer.status is HTTPStatus.OK, answer
    lines = parse_signatures(answer.body)
    signed = SignedCheckpoint.of(log.signed(size, by=()).note.signed(lines))
    assert verify_cosignatures(signed, log.policy, NOW).times == {f"{NAME}.example": TIME}


def test_it_cosigns_a_log_that_grows(log: Log, witness: Witness) -> None:
    check(log, witness.add_checkpoint(request(log, 0, 3), TIME), 3)
    check(log, witness.add_checkpoint(request(log, 3), TIME))
    # The same tree again: fresh cosignatures need no new leaf.
    check(log, witness.add_checkpoint(request(log, 7), TIME))


def test_it_says_what_it_has_seen_when_the_log_does_not_know(log: Log, witness: Witness) -> None:
    witness.add_checkpoint(request(log, 0, 3), TIME)
    answer = witness.add_checkpoint(request(log, 0), TIME)
    assert answer == Answer(HTTPStatus.CONFLICT, "3\n", "text/x.tlog.size")


def test_it_refuses_every_fork(log: Log, witness: Witness) -> None:
    witness.add_checkpoint(request(log, 0, 3), TIME)
    fork = grown(log.fork(), 5, salt=1)
    assert witness.add_checkpoint(request(fork, 3), TIME).status == 422
    assert witness.add_checkpoint(request(fork, 3, 3), TIME).status == 409
    assert witness.add_checkpoint(request(fork, 0), TIME).status == 409
    assert witness.add_checkpoint(request(log, 3, 2), TIME).status == 400
    check(log, witness.add_checkpoint(request(log, 3), TIME))


def test_it_refuses_what_is_not_its_log(log: Log, witness: Witness) -> None:
    other = grown(Log(origin="other.example"), 1)
    assert witness.add_checkpoint(request(other, 0), TIME).status == 404
    _, sign = key("thief.example", SignatureType.ED25519)
    body = request(log, 0).decode()
    line = body.rstrip("\n").rsplit(" ", 1)
    forged = f"{line[0]} {line[1][:8]}AAAA{line[1][12:]}\n".encode()
    assert witness.add_checkpoint(forged, TIME).status == 403
    assert sign(b"") != b""


def test_it_wants_no_proof_where_there_is_none(log: Log, witness: Witness) -> None:
    asked = AddCheckpoint.parse(request(log, 0))
    padded = AddCheckpoint(0, (bytes(32),), asked.signed).to_bytes()
    assert witness.add_checkpoint(padded, TIME).status == 422


@pytest.mark.fuzz
@given(st.binary(max_size=2000))
def test_any_bytes_are_answered(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    app = create_app(_shared(tmp_path_factory)).test_client()
    assert app.post("/add-checkpoint", data=body).status_code == 400


@pytest.mark.fuzz
@given(st.data())
def test_a_changed_request_is_never_cosigned_as_another_tree(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    log = grown(Log(witnesses=(f"{NAME}.example",), threshold=1), 7)
    body = bytearray(request(log, 0, 5))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] ^= 1 << data.draw(st.integers(0, 7))
    memory = tmp_path_factory.mktemp("memory") / "memory"
    answer = witness_of(log, memory).add_checkpoint(bytes(body), TIME)
    if answer.status is HTTPStatus.OK:
        check(log, answer, 5)  # the change was undone, or did not touch what counts


def test_too_long_a_request_is_not_read(log: Log, witness: Witness) -> None:
    app = create_app(witness).test_client()
    assert app.post("/add-checkpoint", data=b"x" * (CAP + 1)).status_code == 413
    assert app.get("/add-checkpoint").status_code == 405
    page = app.get("/").get_data(as_text=True)
    assert str(cosigning_key(NAME).vkey) in page
    assert str(log.policy.vkey) in page
    answer = app.post("/add-checkpoint", data=request(log, 0))
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.content_type.startswith("text/plain")


def test_both_kinds_of_key_sign_one_answer(log: Log, tmp_path: Path) -> None:
    kinds = (SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_ML_DSA_44)
    keys = [cosigning_key(NAME, kind) for kind in kinds]
    both = Witness(keys, [log.policy.vkey], SqliteStore(tmp_path / "memory"))
    answer = both.add_checkpoint(request(log, 0), TIME)
    assert len(parse_signatures(answer.body)) == 2
    post_quantum = Log(log.entries, witnesses=log.witnesses, witness_kind=kinds[1], threshold=1)
    check(log, answer)
    check(post_quantum, answer)


def test_many_at_once_sign_one_history(log: Log, tmp_path: Path) -> None:
    forks = [grown(log.fork(), 9, salt=salt) for salt in range(1, 9)]
    witnesses = [witness_of(log, tmp_path / "memory") for _ in forks]
    barrier = threading.Barrier(len(forks))

    def ask(number: int) -> int:
        barrier.wait()
        return witnesses[number].add_checkpoint(request(forks[number], 0), TIME).status

    with ThreadPoolExecutor(len(forks)) as pool:
        statuses = list(pool.map(ask, range(len(forks))))
    assert sorted(statuses) == [200, *[409] * (len(forks) - 1)]


def test_its_memory_outlives_it(log: Log, tmp_path: Path) -> None:
    witness_of(log, tmp_path / "memory").add_checkpoint(request(log, 0), TIME)
    with SqliteStore(tmp_path / "memory").turn(str(log.policy.vkey)) as turn:
        assert turn.seen() == Seen(7, merkle.mth(log.entries))


def test_an_error_between_leaves_its_memory_as_it_was(log: Log, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "memory")
    with suppress(ZeroDivisionError), store.turn("log") as turn:
        turn.seen()
        raise ZeroDivisionError
    with store.turn("log") as turn:
        assert turn.seen().size == 0


KILLED = Path(__file__).with_name("killed_witness.py")


def test_killed_at_any_point_it_never_signs_a_fork(tmp_path: Path) -> None:
    """Killed at every line that it runs, it is then asked for another history of the same size."""
    honest = grown(Log(witnesses=(f"{NAME}.example",), threshold=1), 7)
    fork = grown(honest.fork(), 7, salt=1)
    bodies = {"honest": request(honest, 0), "fork": request(fork, 0)}
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
    done = subprocess.run(
        [sys.executable, str(KILLED), str(tmp_path), str(honest.policy.vkey)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done
    points = [line.split() for line in done.stdout.splitlines()]
    assert len(points) > 50
    # Per point: whether the first answer came out, and what the fork was answered afterwards.
    for number, answered, status in points:
        if answered == "yes":
            assert status == "409", number
    assert {status for _, _, status in points} == {"200", "409"}
    assert {answered for _, answered, _ in points} == {"yes", "no"}


def test_killed_as_a_process_it_never_signs_a_fork(log: Log, tmp_path: Path) -> None:
    """SIGKILL at random moments, against the real command line with two worker processes."""
    import requests  # noqa: PLC0415

    from tests.repo_tools.log.site import process  # noqa: PLC0415
    from tests.repo_tools.site import run  # noqa: PLC0415

    key_file = tmp_path / "witness.key"
    done = run("witness", "key", f"{NAME}.example", "--out", key_file, "--plaintext-keys")
    assert done.code == 0
    command = [
        *("witness", "serve", f"{NAME}.example", "--key", key_file, "--port", 0),
        *("--log", log.policy.vkey, "--memory", tmp_path / "memory", "--workers", 2),
    ]
    rng = random.Random(4)
    signed: dict[int, set[bytes]] = {}
    for _ in range(4):
        with process(*command) as (server, url):
            pid = server.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            timer = threading.Timer(
                rng.uniform(0.0, 0.15),
                lambda pids: [os.kill(int(one), signal.SIGKILL) for one in pids],
                args=([*children, pid],),
            )
            timer.start()
            for salt in range(60):
                tree = grown(log.fork(), rng.randint(1, 9), salt=salt)
                try:
                    answer = requests.post(
                        f"{url}/add-checkpoint", data=request(tree, 0), timeout=5
                    )
                except requests.RequestException:
                    break
                if answer.status_code == 200:
                    root = tree.checkpoint().root
                    signed.setdefault(len(tree.entries), set()).add(root)
            timer.join()
    # From size 0 only one tree can ever have been signed, by all of its lives together.
    assert sum(map(len, signed.values())) <= 1


_made: list[Witness] = []


def _shared(factory: pytest.TempPathFactory) -> Witness:
    if not _made:
        log = grown(Log(), 1)
        _made.append(witness_of(log, factory.mktemp("shared") / "memory"))
    return _made[0]
