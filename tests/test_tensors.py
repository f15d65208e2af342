"""Tensors: views into the file that was opened; a header that lies is refused."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import modelward
from modelward.errors import FormatError
from modelward.tensors import Tensors
from tests.install.site import MODEL, Site, chain

safetensors = pytest.importorskip("safetensors.numpy")
np = pytest.importorskip("numpy")
ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.array([-1, 1], dtype=np.int64),
    "empty": np.zeros((0, 4), dtype=np.float16),
    "scalar": np.array([True]).reshape(()),
}


def tensors(path: Path, data: bytes) -> Tensors:
    path.write_bytes(data)
    with path.open("rb") as file:
        return Tensors(path.name, file.fileno())


def file_of(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_of_an_open_model(tmp_path):
    site = Site(tmp_path / "state")
    site.install(chain("1.0.0", 1, **{"x.safetensors": safetensors.save(ARRAYS)}))
    with modelward.open_model(MODEL, site.state) as model:
        found = model.tensors("x.safetensors")
        with pytest.raises(KeyError):
            model.tensors("absent")
    site.file("x.safetensors").resolve().unlink()  # the file that was opened is what counts
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        tensor = found[name]
        assert tensor.shape == array.shape
        assert bytes(tensor.data) == array.tobytes()
        assert tensor.data.readonly
        np.testing.assert_array_equal(np.asarray(tensor), array)
        assert np.asarray(tensor).dtype == array.dtype
    assert not np.asarray(found["weights"]).flags.writeable
    assert np.shares_memory(np.asarray(found["weights"]), np.asarray(found["weights"]))
    assert np.array(found["weights"], dtype=np.float64).flags.writeable


def test_a_type_that_numpy_does_not_have(tmp_path):
    header = {"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    found = tensors(tmp_path / "x", file_of(header, b"abcd"))
    assert bytes(found["x"].data) == b"abcd"
    with pytest.raises(TypeError, match="BF16"):
        np.asarray(found["x"])


def entry(**changed: object) -> dict[str, object]:
    return {"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4], **changed}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        struct.pack("<Q", 1 << 60) + b"{}",
        file_of(entry(data_offsets=[0, 5]), b"abcd"),
        file_of(entry(data_offsets=[4, 8]), b"abcd"),
        file_of(entry(data_offsets=[4, 0]), b"abcd"),
        file_of(entry(data_offsets=[-4, 0]), b"abcd"),
        file_of(entry(data_offsets=[0]), b"abcd"),
        file_of(entry(shape=[3]), b"abcd"),
        file_of(entry(shape=[2.0, 2]), b"abcd"),
        file_of(entry(dtype="F32"), b"abcd"),
        file_of(entry(dtype="object"), b"abcd"),
        file_of([], b""),
    ],
)
def test_a_header_that_lies(tmp_path, data):
    with pytest.raises(FormatError):
        tensors(tmp_path / "x", data)


HEADERS = st.dictionaries(
    st.text(max_size=3), st.none() | st.lists(st.integers(), max_size=3), max_size=2
)


@pytest.mark.fuzz
@given(st.binary(max_size=64), HEADERS)
def test_whatever_is_in_the_file(tmp_path_factory, data, header):
    folder = tmp_path_factory.mktemp("fuzz")
    for content in (data, file_of(header, data), file_of({"x": header}, data)):
        try:
            found = tensors(folder / "x", content)
        except FormatError:
            continue
        assert all(len(found[name].data) <= len(content) for name in found)
