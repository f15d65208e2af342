"""Signed notes, verifier keys and checkpoints, with the shared tlog-tiles vectors."""

import contextlib
import os
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.formats import note as notes
from modelward.formats.checkpoint import Checkpoint, SignedCheckpoint, parse_decimal
from modelward.formats.note import Note, SignatureLine, SignatureType, VerifierKey
from modelward.trust.cosignature import verify_log_signature
from tests.simulator.log import Log, key

SHARED = Path(
    os.environ.get("MODELWARD_VECTORS", Path(__file__).parents[3] / "shared" / "vectors")
) / ("tlog-tiles")
# The example of c2sp.org/tlog-tiles' test log: its public key is published with the vectors.
TESTDATA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
GOOD = Log().signed(0).to_bytes()
VKEYS = [str(key("a.example/x", kind)[0]) for kind in SignatureType]


def line(name: str = "a.example", raw: bytes = b"keyidsignature") -> str:
    return f"\u2014 {name} {b64encode(raw).decode()}\n"


# --- vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(SHARED.glob("checkpoint*")), ids=lambda path: path.name)
def test_shared_checkpoint(path):
    data = path.read_bytes()
    signed = SignedCheckpoint.parse(data)
    assert signed.to_bytes() == data
    assert str(signed.checkpoint) == signed.note.text
    verify_log_signature(signed, VerifierKey.parse(TESTDATA_KEY))


@pytest.mark.parametrize(
    "text", [TESTDATA_KEY, *VKEYS], ids=["testdata", *SignatureType.__members__]
)
def test_vkey_is_read_and_written_back(text):
    assert str(VerifierKey.parse(text)) == text


# --- notes ----------------------------------------------------------------------------------------


def test_text_may_have_empty_lines():
    data = f"one\n\ntwo\n\n{line()}".encode()
    note = Note.parse(data)
    assert note.text == "one\n\ntwo\n"
    assert note.to_bytes() == data


def test_unknown_signatures_are_kept_and_found_by_nobody():
    known, _ = key("a.example", SignatureType.ED25519)
    note = Note.parse(f"text\n\n{line()}{line('a.example', known.key_id + b's')}".encode())
    assert len(note.signatures) == 2
    assert note.by(known) == (b"s",)
    more = note.signed([SignatureLine.by(known, b"t")])
    assert Note.parse(more.to_bytes()).by(known) == (b"s", b"t")


def test_at_least_16_post_quantum_signatures():
    assert len(Note.parse(("text\n\n" + line(raw=b"x" * 5000) * 16).encode()).signatures) == 16


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "must be text"),
        (b"text\n", "must be text"),
        (b"text\n\n", "newline"),
        (f"\n\n{line()}".encode(), "must be text"),
        (f"text\n\n{line()}"[:-1].encode(), "newline"),
        (f"text\n\n{line()}junk\n".encode(), "signature 2"),
        (f"text\n\n- a.example {b64encode(b'12345').decode()}\n".encode(), "em dash"),
        ("text\n\n\u2014 a.example\n".encode(), "em dash"),
        (f"text\n\n{line(raw=b'1234')}".encode(), "has no signature"),
        (f"text\n\n{line('a+b')}".encode(), "plus"),
        (("text\n\n" + line("a\u00a0b")).encode(), "spaces"),
        (("text\n\n" + line("a\u2028b")).encode(), "spaces"),
        ("text\n\n\u2014  a.example MTIzNDU=\n".encode(), "spaces"),
        ("text\n\n\u2014 a.example  MTIzNDU=\n".encode(), "base64"),
        ("text\n\n\u2014 a.example MTIzNDU\n".encode(), "base64"),
        ("text\n\n\u2014 a.example MTIzNDV=\n".encode(), "base64"),
        ("text\n\n\u2014 a.example MTIz_DU=\n".encode(), "base64"),
        ("text\n\n\u2014 a.example MTIzNDU=\r\n".encode(), "control"),
        (f"te\txt\n\n{line()}".encode(), "control"),
        (f"te\0xt\n\n{line()}".encode(), "control"),
        (b"t\xff\n\n" + line().encode(), "UTF-8"),
        (f"text\n\n{line() * 65}".encode(), "more than 64"),
        (f"text\n\n{line('a' * 256)}".encode(), "255"),
        (b"x" * (notes.CAP + 1), "longer than"),
    ],
)
def test_note_is_refused(data, says):
    with pytest.raises(FormatError, match=says):
        Note.parse(data)


# --- verifier keys --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be"),
        ("a.example", "must be"),
        (TESTDATA_KEY.replace("33d7b496", "33D7B496"), "must be"),
        (TESTDATA_KEY.replace("33d7b496", "33d7b497"), "33d7b496"),
        (TESTDATA_KEY.replace("testdata", "testdatb"), "the key id must be"),
        (TESTDATA_KEY.replace("+AeH", "+AuH"), "type"),
        (TESTDATA_KEY[:-4], "base64|32 bytes"),
        (TESTDATA_KEY + "AAAA", "32 bytes"),
        (TESTDATA_KEY + "\n", "base64"),
        ("a b+33d7b496+AA==", "spaces"),
        ("+33d7b496+AA==", "spaces"),
        ("a+33d7b496+", "type"),
        ("a\ud800+33d7b496+AA==", "Unicode"),
        ("a" * 5000, "longer"),
    ],
)
def test_vkey_is_refused(text, says):
    with pytest.raises(FormatError, match=says):
        VerifierKey.parse(text)


# --- checkpoints ----------------------------------------------------------------------------------


def test_extension_lines_are_kept():
    text = str(Checkpoint("a.example", 7, bytes(32), ("one", "two")))
    assert Checkpoint.parse(text).extensions == ("one", "two")
    assert str(Checkpoint.parse(text)) == text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("0\n", "00\n"), "size"),
        (("0\n", "+0\n"), "size"),
        (("0\n", "-1\n"), "size"),
        (("0\n", "\u0661\n"), "size"),
        (("0\n", f"{2**63}\n"), "size"),
        (("0\n", "\n"), "none of them empty"),
        (("models.example/log\n", "\n"), "none of them empty"),
        (("models.example/log\n", "x" * 256 + "\n"), "255"),
        (("FU=\n", "FU=\n\n"), "none of them empty"),
        (("FU=\n", "FV=\n"), "root"),
        (("FU=\n", "\n"), "root"),
        (("47DE", ""), "32 bytes"),
        (("FU=\n", "FU=\n" + "x\n" * 17), "16 extension"),
    ],
)
def test_checkpoint_is_refused(change, says):
    text = Note.parse(GOOD).text
    assert change[0] in text
    with pytest.raises(FormatError, match=says):
        Checkpoint.parse(text.replace(change[0], change[1], 1))


def test_largest_size():
    assert parse_decimal(str(2**63 - 1), "x", "y") == 2**63 - 1


# --- whatever comes -------------------------------------------------------------------------------


@pytest.mark.fuzz
@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_bytes(data):
    for parse in (Note.parse, SignedCheckpoint.parse):
        with contextlib.suppress(FormatError):
            assert parse(data).to_bytes() == data


@pytest.mark.fuzz
@given(st.data())
def test_changed_note_is_refused_or_read_as_it_stands(data):
    changed = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    with contextlib.suppress(FormatError):
        assert SignedCheckpoint.parse(bytes(changed)).to_bytes() == bytes(changed)


@pytest.mark.fuzz
@given(st.text(max_size=80) | st.sampled_from(VKEYS), st.integers(0, 80), st.text(max_size=2))
def test_any_vkey(text, at, inserted):
    changed = text[:at] + inserted + text[at + 1 :]
    with contextlib.suppress(FormatError):
        assert str(VerifierKey.parse(changed)) == changed
