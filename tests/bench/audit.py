"""What a full audit of a log costs: `modelward-repo log verify`, every leaf and every document.

    make bench ARGS=audit

A real repository is given a history of 10,000 further snapshots, each signed, archived and logged,
and is audited as it lies on disk. Writes its part of docs/benchmarks.md.
"""

import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from tuf.api.metadata import Metadata, Snapshot, Timestamp

from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.leaf import Leaf, RoleDigest
from modelward.formats.note import SignatureType
from modelward.formats.tlog_proof import MAX_TAIL, TimestampProof, TlogProof
from modelward_repo.log.audit import Audit, audit
from modelward_repo.log.places import CHECKPOINT, archive_path
from modelward_repo.log.writer import LogWriter
from modelward_repo.publish.target import Source
from modelward_repo.roles import metadata as tuf
from tests.bench import page
from tests.simulator import log as simulated
from tests.simulator.ledger import ORIGIN, WITNESSES, LoggedWorld, LogThief, Witnesses
from tests.simulator.world import now

LEAVES = 10_000
SMALL = 1_000


def lengthen(world: LoggedWorld, leaves: int) -> None:
    """Give a repository's log so many more leaves, each of a snapshot of the same content."""
    holder = LogThief(world, ("repository/snapshot", "repository/timestamp"))
    timestamp = Metadata[Timestamp].from_bytes(holder.read("metadata/timestamp.json"))
    version = timestamp.signed.snapshot_meta.version
    snapshot = Metadata[Snapshot].from_bytes(holder.read(f"metadata/{version}.snapshot.json"))
    before, signers = holder.leaf(), holder.signers("snapshot")
    entries, data = [], b""
    for number in range(version + 1, version + leaves + 1):
        data = tuf.sign(snapshot, number, snapshot.signed.expires, signers)
        digest = hashlib.sha256(data).hexdigest()
        holder.write(archive_path(digest), data)
        leaf = Leaf(before.repository, before.root, RoleDigest(number, digest))
        entries.append(leaf.to_bytes())
    holder.write(f"metadata/{snapshot.signed.version}.snapshot.json", data)

    vkey, sign = simulated.key(ORIGIN, SignatureType.ED25519)
    writer = LogWriter(world.storage, vkey)
    signed = writer.append(entries, sign)
    at = int(datetime.now(UTC).timestamp())
    lines = [simulated.cosign(signed.checkpoint, name, at) for name in WITNESSES]
    cosigned = SignedCheckpoint.of(signed.note.signed(lines))
    holder.write(CHECKPOINT, cosigned.to_bytes())
    proof = TlogProof(writer.size - 1, writer.inclusion(writer.size - 1), cosigned)
    told = TimestampProof(proof, writer.tail(MAX_TAIL)).to_dict()
    timestamp.signed.snapshot_meta = tuf.meta_file(snapshot.signed.version, data)
    timestamp.signed.unrecognized_fields["x-tlog"] = told
    newest = tuf.sign(
        timestamp,
        timestamp.signed.version + 1,
        timestamp.signed.expires,
        holder.signers("timestamp"),
    )
    holder.write("metadata/timestamp.json", newest)


def measure(world: LoggedWorld) -> tuple[Audit, float]:
    """Audit, and return what was found and the seconds it took."""
    source = Source.stored(world.storage, None)
    before = time.perf_counter()
    found = audit(source, now())
    seconds = time.perf_counter() - before
    if found.faults:
        raise SystemExit(f"the audit found faults: {found.faults[:3]}")
    return found, seconds


def main(_arguments: list[str]) -> None:
    """Measure, print, and write the page."""
    with TemporaryDirectory() as place, Witnesses() as witnesses:
        world = LoggedWorld(Path(place), Path(place), witnesses=witnesses)
        world.found()
        world.publish("1.0.0")
        lengthen(world, SMALL)
        few, short = measure(world)
        lengthen(world, LEAVES)
        many, long = measure(world)
    each = 1000 * (long - short) / (many.size - few.size)
    page.write(
        "audit",
        [
            page.measured("make bench ARGS=audit", "one run, from files, nothing cached by us"),
            "",
            *page.table(
                ("A full audit (`log verify`)", f"{few.size:,} leaves", f"{many.size:,} leaves"),
                (
                    ("documents read and verified", f"{few.documents:,}", f"{many.documents:,}"),
                    ("time", f"{short:.1f} s", f"{long:.1f} s"),
                    ("for each further leaf", "-", f"{each:.2f} ms"),
                ),
            ),
        ],
    )
