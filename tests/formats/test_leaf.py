"""The leaf's text, to the byte."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.formats.leaf import Leaf, RoleDigest

GOOD = (
    "modelward-log/v1\n"
    "models.example\n"
    f"root 3 {'a' * 64}\n"
    f"snapshot 17 {'0' * 64}\n"
)  # fmt: skip
LEAF = Leaf("models.example", RoleDigest(3, "a" * 64), RoleDigest(17, "0" * 64))


def test_leaf_is_read_and_written_back():
    assert LEAF.to_bytes() == GOOD.encode()
    assert Leaf.parse(GOOD.encode()) == LEAF


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("v1", "v2"),
        ("modelward-log", " modelward-log"),
        ("models.example", ""),
        ("models.example", "m" * 256),
        ("models.example", "a\u200bb"),
        ("root", "targets"),
        ("root", "snapshot"),
        ("root 3", "root 03"),
        ("root 3", "root 0"),
        ("root 3", "root  3"),
        ("root 3", "root \u0663"),
        ("a" * 64, "A" * 64),
        ("a" * 64, "a" * 63),
        ("snapshot 17", f"snapshot {'9' * 17}"),
        ("\nsnapshot", "\n\nsnapshot"),
        ("0\n", "0"),
        ("0\n", "0\n\n"),
        ("0\n", "0\r\n"),
        ("0\n", "0\nmore\n"),
        ("0\n", "0\n" * 1000),
    ],
)
def test_leaf_is_refused(old, new):
    assert old in GOOD
    head, _, end = GOOD.rpartition(old) if old == "0\n" else GOOD.partition(old)
    with pytest.raises(FormatError, match="log leaf"):
        Leaf.parse((head + new + end).encode())


def test_repository_id_cannot_forge_lines():
    with pytest.raises(FormatError, match="repository"):
        Leaf("x\nroot", LEAF.root, LEAF.snapshot).to_bytes()


@pytest.mark.fuzz
@given(st.integers(0, len(GOOD)), st.integers(0, 3), st.text(max_size=3))
def test_changed_leaf_is_refused_or_read_as_it_stands(at, cut, inserted):
    changed = (GOOD[:at] + inserted + GOOD[at + cut :]).encode()
    with contextlib.suppress(FormatError):
        assert Leaf.parse(changed).to_bytes() == changed
