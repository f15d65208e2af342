"""Signed notes and the keys that verify them (c2sp.org/signed-note).

A note is text, a blank line, and one line a signature. Parsing keeps every signature, those of
unknown keys too: which of them count is decided in `trust.cosignature`.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum

from modelward.errors import FormatError

DOCUMENT = "signed note"
VKEY_DOCUMENT = "verifier key"
CAP = 128 << 10  # 16 post-quantum signatures of 5 kB, which signed-note asks for, and some more
MAX_SIGNATURES = 64  # signed-note: at least 16
MAX_NAME = 255  # bytes: what an ML-DSA-44 cosigned message has room for
VKEY_CAP = 4096  # an ML-DSA-44 key is 1,312 bytes
_DASH = "\u2014 "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_KEY_ID = re.compile(r"[0-9a-f]{8}")


class SignatureType(IntEnum):
    """How a key signs: the byte in front of a public key that signed-note assigns."""

    ED25519 = 0x01  # over the note's text
    COSIGNATURE_ED25519 = 0x04  # with a time (c2sp.org/tlog-cosignature, cosignature/v1)
    COSIGNATURE_ML_DSA_44 = 0x06  # with a time (c2sp.org/tlog-cosignature, subtree/v1)


KEY_LENGTHS = {  # bytes of a public key
    SignatureType.ED25519: 32,
    SignatureType.COSIGNATURE_ED25519: 32,
    SignatureType.COSIGNATURE_ML_DSA_44: 1312,
}


@dataclass(frozen=True)
class VerifierKey:
    """A public key under a name, as notes refer to it.

    Attributes:
        name: The key's name; a log's is its origin.
        type: How it signs.
        public_key: The raw public key.
    """

    name: str
    type: SignatureType
    public_key: bytes

    @classmethod
    def parse(cls, text: str, document: str = VKEY_DOCUMENT, field: str = "") -> "VerifierKey":
        """Parse a verifier key, or vkey: ``<name>+<key id in hex>+<base64 of type and key>``.

        Args:
            text: The key.
            document: What to call its document in errors.
            field: Where it stands there.

        Raises:
            FormatError: Ill-formed, of a type not known here, or the key id is not its own.
        """
        if len(text) > VKEY_CAP:
            raise FormatError(document, field, f"is longer than {VKEY_CAP} characters")
        parts = text.split("+", 2)
        if len(parts) != 3 or not _KEY_ID.fullmatch(parts[1]):  # noqa: PLR2004
            raise FormatError(document, field, "must be <name>+<8 hex digits>+<base64>")
        check_name(parts[0], document, field)
        material = decode_base64(parts[2], document, field)
        try:
            kind = SignatureType(material[0] if material else 0)
        except ValueError as error:
            raise FormatError(document, field, "is of an unknown signature type") from error
        key = cls(parts[0], kind, material[1:])
        if len(key.public_key) != KEY_LENGTHS[kind]:
            raise FormatError(document, field, f"must have a key of {KEY_LENGTHS[kind]} bytes")
        if key.key_id.hex() != parts[1]:
            raise FormatError(document, field, f"the key id must be {key.key_id.hex()}")
        return key

    @property
    def key_id(self) -> bytes:
        """The 4 bytes by which a signature line names this key: a hint, not a proof."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._material()).digest()[:4]

    def __str__(self) -> str:
        """Return the vkey."""
        material = base64.b64encode(self._material()).decode()
        return f"{self.name}+{self.key_id.hex()}+{material}"

    def _material(self) -> bytes:
        return bytes([self.type]) + self.public_key


@dataclass(frozen=True)
class SignatureLine:
    """One signature of a note, not verified.

    Attributes:
        name: Name of the key.
        key_id: The 4 bytes that go with it.
        signature: What the key made; its form depends on the key's type.
    """

    name: str
    key_id: bytes
    signature: bytes

    @classmethod
    def parse(cls, line: str, field: str = "signature line") -> "SignatureLine":
        """Parse a line, without its newline.

        Raises:
            FormatError: Ill-formed.
        """
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space:
            raise FormatError(DOCUMENT, field, "must be an em dash, a name and base64")
        check_name(name, DOCUMENT, field)
        raw = decode_base64(encoded, DOCUMENT, field)
        if len(raw) <= 4:  # noqa: PLR2004 - a key id and nothing else
            raise FormatError(DOCUMENT, field, "has no signature")
        return cls(name, raw[:4], raw[4:])

    @classmethod
    def by(cls, key: VerifierKey, signature: bytes) -> "SignatureLine":
        """Return the line that carries what a key made."""
        return cls(key.name, key.key_id, signature)

    def __str__(self) -> str:
        """Return the line, with its newline."""
        encoded = base64.b64encode(self.key_id + self.signature).decode()
        return f"{_DASH}{self.name} {encoded}\n"


@dataclass(frozen=True)
class Note:
    """A text and its signatures, none of them verified.

    Attributes:
        text: What is signed; ends in a newline.
        signatures: The signatures, in order.
    """

    text: str
    signatures: tuple[SignatureLine, ...]

    @classmethod
    def parse(cls, data: bytes) -> "Note":
        """Parse a signed note.

        Raises:
            FormatError: Too long, not UTF-8, a control character, no signature, too many of
                them, or a line after the text that is not a signature.
        """
        text = decode_text(data, DOCUMENT, CAP)
        body, blank, lines = text.rpartition("\n\n")
        if not blank or not body:
            raise FormatError(DOCUMENT, "", "must be text, a blank line and signatures")
        return cls(body + "\n", parse_signatures(lines))

    def to_bytes(self) -> bytes:
        """Return the note."""
        return (self.text + "\n" + "".join(map(str, self.signatures))).encode()

    def by(self, key: VerifierKey) -> tuple[bytes, ...]:
        """Return the signatures that claim to be by a key: its name and its key id."""
        key_id = key.key_id
        return tuple(
            line.signature
            for line in self.signatures
            if line.key_id == key_id and line.name == key.name
        )

    def signed(self, lines: Iterable[SignatureLine]) -> "Note":
        """Return the note with more signatures."""
        return replace(self, signatures=(*self.signatures, *lines))


def parse_signatures(text: str) -> tuple[SignatureLine, ...]:
    """Parse signature lines that stand alone, such as a witness's answer.

    Raises:
        FormatError: None, too many, or one is ill-formed.
    """
    if not text.endswith("\n"):
        raise FormatError(DOCUMENT, "", "must end in a signature and a newline")
    lines = text[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise FormatError(DOCUMENT, "", f"has more than {MAX_SIGNATURES} signatures")
    return tuple(
        SignatureLine.parse(line, f"signature {number}") for number, line in enumerate(lines, 1)
    )


def check_name(name: str, document: str, field: str) -> str:
    """Return a key's name: not empty, at most 255 bytes, no space and no plus sign.

    Raises:
        FormatError: Anything else.
    """
    if not name or "+" in name or any(map(str.isspace, name)):
        raise FormatError(document, field, "a key's name has no spaces or plus signs")
    if _CONTROL.search(name):
        raise FormatError(document, field, "a key's name has a control character")
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise FormatError(document, field, "a key's name is not valid Unicode") from error
    if length > MAX_NAME:
        raise FormatError(document, field, f"a key's name has at most {MAX_NAME} bytes")
    return name


def decode_text(data: bytes, document: str, cap: int) -> str:
    """Return a note-like document as text: UTF-8 without control characters but newlines.

    Raises:
        FormatError: Too long, or anything else.
    """
    if len(data) > cap:
        raise FormatError(document, "", f"is longer than {cap} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(document, "", "is not UTF-8 text") from error
    if _CONTROL.search(text):
        raise FormatError(document, "", "has a control character")
    return text


def decode_base64(text: str, document: str, field: str) -> bytes:
    """Decode standard base64, in its one canonical spelling.

    Python ignores the spare bits of the last character: two texts would be one signature.

    Raises:
        FormatError: Anything else.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise FormatError(document, field, "must be base64") from error
    if base64.b64encode(raw).decode() != text:
        raise FormatError(document, field, "is not written as base64 has to be")
    return raw


def decode_hash(text: str, document: str, field: str) -> bytes:
    """Decode a SHA-256 hash in base64.

    Raises:
        FormatError: Not base64, or not 32 bytes.
    """
    raw = decode_base64(text, document, field)
    if len(raw) != 32:  # noqa: PLR2004
        raise FormatError(document, field, f"must be a hash of 32 bytes, not {len(raw)}")
    return raw
