"""Well-formed values of every format, for property tests."""

import hashlib
import struct
from datetime import UTC, timedelta
from math import prod

from hypothesis import assume
from hypothesis import strategies as st

from modelward.fastpath import Rest
from modelward.formats import chunks
from modelward.formats.bundle import FOLDERS, Bundle, BundleFile
from modelward.formats.channel import MAX_AFTER, MILLION, Channel, Entry, Rollout, Stage
from modelward.formats.chunks import ChunkIndex
from modelward.formats.floors import Floors, RoleFloor
from modelward.formats.floors_reset import FloorsReset
from modelward.formats.golden import KINDS, Case, Golden, Tensor
from modelward.formats.installed import Installed, Slot
from modelward.formats.journal import Failure, Journal, Phase, Pin, Trial
from modelward.formats.names import (
    check_distribution,
    check_name,
    check_path,
    check_tree,
    check_version,
)
from modelward.formats.policy import (
    KNOWN_FORMATS,
    FleetPolicy,
    HealthGate,
    Key,
    MetricGate,
    ModelPolicy,
)
from modelward.formats.release import (
    MAX_LENGTH,
    Blob,
    Patch,
    Release,
    ReleaseFile,
    Requirements,
)
from modelward.formats.report import (
    Alarm,
    Ended,
    Report,
    Running,
    SeenFloors,
    SeenLog,
    check_device,
)
from modelward.formats.seal import Look, Seal
from modelward.formats.strict import MAX_INT
from modelward.formats.tampering import Tampering
from modelward.formats.ticket import Ticket

PRINTABLE = st.characters(exclude_categories=("C", "Zl", "Zp", "Zs"))


def is_good(check, text):
    try:
        check(text)
    except ValueError:
        return False
    return True


def good(pattern, check):
    return st.from_regex(pattern, fullmatch=True).filter(lambda text: is_good(check, text))


texts = st.text(PRINTABLE, max_size=20)
digests = st.binary(max_size=8).map(lambda seed: hashlib.sha256(seed).hexdigest())
lengths = st.integers(0, MAX_LENGTH)
times = st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(microsecond=0))
names = good(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", check_name)
versions = good(r"[0-9A-Za-z]([0-9A-Za-z.+_-]{0,8}[0-9A-Za-z])?", check_version)
distributions = good(r"[0-9A-Za-z]([0-9A-Za-z._-]{0,8}[0-9A-Za-z])?", check_distribution)
paths = st.lists(
    good(r"[a-zA-Z0-9_\u00e9-]{1,6}(\.onnx)?", check_path), min_size=1, max_size=4
).map("/".join)
blobs = st.builds(Blob, digests, lengths)
index_blobs = st.builds(Blob, digests, st.integers(0, chunks.CAP))
tickets = st.builds(Ticket, names, versions, st.integers(1, MAX_INT), texts, texts)


@st.composite
def releases(draw):
    unique = dict.fromkeys(draw(st.lists(paths, min_size=1, max_size=5)))
    assume(is_good(check_tree, unique))
    by_digest = {blob.sha256: blob for blob in draw(st.lists(blobs, min_size=1, max_size=5))}
    known = st.sampled_from(list(by_digest.values()))
    member = st.none() | st.sampled_from(list(unique))
    ticket = draw(tickets)
    return Release(
        model=ticket.model,
        version=ticket.version,
        counter=ticket.counter,
        released=draw(times),
        ticket=ticket,
        files=tuple(
            ReleaseFile(path, draw(known), draw(texts), draw(st.none() | index_blobs))
            for path in unique
        ),
        patches=tuple(
            draw(
                st.lists(
                    st.builds(
                        Patch,
                        digests,
                        st.none() | digests,
                        texts,
                        blobs,
                        st.integers(0, MAX_INT),
                        st.none() | index_blobs,
                    ),
                    max_size=3,
                )
            )
        ),
        requires=Requirements(
            hardware=tuple(draw(st.lists(texts, unique=True, max_size=3))),
            runtime=tuple(sorted(draw(st.dictionaries(distributions, texts, max_size=3)).items())),
            components=tuple(sorted(draw(st.dictionaries(names, versions, max_size=3)).items())),
        ),
        signature=draw(member),
        golden=draw(member),
    )


@st.composite
def chunk_indexes(draw):
    pieces = draw(
        st.lists(st.tuples(st.integers(1, chunks.MAX_CHUNK), st.binary(min_size=32, max_size=32)))
    )
    return ChunkIndex.of(draw(digests), sum(length for length, _ in pieces), pieces)


durations = st.integers(0, MAX_AFTER // timedelta(minutes=1)).map(lambda n: timedelta(minutes=n))
stages = st.builds(
    Stage,
    st.integers(0, MILLION),
    st.dictionaries(texts, st.lists(texts, unique=True, max_size=3).map(tuple), max_size=3),
    durations,
    st.none() | digests,
)
clock_times = st.from_regex(r"([01][0-9]|2[0-3]):[0-5][0-9]", fullmatch=True)
rollouts = st.builds(
    Rollout,
    st.binary(max_size=16),
    times,
    st.booleans(),
    st.booleans(),
    st.lists(stages, max_size=3).map(tuple),
    st.lists(st.builds("{}-{}".format, clock_times, clock_times), unique=True, max_size=3).map(
        tuple
    ),
)
entries = st.builds(
    Entry,
    versions,
    st.none() | versions,
    st.lists(versions, unique=True, max_size=3).map(tuple),
    st.none() | rollouts,
).filter(lambda entry: entry.version not in entry.revoked)
channels = st.builds(Channel, names, st.dictionaries(names, entries, max_size=3))

fleet_policies = st.builds(
    FleetPolicy,
    st.lists(names, unique=True, max_size=3).map(tuple),
    st.lists(st.sampled_from(sorted(KNOWN_FORMATS)), unique=True).map(tuple),
)


def key(public: str) -> Key:
    unnamed = Key("", "ed25519", "ed25519", public)
    return Key(unnamed.fingerprint(), "ed25519", "ed25519", public)


bounds = st.none() | st.floats(allow_nan=False, allow_infinity=False)
gates = st.builds(MetricGate, paths, texts, bounds, bounds).filter(
    lambda gate: gate.least is not None or gate.most is not None
)


@st.composite
def tensors(draw):
    kind = draw(st.sampled_from(sorted(KINDS)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    length = prod(shape) * struct.calcsize("<" + KINDS[kind])
    data = draw(st.binary(min_size=length, max_size=length))
    return Tensor(kind, shape, bytes(byte & 1 for byte in data) if kind == "bool" else data)


tensor_maps = st.dictionaries(texts, tensors(), min_size=1, max_size=2)
goldens = st.builds(
    Golden,
    st.lists(st.builds(Case, paths, tensor_maps, tensor_maps), min_size=1, max_size=2).map(tuple),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)

healths = st.builds(
    HealthGate,
    st.booleans(),
    st.none() | st.floats(0.001, 1e9),
    st.none() | st.integers(1, MAX_INT),
    st.none() | st.floats(0, 1e6),
)


@st.composite
def model_policies(draw):
    owners = [key(public) for public in draw(st.lists(digests, unique=True, max_size=3))]
    return ModelPolicy(
        model=draw(names),
        owners={owner.keyid: owner for owner in owners},
        threshold=draw(st.integers(1, max(1, len(owners)))),
        metrics=tuple(draw(st.lists(gates, max_size=3))),
        health=draw(healths),
    )


role_floors = st.builds(
    RoleFloor, st.integers(1, MAX_INT), digests, st.frozensets(digests, max_size=3)
)
counters = st.dictionaries(texts, st.integers(0, MAX_INT), max_size=3)
resets = st.builds(
    FloorsReset, texts.filter(bool), st.dictionaries(names, st.integers(0, MAX_INT), max_size=3)
)
floors = st.builds(
    Floors,
    st.integers(0, MAX_INT),
    st.none() | role_floors,
    st.none() | role_floors,
    counters,
    counters,
    reset=st.none() | resets,
)
numbers = st.integers(0, MAX_INT)
one_slot = st.builds(Slot, versions, numbers, digests)
slots = st.dictionaries(names, one_slot, max_size=3)
installed = st.builds(Installed, numbers, slots, slots)
trials = st.builds(
    Trial,
    st.sampled_from(Phase),
    numbers,
    st.integers(1, MAX_INT),
    numbers,
    numbers,
    texts,
    numbers,
    numbers,
    st.booleans(),
)
journals = st.builds(
    Journal,
    st.none() | trials,
    slots,
    st.dictionaries(
        digests, st.builds(Failure, names, versions, times, numbers, numbers, texts), max_size=3
    ),
    st.dictionaries(names, st.builds(Pin, one_slot, numbers, texts), max_size=3),
)
metrics = st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=5)
rests = st.builds(
    Rest,
    digests,
    digests,
    st.integers(0, MAX_INT),
    times,
    times,
    texts,
    st.booleans(),
    st.dictionaries(names, versions, max_size=3),
)


counts = st.integers(0, MAX_INT)
ended = st.builds(Ended, times, texts, st.none() | texts, texts)
running = st.one_of(
    st.builds(Running, versions, counts, digests),
    st.builds(Running, versions, counts, digests, versions, digests),
)
reports = st.builds(
    Report,
    device=good(r"[ -~]{1,20}", check_device),
    counter=st.integers(1, MAX_INT),
    previous=st.none() | digests,
    time=times,
    repository=st.none() | digests,
    client=texts,
    channel=names,
    labels=st.dictionaries(texts, texts, max_size=3),
    generation=counts,
    models=st.dictionaries(names, running, max_size=3),
    decisions=st.dictionaries(names, texts, max_size=3),
    floors=st.builds(
        SeenFloors,
        counts,
        st.none() | counts,
        st.none() | counts,
        st.dictionaries(names, counts, max_size=3),
        st.none() | times,
    ),
    ended=st.none() | ended,
    refused=st.none() | ended,
    log=st.none() | st.builds(SeenLog, digests, texts),
    alarms=st.lists(st.builds(Alarm, texts, texts, texts), max_size=3).map(tuple),
    received=st.dictionaries(texts, counts, max_size=3),
)

bundle_paths = st.builds("{}/{}".format, st.sampled_from(FOLDERS), paths)
bundles = st.builds(
    Bundle,
    created=times,
    expires=times,
    timestamp=st.integers(1, MAX_INT),
    channel=names,
    models=st.dictionaries(names, versions, max_size=3).map(
        lambda models: tuple(sorted(models.items()))
    ),
    files=st.dictionaries(bundle_paths, blobs, max_size=3).map(
        lambda files: tuple(BundleFile(path, blob) for path, blob in sorted(files.items()))
    ),
)
looks = st.builds(Look, *[st.integers(-(2**63), 2**63)] * 5)
seals = st.builds(
    Seal,
    digests,
    texts,
    st.dictionaries(texts, looks, max_size=3),
    st.dictionaries(texts, texts, max_size=3),
)
tamperings = st.builds(Tampering, names, versions, digests, texts, times, st.none() | versions)
