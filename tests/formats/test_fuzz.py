"""Whatever a parser is given, it returns a value or raises FormatError, and nothing else."""

import contextlib
import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.formats import strict
from tests.formats.test_vectors import PARSERS, VECTORS

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "..", "/", "\x00", "\ud800", "é", 2**63, -1, "9999-12-31T23:59:59Z"])
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
NOT_ONE_JSON = {"evidence", "chunk-index"}  # of evidence, each line is an envelope
EACH_PARSER = pytest.mark.parametrize("name", sorted(PARSERS))


def good(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((VECTORS / name).glob("good-*"))]


def parse(name: str, data: bytes) -> None:
    refusal = None
    try:
        PARSERS[name](data)
    except FormatError as error:
        refusal = error
    assert refusal is None or (refusal.reason.isprintable() and len(refusal.reason) < 5000)


def places(value, path=()):
    """Yield the path of every value inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


@EACH_PARSER
@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
def test_any_nesting(name, bracket):
    parse(name, bracket * 100_000)


@pytest.mark.fuzz
@EACH_PARSER
@given(data=st.binary(max_size=200))
def test_any_bytes(name, data):
    parse(name, data)


@pytest.mark.fuzz
@EACH_PARSER
@given(value=JUNK)
def test_any_json(name, value):
    parse(name, json.dumps(value).encode())


@pytest.mark.fuzz
@EACH_PARSER
@given(data=st.data())
def test_flipped_bits(name, data):
    document = bytearray(data.draw(st.sampled_from([text for text in good(name) if text])))
    for place in data.draw(st.lists(st.integers(0, 8 * len(document) - 1), max_size=3)):
        document[place // 8] ^= 1 << place % 8
    parse(name, bytes(document))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", sorted(set(PARSERS) - NOT_ONE_JSON))
@given(data=st.data())
def test_swapped_values(name, data):
    document = copy.deepcopy(json.loads(data.draw(st.sampled_from(good(name)))))
    for _ in range(data.draw(st.integers(1, 3))):
        found = list(places(document))
        if not found:
            break
        *above, last = data.draw(st.sampled_from(found))
        inner = document
        for key in above:
            inner = inner[key]
        if isinstance(inner, dict) and data.draw(st.booleans()):
            inner[data.draw(st.text(max_size=8))] = inner.pop(last)
        else:
            inner[last] = data.draw(JUNK)
    parse(name, json.dumps(document).encode())


@pytest.mark.fuzz
@given(value=JUNK)
def test_strict_agrees_with_json_or_refuses(value):
    text = json.dumps(value).encode()
    with contextlib.suppress(FormatError):
        assert strict.load("x", text, cap=1 << 20) == json.loads(text)
