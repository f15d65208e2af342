import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.difference import changes, document_changes, shown, signature_changes
from modelward_repo.roles.holders import Authorities, is_signed, signed_name
from modelward_repo.roles.keys import from_sslib
from modelward_repo.roles.policy import RoleTrust

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DAY = timedelta(days=1)
SIGNERS = {name: CryptoSigner.generate_ed25519() for name in ("alice", "bob", "carol")}
KEYS = {name: from_sslib(signer.public_key) for name, signer in SIGNERS.items()}


def root(threshold: int = 2, holders: tuple[str, ...] = ("alice", "bob")) -> Metadata[Root]:
    trust = RoleTrust(holders, threshold, 365 * DAY)
    keys = [KEYS[name] for name in holders]
    roles = [(name, trust, keys) for name in ("root", "targets", "snapshot", "timestamp")]
    made = tuf.new_root(roles)
    tuf.sign(made, 1, NOW + 365 * DAY, [SIGNERS[name] for name in holders])
    return made


def texts(old: Any, new: Any) -> list[str]:
    return [str(change) for change in changes(old, new)]


def test_nothing() -> None:
    assert texts(root().signed, root().signed) == []


def test_versions_and_expiries() -> None:
    old, new = root().signed, root().signed
    new.version, new.expires = 2, old.expires + 30 * DAY
    assert texts(old, new) == [
        "version: 1 -> 2",
        "expires: 2027-11-22T00:00:00Z -> 2027-12-22T00:00:00Z (30 days later)",
    ]
    assert all(change.routine for change in changes(old, new))
    assert texts(new, old) == [
        "version: 2 -> 1 (BACKWARDS)",
        "expires: 2027-12-22T00:00:00Z -> 2027-11-22T00:00:00Z (30 days EARLIER)",
    ]
    assert not any(change.routine for change in changes(new, old))


def test_root() -> None:
    old, new = root().signed, root(1, ("alice", "carol")).signed
    new.roles["snapshot"] = copy.deepcopy(old.roles["snapshot"])
    new.roles["snapshot"].unrecognized_fields["x-expires"] = 3600
    new.unrecognized_fields["x-log"] = {"url": "https://log.example"}
    new.consistent_snapshot = False
    bob, carol = KEYS["bob"].keyid[:8], KEYS["carol"].keyid[:8]
    found = texts(old, new)
    assert found[:4] == [
        "consistent_snapshot: True -> False",
        f"role root: bob ({bob}) may no longer sign",
        f"role root: carol ({carol}) may sign",
        "role root: 2 of 2 must sign -> 1 of 2",
    ]
    assert "role snapshot: signed for 365 days -> 60 minutes at a time" in found
    assert found[-1] == 'x-log: added: {"url":"https://log.example"}'


def test_a_renamed_holder() -> None:
    old, new = root().signed, root().signed
    new.keys[KEYS["bob"].keyid].unrecognized_fields["x-holder"] = "mallory"
    assert texts(old, new) == [f"key {KEYS['bob'].keyid[:8]}, x-holder: bob -> mallory"]
    new = root().signed
    new.keys[KEYS["bob"].keyid].keyval = {"public": "0" * 64}
    assert texts(old, new) == [f"key {KEYS['bob'].keyid[:8]}: ANOTHER key under the same key id"]


def test_targets() -> None:
    old, new = Targets(expires=NOW), Targets(expires=NOW)
    old.targets["a"] = TargetFile.from_data("a", b"1", ["sha256"])
    old.targets["b"] = TargetFile.from_data("b", b"1", ["sha256"])
    new.targets["b"] = TargetFile.from_data("b", b"22", ["sha512"])
    new.targets["c\n"] = TargetFile.from_data("c\n", b"333", ["sha256"])
    trust = RoleTrust(("alice",), 1, 30 * DAY)
    tuf.delegate(new, "model-x", trust, [KEYS["alice"]], ["models/x/*/*"])
    found = texts(old, new)
    assert found[0].startswith("target a: removed (1 bytes, sha256 6b86b273ff34)")
    assert found[1].endswith("-> 2 bytes, no sha256)")
    assert found[2].startswith(r"target 'c\n': added (3 bytes")
    who = f"alice ({KEYS['alice'].keyid[:8]})"
    assert found[3:] == [
        f"role model-x: added: 1 of 1 must sign ({who})",
        "role model-x: may vouch for models/x/*/*",
    ]
    assert "role model-x: removed: nobody may sign it any longer" in texts(new, old)
    other = copy.deepcopy(new)
    assert other.delegations
    assert other.delegations.roles
    role = other.delegations.roles["model-x"]
    role.paths, role.terminating = ["models/y/*/*"], False
    role.unrecognized_fields["x-odd"] = 1
    assert texts(new, other) == [
        "role model-x: may no longer vouch for models/x/*/*",
        "role model-x: may vouch for models/y/*/*",
        "role model-x: terminating: True -> False",
        "role model-x, x-odd: added: 1",
    ]


def test_snapshot_and_timestamp() -> None:
    old, new = Snapshot(expires=NOW), Snapshot(expires=NOW)
    old.meta = {"a.json": MetaFile(1), "b.json": MetaFile(5), "c.json": MetaFile(1, 10)}
    new.meta = {"b.json": MetaFile(4), "c.json": MetaFile(1, 11), "d.json": MetaFile(1)}
    assert texts(old, new) == [
        "a: no longer listed (was version 1)",
        "b: 5 -> 4 (BACKWARDS)",
        "c: other bytes under the SAME version",
        "d: listed now, version 1",
    ]
    one, other = Timestamp(expires=NOW), Timestamp(expires=NOW)
    other.snapshot_meta = MetaFile(7)
    assert texts(one, other) == ["snapshot: 1 -> 7"]
    with pytest.raises(TypeError):
        texts(one, new)


def test_signatures() -> None:
    old, new = root(), root()
    alice, bob = KEYS["alice"].keyid, KEYS["bob"].keyid
    del old.signatures[alice]
    new.signatures[bob].signature = "00" * 64
    names = Authorities([old.signed])
    found = [str(it) for it in signature_changes("root", old, new, names)]
    assert sorted(found) == sorted(
        [
            f"signatures: alice ({alice[:8]}): signed only in the second",
            f"signatures: bob ({bob[:8]}): signed only in the first",
        ]
    )
    unknown = [str(it) for it in signature_changes(None, old, new, Authorities())]
    assert unknown == [f"signatures: key {alice[:8]}: signature (not verified) only in the second"]


def test_holders_names() -> None:
    key = SIGNERS["alice"].public_key
    assert signed_name(None) is None
    for odd in (1, "", "two\nlines", "x" * 65, None):
        key.unrecognized_fields["x-holder"] = odd
        assert signed_name(key) is None
    key.unrecognized_fields.pop("x-holder")
    unsigned = root()
    unsigned.signatures.clear()
    assert not is_signed(unsigned, key)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": True}, ["a: 1 -> true"]),
        ({"a": None}, {}, ["a: removed, was null"]),
        ({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}}, ["a.b: 1 -> 2", "a.c: added: 3"]),
        ({"a": ["x", "y"]}, {"a": ["y", "z"]}, ["a: without x", "a: with z"]),
        ({"a": ["x", "y"]}, {"a": ["y", "x"]}, ["a: in another order"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a[1]: removed, was 2"]),
        ({"a": []}, {"a": [[1]]}, ["a[0]: added: [1]"]),
        (
            {"a": [{"name": "x", "n": 1}]},
            {"a": [{"name": "y", "n": 1}, {"name": "x", "n": 2}]},
            ["a.x.n: 1 -> 2", 'a.y: added: {"n":1,"name":"y"}'],
        ),
        ({"a": "x"}, {"a": "\x1b[31m"}, [r"a: x -> '\x1b[31m'"]),
        (1, 2, ["1 -> 2"]),
    ],
)
def test_documents(old: Any, new: Any, found: list[str]) -> None:
    assert [str(change) for change in document_changes(old, new)] == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@given(JSON, JSON)
def test_documents_differ_if_and_only_if_something_is_said(old: Any, new: Any) -> None:
    same = repr(old) == repr(new) or (old == new and "True" not in repr((old, new)))
    if repr(old) == repr(new):
        assert not list(document_changes(old, new))
    if not same and old != new:
        assert list(document_changes(old, new))


def test_long_values_are_cut() -> None:
    assert len(shown("x" * 1000)) <= 100
