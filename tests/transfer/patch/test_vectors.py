"""The readable vectors in tests/vectors/tensor-delta: what the format is, for ever.

A line is a word and a value: `base`, `new` and `patch` in hexadecimal, the last one in parts;
`refused` and the reason; a comment after `#`. zstd frames are stored, not compressed, but for one.
"""

from pathlib import Path

import pytest

from modelward.errors import Refused
from modelward.transfer import patch
from modelward.transfer.patch import arithmetic
from tests.transfer.patch.applying import applied, blocks

VECTORS = sorted((Path(__file__).parents[2] / "vectors/tensor-delta").glob("*.txt"))


def read(path: Path) -> tuple[bytes | None, bytes | None, bytes, str]:
    values: dict[str, list[str]] = {"base": [], "new": [], "patch": [], "refused": []}
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            word, _, value = line.partition(" ")
            values[word].append(value)
    base, new, data, refused = ("".join(parts) for parts in values.values())
    return (
        None if base == "-" else bytes.fromhex(base),
        bytes.fromhex(new) if values["new"] else None,
        bytes.fromhex(data),
        refused,
    )


@pytest.mark.parametrize("large", [0, 1 << 60], ids=["numpy", "integers"])
@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_vector_is_applied_or_refused_as_it_says(path, large, monkeypatch):
    monkeypatch.setattr(arithmetic, "LARGE", large)
    base, new, data, refused = read(path)
    assert path.stem.startswith("bad-") == (new is None) == bool(refused)
    length = int.from_bytes(data[24:32], "little")
    for size in (1, 1 << 20):
        if new is not None:
            assert applied(patch.TENSOR_DELTA, base, blocks(data, size), length) == new
        else:
            with pytest.raises(Refused) as caught:
                applied(patch.TENSOR_DELTA, base, blocks(data, size), length)
            assert caught.value.reason == f"the patch {refused}"


def test_there_are_vectors():
    assert len(VECTORS) > 20
