"""The log policy in root.json: who counts, and how many of them."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.formats.log_policy import Group, LogPolicy
from modelward.formats.note import SignatureType, VerifierKey
from tests.simulator.log import ORIGIN, key

LOG = key(ORIGIN, SignatureType.ED25519)[0]
KEYS = {name: key(name, SignatureType.COSIGNATURE_ED25519)[0] for name in "abcdef"}
GOOD: dict[str, Any] = {
    "vkey": str(LOG),
    "witnesses": {name: str(vkey) for name, vkey in KEYS.items()},
    "quorum": {
        "threshold": 2,
        "members": [
            {"threshold": 2, "members": ["a", "b", "c"]},
            {"threshold": 1, "members": ["d", "e"]},
        ],
    },
}

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("a"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


def group(depth: int) -> Any:
    return {"threshold": 1, "members": [group(depth - 1)]} if depth else "a"


def test_policy_is_read_and_written_back():
    policy = LogPolicy.parse(GOOD)
    assert policy.to_dict() == GOOD
    assert LogPolicy.parse(json.loads(json.dumps(policy.to_dict()))) == policy
    assert policy.origin == ORIGIN
    assert str(policy.quorum) == "2 of {2 of {a, b, c}, 1 of {d, e}}"


@pytest.mark.parametrize(
    ("cosigned", "enough"),
    [
        ("", False),
        ("abc", False),
        ("abd", True),
        ("bce", True),
        ("ade", False),
        ("abf", False),
        ("abcdef", True),
        ("xy", False),
    ],
)
def test_groups_of_groups(cosigned, enough):
    assert LogPolicy.parse(GOOD).is_quorum(set(cosigned)) == enough


def test_one_witness_or_none():
    one = LogPolicy.parse(GOOD | {"quorum": "b"})
    assert one.quorum == Group(1, ("b",))
    assert one.is_quorum({"b"})
    assert not one.is_quorum({"a"})
    nobody = LogPolicy.parse({"vkey": str(LOG), "witnesses": {}, "quorum": "none"})
    assert nobody.is_quorum(())
    assert LogPolicy.parse(nobody.to_dict()) == nobody


def test_post_quantum_keys():
    kind = SignatureType.COSIGNATURE_ML_DSA_44
    value = {
        "vkey": str(key(ORIGIN, kind)[0]),
        "witnesses": {"w": str(key("w", kind)[0])},
        "quorum": "w",
    }
    assert LogPolicy.parse(value).to_dict()["witnesses"] == value["witnesses"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vkey": 1}, "vkey"),
        ({"vkey": "x"}, "vkey"),
        ({"vkey": str(KEYS["a"])}, "type 0x04"),
        ({"witnesses": []}, "object"),
        ({"witnesses": {"a": str(LOG)}}, "type 0x01"),
        ({"witnesses": {"a": str(KEYS["a"]), "b": str(KEYS["a"])}}, "same key as a"),
        (
            {"witnesses": {"a": str(VerifierKey("x", KEYS["a"].type, LOG.public_key))}},
            "same key as the log",
        ),
        ({"witnesses": {"none": str(KEYS["a"])}}, "not a name"),
        ({"witnesses": {"": str(KEYS["a"])}}, "not a name"),
        ({"witnesses": {str(n): "" for n in range(33)}}, "more than 32"),
        ({"quorum": None}, "quorum"),
        ({"quorum": 2}, "quorum"),
        ({"quorum": "x"}, "not a witness"),
        ({"quorum": {"threshold": 1, "members": ["x"]}}, "not a witness"),
        ({"quorum": {"threshold": 1, "members": ["none"]}}, "not a witness"),
        ({"quorum": {"threshold": 1, "members": []}}, "empty"),
        ({"quorum": {"threshold": 0, "members": ["a"]}}, "threshold"),
        ({"quorum": {"threshold": 2, "members": ["a"]}}, "threshold"),
        ({"quorum": {"threshold": True, "members": ["a"]}}, "threshold"),
        ({"quorum": {"members": ["a"]}}, "threshold"),
        ({"quorum": {"threshold": 1, "members": ["a", "a"]}}, "twice"),
        ({"quorum": {"threshold": 1, "members": ["a", group(1)]}}, "twice"),
        ({"quorum": {"threshold": 1, "members": ["a", 1]}}, "object"),
        ({"quorum": {"threshold": 1, "members": ["a"] * 33}}, "at most 32"),
        ({"quorum": group(5)}, "deeper"),
        ({"quorum": group(200)}, "deeper"),
    ],
)
def test_policy_is_refused(change, says):
    with pytest.raises(FormatError, match=says):
        LogPolicy.parse(GOOD | change)


def test_four_groups_deep():
    assert LogPolicy.parse(GOOD | {"quorum": group(4)}).is_quorum({"a"})


@pytest.mark.fuzz
@given(st.sampled_from([*GOOD, "witnesses.a", "quorum.members"]), JUNK)
def test_any_value(place, junk):
    outer, _, inner = place.partition(".")
    value = GOOD | {outer: GOOD[outer] | {inner: junk} if inner else junk}
    with contextlib.suppress(FormatError):
        policy = LogPolicy.parse(value)
        assert LogPolicy.parse(policy.to_dict()) == policy


@pytest.mark.fuzz
@given(JUNK)
def test_anything(value):
    with pytest.raises(FormatError):
        LogPolicy.parse(value)
