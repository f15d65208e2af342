"""What a file must not be, whatever its suffix says: a program, an archive, a pickle."""

import io
import pickletools

from modelward.trust.model_format.reader import Reader

MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive, as PyTorch and Keras files are"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ", "a program (Windows)"),
    (b"\xca\xfe\xba\xbe", "a program (Java or macOS)"),
    (b"\xcf\xfa\xed\xfe", "a program (macOS)"),
    (b"\x00asm", "a program (WebAssembly)"),
    (b"#!", "a script"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them"),
    (b"\x1f\x8b", "compressed (gzip)"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)"),
    (b"\xfd7zXZ\x00", "compressed (xz)"),
    (b"BZh", "compressed (bzip2)"),
    (b"7z\xbc\xaf\x27\x1c", "an archive (7z)"),
)
LONGEST = max(len(magic) for magic, _ in MAGIC)
PICKLE_CAP = 1 << 20  # bytes: a text longer than this is not held against the grammar of pickles
_BINARY_PICKLE = range(2, 6)  # protocols that begin with their number


def check_magic(reader: Reader) -> None:
    """Refuse what begins as something that runs, unpacks or unpickles (attack row 24).

    Raises:
        FormatError: It does.
    """
    head = reader.read(0, min(LONGEST, reader.size), "")
    for magic, what in MAGIC:
        if head.startswith(magic):
            raise reader.wrong("", f"is {what}, whatever its suffix says")
    if len(head) > 1 and head[0] == 0x80 and head[1] in _BINARY_PICKLE:  # noqa: PLR2004 - PROTO
        raise _pickle(reader)


def check_no_old_pickle(reader: Reader) -> None:
    """Refuse a text that is a pickle of protocol 0 from its first byte to its last.

    Such a pickle has no magic. It is read, opcode by opcode, and never run.

    Raises:
        FormatError: It is one.
    """
    if not 1 < reader.size <= PICKLE_CAP or reader.read(reader.size - 1, 1, "") != b".":
        return
    stream = io.BytesIO(reader.read(0, reader.size, ""))
    try:
        for _ in pickletools.genops(stream):
            pass
    except Exception:  # noqa: BLE001 - a foreign parser is fenced in: not a pickle is good news
        return
    if stream.tell() == reader.size:
        raise _pickle(reader)


def _pickle(reader: Reader) -> Exception:
    return reader.wrong("", "is a pickle, which runs code when it is loaded")
