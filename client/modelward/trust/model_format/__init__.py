"""Is a file what its suffix says, all the way through? Asked before any parser touches it.

A runtime's parser is written in C++ to be fast, not to be attacked. So each format is walked here
first, in Python, within a memory that does not grow with the file: every length, count and offset
that the file states must lie inside the file, and add up (attack row 24). Weights themselves are
any bytes at all; what they do is not decided here.
"""

from collections.abc import Callable, Mapping

from modelward.trust.model_format import gguf, npy, onnx, safetensors, sentencepiece, text, tflite
from modelward.trust.model_format.magic import check_magic
from modelward.trust.model_format.reader import Reader

CHECKS: Mapping[str, Callable[[Reader], str]] = {
    "onnx": onnx.check,
    "safetensors": safetensors.check,
    "gguf": gguf.check,
    "tflite": tflite.check,
    "npy": npy.check,
    "sentencepiece": sentencepiece.check,
    "json": text.check_json,
    "signature": text.check_json,
    "text": text.check_text,
}


def check(file_format: str, reader: Reader) -> str:
    """Walk a file of a known format.

    Args:
        file_format: One of `modelward.formats.policy.KNOWN_FORMATS`.
        reader: Reads the file.

    Returns:
        What is in it, for people.

    Raises:
        FormatError: It is not what its format says. The caller fills in the gate.
    """
    check_magic(reader)
    return CHECKS[file_format](reader)


__all__ = ["CHECKS", "Reader", "check"]
