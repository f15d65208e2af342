"""tlog-proofs, alone and riding in timestamp.json."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.formats.note import SignatureType
from modelward.formats.tlog_proof import TimestampProof, TlogProof
from tests.simulator.log import Log, leaf

LOG = Log()
LOG.append(*map(leaf, range(20)))
RIDING = LOG.timestamp_proof(19)
GOOD = RIDING.proof.to_bytes()
TEXT = GOOD.decode()
HASH = "A" * 43 + "="


def test_proof_is_read_and_written_back():
    assert TlogProof.parse(GOOD) == RIDING.proof
    assert len(RIDING.tail) == 16
    assert TimestampProof.parse(json.loads(json.dumps(RIDING.to_dict()))) == RIDING


def test_extra_data_is_read_and_written_back():
    data = TEXT.replace("index", "extra aGk=\nindex", 1).encode()
    assert TlogProof.parse(data).extra == b"hi"
    assert TlogProof.parse(data).to_bytes() == data


@pytest.mark.parametrize("size", [1, 2])
def test_short_proofs(size):
    proof = LOG.timestamp_proof(0, size).proof
    assert TlogProof.parse(proof.to_bytes()) == proof


def test_unknown_fields_are_ignored():
    assert TimestampProof.parse(RIDING.to_dict() | {"new": [1]}) == RIDING


def test_what_rides_in_timestamp_json_is_small():
    assert len(json.dumps(RIDING.to_dict())) < 2600
    # Log and three witnesses with ML-DSA-44; timestamp.json has at most 16,384 bytes.
    large = Log(
        LOG.entries,
        kind=SignatureType.COSIGNATURE_ML_DSA_44,
        witness_kind=SignatureType.COSIGNATURE_ML_DSA_44,
    ).timestamp_proof(19)
    assert len(json.dumps(large.to_dict())) < 15_000


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("proof@v1", "proof@v2", "begin with"),
        ("index 19\n", "", "index"),
        ("index 19", "index 019", "leading"),
        ("index 19", "index  19", "leading"),
        ("index 19", "index -1", "leading"),
        ("index 19", f"index {2**63}", "leading"),
        ("index 19", "extra aGk\nindex 19", "extra"),
        ("index 19", "extra aGk=\nextra aGk=\nindex 19", "index"),
        ("index 19", "index 19\nextra aGk=", "hash 1"),
        ("index 19", f"index 19\n{'AAAA' * 10}", "32 bytes"),
        ("index 19", "index 19\n" + f"{HASH}\n" * 63 + HASH, "more than 63"),
        ("index 19", "extra " + "AAAA" * 2000 + "\nindex 19", "4096"),
        ("index 19\n", "index 19\n\n", "three or more lines|root|size"),
        ("index 19", "index 19\r", "control"),
        ("\n\nmodels", "\nmodels", "hash"),
    ],
)
def test_proof_is_refused(old, new, says):
    assert old in TEXT
    with pytest.raises(FormatError, match=says):
        TlogProof.parse(TEXT.replace(old, new, 1).encode())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"proof": None}, "proof"),
        ({"proof": ["x"]}, "proof"),
        ({"proof": "\ud800"}, "Unicode"),
        ({"proof": ""}, "empty line"),
        ({"tail": None}, "tail"),
        ({"tail": [HASH] * 17}, "at most 16"),
        ({"tail": [HASH, 1]}, "strings"),
        ({"tail": [HASH[:-1]]}, "base64"),
        ({"tail": ["AAAA"]}, "32 bytes"),
        ({"proof": LOG.timestamp_proof(0, 1).proof.to_bytes().decode()}, "longer than the log"),
    ],
)
def test_riding_proof_is_refused(change, says):
    with pytest.raises(FormatError, match=says):
        TimestampProof.parse(RIDING.to_dict() | change)


@pytest.mark.parametrize("value", [None, [], "x", {}, {"proof": TEXT}])
def test_other_things_are_refused(value):
    with pytest.raises(FormatError, match="x-tlog"):
        TimestampProof.parse(value)


@pytest.mark.fuzz
@given(st.binary(max_size=300))
def test_any_bytes(data):
    with contextlib.suppress(FormatError):
        TlogProof.parse(b"c2sp.org/tlog-proof@v1\n" + data)


@pytest.mark.fuzz
@given(st.data())
def test_changed_proof_is_refused_or_read_as_it_stands(data):
    changed = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    with contextlib.suppress(FormatError):
        assert TlogProof.parse(bytes(changed)).to_bytes() == bytes(changed)
