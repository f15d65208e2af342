"""Strict JSON, and reading fields by their types."""

import json
import time
from datetime import UTC, datetime

import pytest

from modelward.errors import FormatError
from modelward.formats import strict

CAP = 16 << 20


def load(data: bytes, cap: int = CAP):
    return strict.load("x", data, cap)


def fields(**values) -> strict.Fields:
    return strict.Fields("x", values)


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(FormatError) as caught:
        call(*arguments, **options)
    return caught.value.reason


def test_cap_is_exact():
    assert load(b"[1]", cap=3) == [1]
    assert refusal(load, b"[1]", cap=2) == "x: 3 bytes long, at most 2 are allowed"


def test_depth_is_exact():
    assert load(b"[" * 16 + b"]" * 16)
    assert "nested deeper than 16" in refusal(load, b"[" * 17 + b"]" * 17)


@pytest.mark.parametrize("bracket", [b"[", b'{"a":', b'[{"":'])
def test_nesting_bomb_is_refused_before_it_is_parsed(bracket):
    assert "nested deeper" in refusal(load, bracket * 1_000_000)


@pytest.mark.parametrize("text", [r'"[[[[[[[[[[[[[[[[[["', r'"\"[[[[[[[[[[[[[[[[[["', r'"\\"'])
def test_brackets_in_strings_are_no_nesting(text):
    assert load(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "+1", "1.", ".5", "0x1", "[1,]"],
)
def test_what_is_no_json_number_is_refused(text):
    assert refusal(load, text.encode())


def test_duplicate_key_is_found_in_linear_time():
    keys = ",".join(f'"{number}":0' for number in range(300_000))
    start = time.process_time()
    assert refusal(load, f'{{{keys},"299999":1}}'.encode()) == "x: '299999': appears twice"
    assert time.process_time() - start < 5


def test_repeats_in_a_list_are_found_in_linear_time():
    start = time.process_time()
    assert len(fields(names=[str(n) for n in range(10_000)]).texts("names")) == 10_000
    assert time.process_time() - start < 1


def test_dump_is_canonical():
    assert strict.dump({"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}\n'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict.dump(float("nan"))


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(2026, 11, 22, 10, 0, 0, 999, UTC), "2026-11-22T10:00:00Z"),
        (datetime(7, 1, 2, tzinfo=UTC), "0007-01-02T00:00:00Z"),
        (datetime.fromisoformat("2026-11-22T01:00:00+02:00"), "2026-11-21T23:00:00Z"),
    ],
)
def test_rfc3339(time, text):
    assert strict.rfc3339(time) == text


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        ("text", [None, 1, True, [], {}, "\n", "\x7f", "\u202e", "a" * 1025]),
        ("integer", [None, "1", 1.0, True, [], -1, 2**53]),
        ("number", [None, "1", True, [], 10**400]),
        ("boolean", [None, 0, 1, "true", []]),
        ("sha256", [None, 1, "", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n"]),
        ("time", [None, 1, "", "2026-11-22", "2026-11-22T10:00:00", "2026-13-01T00:00:00Z"]),
        ("time", ["2026-11-22T10:00:60Z", "2026-11-22t10:00:00z", "0000-01-01T00:00:00Z"]),
        ("fields", [None, 1, "", []]),
        ("items", [None, 1, "", {}, [0] * 100_001]),
        ("texts", [None, "", {}, [1], [None], ["a", "a"], ["\n"], ["a" * 1025], ["a"] * 10_001]),
        ("base64", [None, 1, "a", "a===", "YQ", "YQ==\n", "é", "YQ==YQ=="]),
    ],
)
def test_ill_typed_field_is_refused_by_name(read, wrong):
    for value in wrong:
        assert refusal(getattr(fields(field=value), read), "field").startswith("x: field"), value
    assert refusal(getattr(fields(), read), "field") == "x: field: is missing"


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        ("text", "é", "é"),
        ("integer", 2**53 - 1, 2**53 - 1),
        ("number", 1, 1.0),
        ("boolean", False, False),
        ("sha256", "0a" * 32, "0a" * 32),
        ("time", "2026-11-22T10:00:00Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("items", [None], [None]),
        ("texts", ["b", "a"], ("b", "a")),
        ("base64", "AP8=", b"\x00\xff"),
    ],
)
def test_well_typed_field(read, value, expected):
    assert getattr(fields(field=value), read)("field") == expected


def test_errors_show_the_path_of_a_field_and_never_its_control_characters():
    outer = strict.Fields("x", {"a\x1b[2J": {"list": [{}]}})
    inner = next(outer.fields("a\x1b[2J").each("list"))
    assert refusal(inner.text, "name") == r"x: 'a\x1b[2J'.list[0].name: is missing"


def test_an_error_is_one_short_line_whatever_it_quotes():
    reason = refusal(fields(field="\x1b" * 100_000).integer, "field")
    assert reason.isprintable()
    assert len(reason) < 200


def test_critical():
    fields(critical=["a"]).critical(frozenset("a"))
    fields(critical=None).critical()
    fields().critical()
    assert "critical[0]: 'b' is not understood" in refusal(fields(critical=["b"]).critical)
