"""Errors are for people: gate, reason, what to do next; and safe to print."""

import pickle

import pytest

from modelward.errors import (
    ExitCode,
    FormatError,
    Gate,
    ModelwardError,
    NotFound,
    Refused,
    RolledBack,
    TooLong,
    Unavailable,
    UsageError,
)


def test_gates_are_numbered_in_order():
    assert [gate.number for gate in Gate] == list(range(1, 14))
    assert str(Gate.SUPPLY_CHAIN) == "gate 7 (supply chain)"


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (ModelwardError("x"), ExitCode.ERROR, "error"),
        (UsageError("x"), ExitCode.USAGE, "usage"),
        (Refused(Gate.LOG, "x"), ExitCode.REFUSED, "refused"),
        (FormatError("x", "", "x"), ExitCode.REFUSED, "refused"),
        (RolledBack("x"), ExitCode.ROLLED_BACK, "rolled back"),
        (Unavailable("x"), ExitCode.UNAVAILABLE, "unavailable"),
        (NotFound("x"), ExitCode.UNAVAILABLE, "unavailable"),
        (TooLong("x"), ExitCode.UNAVAILABLE, "unavailable"),
    ],
)
def test_exit_codes(error, code, outcome):
    assert (error.exit_code, error.outcome) == (code, outcome)
    assert error.to_dict()["exit_code"] == code


@pytest.mark.parametrize(
    "error",
    [
        UsageError("why", "what to do"),
        Refused(Gate.LOG, "why", "what to do"),
        FormatError("release.json", "files[3].path", "why"),
        RolledBack("why", "what to do"),
        Unavailable("why", "what to do", Gate.FETCH),
        NotFound("why", 404),
    ],
)
def test_from_one_process_to_another(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_text():
    error = Refused(Gate.POLICY, "accuracy is 0.5", "train again")
    assert str(error) == "gate 8 (policy): accuracy is 0.5\n  What to do: train again"
    assert str(ModelwardError("x")) == "x"


def test_a_format_error_names_document_and_field():
    error = FormatError("release.json", "files[3].path", "is absolute")
    assert error.reason == "release.json: files[3].path: is absolute"
    assert error.to_dict()["field"] == "files[3].path"
    assert error.to_dict()["gate"] is None
    assert FormatError("release.json", "", "is empty").reason == "release.json: is empty"


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202e", "\udc80", "\x9b", "\x00"])
def test_what_a_terminal_would_obey_is_escaped(text):
    error = Unavailable(f"the server says {text}", f"do {text}")
    assert error.reason.isprintable()
    assert error.advice.isprintable()
    assert str(error).encode()


def test_other_languages_are_left_alone():
    assert Unavailable("Gerät nicht erreichbar: 再試行").reason.endswith("再試行")
