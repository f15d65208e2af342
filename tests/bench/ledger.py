"""What the transparency log costs: a device that verifies, a publisher that appends.

    make bench ARGS=ledger

Makes a log of 1,000,000 leaves in memory-backed files and measures beside it, in the same run, what
cannot be avoided: the signatures alone, and the same append to a log of 1,000 leaves. Writes the
table between its markers in docs/benchmarks.md.
"""

import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.leaf import Leaf
from modelward.formats.log_state import LogState
from modelward.formats.note import SignatureType
from modelward.formats.tlog_proof import MAX_TAIL, TimestampProof, TlogProof
from modelward.trust import log as gate
from modelward_repo.log.writer import LogWriter
from modelward_repo.storage.local import LocalStorage
from tests.bench import page
from tests.simulator import log as simulated

LEAVES = 1_000_000
SMALL = 1_000
BEHIND = 15
RUNS = 200
VKEY, SIGN = simulated.key(simulated.ORIGIN, SignatureType.ED25519)
MEMORY = Path("/dev/shm")


class CountingStorage(LocalStorage):
    """A directory that notes what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[int] = []

    def read(self, path: str) -> bytes:
        """Read a file and note its size."""
        data = super().read(path)
        self.reads.append(len(data))
        return data


def leaf(number: int) -> Leaf:
    """Return a leaf as publishing writes it."""
    return simulated.leaf(number)


def begin(place: Path, leaves: int) -> CountingStorage:
    """Return the storage of a log with so many leaves."""
    storage = CountingStorage(place)
    last = leaf(0).to_bytes()
    # All but the last leaf need only be some bytes of the right length.
    others = [b"%0*d" % (len(last), number) for number in range(leaves - 1)]
    LogWriter(storage, VKEY).append([*others, last], SIGN)
    return storage


def timestamp_proof(storage: CountingStorage) -> str:
    """Return what timestamp.json carries for the newest leaf, cosigned by three witnesses."""
    writer = LogWriter(storage, VKEY)
    if writer.signed is None:
        raise SystemExit("the log was not signed")
    now = int(datetime.now(UTC).timestamp())
    lines = [
        simulated.cosign(writer.signed.checkpoint, name, now) for name in simulated.Log().witnesses
    ]
    signed = SignedCheckpoint.of(writer.signed.note.signed(lines))
    proof = TlogProof(writer.size - 1, writer.inclusion(writer.size - 1), signed)
    return json.dumps(TimestampProof(proof, writer.tail(MAX_TAIL)).to_dict())


def verify(text: str, newest: Leaf, state: LogState | None) -> LogState:
    """Do what gate 4 does, from the text in timestamp.json on."""
    later = datetime.now(UTC) + timedelta(hours=1)
    proof = TimestampProof.parse(json.loads(text))
    policy = simulated.Log().policy
    return gate.verify(proof, newest, policy, state=state, not_after=later).state


def median(action: Callable[[], object], runs: int = RUNS) -> float:
    """Return the median time of an action, in milliseconds."""
    times = []
    for _ in range(runs):
        before = time.perf_counter()
        action()
        times.append(time.perf_counter() - before)
    return statistics.median(times) * 1000


def measure_device(storage: CountingStorage) -> dict[str, float]:
    """Measure gate 4 on a device that is 15 leaves behind; three witnesses, two needed."""
    seen = verify(timestamp_proof(storage), leaf(0), None)
    newer = [leaf(number) for number in range(1, BEHIND + 1)]
    LogWriter(storage, VKEY).append([each.to_bytes() for each in newer], SIGN)
    text = timestamp_proof(storage)
    message = b"what four signatures cost"
    signature = SIGN(message)
    public = Ed25519PublicKey.from_public_bytes(VKEY.public_key)

    def signatures() -> None:
        for _ in range(4):  # the log's and three witnesses'
            public.verify(signature, message)

    return {
        "verify": median(lambda: verify(text, newer[-1], seen)),
        "signatures": median(signatures),
        "state": len(verify(text, newer[-1], seen).to_bytes()),
        "x-tlog": len(text),
    }


def measure_writer(storage: CountingStorage) -> dict[str, float]:
    """Measure appending one leaf and making what a timestamp carries."""
    times = []
    reads: list[int] = []
    for number in range(20):
        storage.reads.clear()
        before = time.perf_counter()
        writer = LogWriter(storage, VKEY)
        writer.append([leaf(10_000 + number).to_bytes()], SIGN)
        writer.inclusion(writer.size - 1)
        writer.tail(MAX_TAIL)
        times.append(time.perf_counter() - before)
        reads = list(storage.reads)
    return {
        "append": statistics.median(times) * 1000,
        "reads": len(reads),
        "read bytes": sum(reads),
    }


def main(_arguments: list[str]) -> None:
    """Measure, print, and write the page."""
    memory = str(MEMORY) if MEMORY.is_dir() else None
    with TemporaryDirectory(dir=memory) as place:
        small = begin(Path(place, "small"), SMALL)
        large = begin(Path(place, "large"), LEAVES)
        device = measure_device(large)
        one, many = measure_writer(small), measure_writer(large)
    ratio = device["verify"] / device["signatures"]
    page.write(
        "ledger",
        [
            page.measured("make bench ARGS=ledger", "medians"),
            "",
            *page.table(
                (
                    f"A device at {LEAVES:,} leaves, {BEHIND} behind, 3 witnesses",
                    "measured",
                    "limit",
                ),
                (
                    ("gate 4, parsing and verifying", f"{device['verify']:.2f} ms", "1 ms"),
                    ("the same, against its four Ed25519 signatures alone", f"{ratio:.2f} x", "-"),
                    ("state that is kept", f"{device['state']:.0f} bytes", "4,096 bytes"),
                    (
                        "`x-tlog` in timestamp.json",
                        f"{device['x-tlog']:.0f} bytes",
                        "16,384 bytes in all",
                    ),
                ),
            ),
            "",
            *page.table(
                (
                    "A publisher appends a leaf, makes its proofs",
                    f"{SMALL:,} leaves",
                    f"{LEAVES:,} leaves",
                ),
                (
                    (
                        "time, files in memory",
                        f"{one['append']:.2f} ms",
                        f"{many['append']:.2f} ms",
                    ),
                    ("files read", f"{one['reads']:.0f}", f"{many['reads']:.0f}"),
                    ("bytes read", f"{one['read bytes']:,.0f}", f"{many['read bytes']:,.0f}"),
                ),
            ),
        ],
    )
