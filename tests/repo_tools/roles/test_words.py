import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward_repo.roles import words


@pytest.mark.parametrize(
    ("address", "spelt"),
    [  # from the paper: IPv4 addresses as proquints
        ("127.0.0.1", "lusab-babad"),
        ("63.84.220.193", "gutih-tugad"),
        ("140.98.193.141", "mudof-sakat"),
        ("198.81.129.136", "sinid-makam"),
    ],
)
def test_the_papers_own_examples(address: str, spelt: str) -> None:
    assert words.words(bytes(map(int, address.split("."))), 2) == spelt


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_no_two_numbers_share_a_word(one: int, other: int) -> None:
    assert (words.proquint(one) == words.proquint(other)) == (one == other)


@given(st.binary(min_size=8, max_size=8))
def test_words_are_read_however_they_are_typed(digest: bytes) -> None:
    text = words.words(digest)
    assert len(text.split("-")) == words.COUNT
    for typed in (text, text.upper(), text.replace("-", " "), f"  {text.replace('-', ', ')}\n"):
        assert words.read(typed) == text


@pytest.mark.parametrize("text", ["", "lusab", "lusab-babad-lusab-babed", "lusab-babad-gutih-1"])
def test_what_is_not_words(text: str) -> None:
    with pytest.raises(ValueError, match="is not 4 words such as"):
        words.read(text)
