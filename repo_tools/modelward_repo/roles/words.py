"""Digests as words, to be read aloud over a telephone: every signer must hear the same.

Each word stands for 16 bits, as five letters that no two accents confuse: proquints (Wilkerson,
arXiv:0901.4016). Four of them are 64 bits: nobody finds a second request with the words of one
that is already on the table.
"""

import re

CONSONANTS = "bdfghjklmnprstvz"
VOWELS = "aiou"
COUNT = 4  # words
_WORD = re.compile("".join(f"[{CONSONANTS if i % 2 == 0 else VOWELS}]" for i in range(5)))


def proquint(number: int) -> str:
    """Return the word of a 16-bit number."""
    return (
        CONSONANTS[number >> 12 & 15]
        + VOWELS[number >> 10 & 3]
        + CONSONANTS[number >> 6 & 15]
        + VOWELS[number >> 4 & 3]
        + CONSONANTS[number & 15]
    )


def words(digest: bytes, count: int = COUNT) -> str:
    """Return the first words of a digest, joined by hyphens."""
    parts = (digest[2 * i : 2 * i + 2] for i in range(count))
    return "-".join(proquint(int.from_bytes(part, "big")) for part in parts)


def read(text: str) -> str:
    """Return words as somebody typed them, in their one spelling.

    Raises:
        ValueError: They are not `COUNT` words.
    """
    found = re.split(r"[\s,-]+", text.strip().lower())
    if len(found) != COUNT or not all(_WORD.fullmatch(word) for word in found):
        raise ValueError(f"{text[:80]!r} is not {COUNT} words such as bazol-kumob-lusab-tidog")
    return "-".join(found)
