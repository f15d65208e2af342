"""What honest libraries write passes, and is counted."""

from pathlib import Path

import onnx
import pytest

from modelward.formats.policy import KNOWN_FORMATS
from modelward.trust.model_format import CHECKS
from tests.trust.model_format.samples import look, samples

CORPUS = sorted(Path(onnx.__file__).parent.glob("backend/test/data/**/*.onnx"))


def test_every_format_is_walked():
    assert CHECKS.keys() == KNOWN_FORMATS.keys()


@pytest.mark.parametrize("name", samples())
def test_honest(name):
    assert look(*samples()[name])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("onnx", "5 operators, 10 tensors"),
        ("safetensors", "3 tensors"),
        ("gguf", "2 key-value pairs, 1 tensors"),
        ("tflite", "1 graphs, 2 buffers"),
        ("npy", "an array of 2 x 3"),
        ("sentencepiece", "2 pieces"),
    ],
)
def test_what_is_in_it(name, found):
    assert look(*samples()[name]) == found


def test_every_model_that_comes_with_onnx():
    """A corpus that others made, with operators of every kind and version."""
    assert len(CORPUS) > 100
    for path in CORPUS:
        look("onnx", path.read_bytes())
