"""Read the digits on a meter's display with the model that modelward installed on this device.

Shows each camera crop, what the model reads and how sure it is; for the bundled sample display
also what is true.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

import modelward
from modelward.errors import ModelwardError

MODEL = "meter-reader"
SIDE = 8
SAMPLE = Path(__file__).with_name("display.json")
SAMPLE_BRIGHTEST = 16
SHADES = " .:-=+*#%@"
ACROSS = 4


class Display(NamedTuple):
    """Camera crops, float32 of shape (n, 8, 8) from 0 to 1; and the digits, where known."""

    images: npt.NDArray[np.float32]
    digits: Sequence[int] | None


class Reading(NamedTuple):
    """One digit as the model reads it, and its probability."""

    digit: int
    probability: float


def installed_model(state: Path | None) -> tuple[str, bytes]:
    """Return version and ONNX bytes of the model that this device may run."""
    with modelward.open_model(MODEL, state=state) as model:
        return model.version, model.read("model.onnx")


def read_digits(onnx: bytes, images: npt.NDArray[np.float32]) -> list[Reading]:
    """Run the model on `images`, one at a time, as it was evaluated."""
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    readings = []
    for image in images:
        pixels = image.reshape(1, SIDE * SIDE)
        digit, probabilities = session.run(["digit", "probabilities"], {"image": pixels})
        readings.append(Reading(int(digit[0]), float(probabilities.max())))
    return readings


def sample_display() -> Display:
    """Return four digits of the holdout set; the model was never trained on them."""
    sample = json.loads(SAMPLE.read_text(encoding="utf-8"))
    images = np.array(sample["images"], dtype=np.float32) / np.float32(SAMPLE_BRIGHTEST)
    return Display(images, sample["digits"])


def photographed_display(path: Path) -> Display:
    """Return the crops in the `.npy` file `path`.

    Raises:
        OSError: The file is missing or unreadable.
        ValueError: It holds something else.
    """
    with path.open("rb") as file:
        images = np.lib.format.read_array(file, allow_pickle=False)
    if images.shape == (SIDE, SIDE):
        images = images[np.newaxis]
    if images.dtype != np.float32 or images.shape[1:] != (SIDE, SIDE) or not images.size:
        wanted = f"float32 ({SIDE}, {SIDE}) or (n, {SIDE}, {SIDE})"
        raise ValueError(f"want {wanted}, got {images.dtype} {images.shape}")
    if not np.all((images >= 0) & (images <= 1)):
        raise ValueError("pixels must be from 0 to 1")
    return Display(images, None)


def render(display: Display, readings: Sequence[Reading]) -> Iterator[str]:
    """Yield the lines that show `display` and what was read, a few digits side by side."""
    levels = (display.images * (len(SHADES) - 1)).round().astype(int)
    gap = "    "
    for start in range(0, len(levels), ACROSS):
        row = range(start, min(start + ACROSS, len(levels)))
        for y in range(SIDE):
            yield gap.join("".join(SHADES[level] * 2 for level in levels[n][y]) for n in row)
        read = (f"read {readings[n].digit} ({readings[n].probability:.0%})" for n in row)
        yield gap.join(text.ljust(2 * SIDE) for text in read)
        if display.digits is not None:
            yield gap.join(f"true {display.digits[n]}".ljust(2 * SIDE) for n in row)
        yield ""


def main() -> str | None:
    """Run the command; a returned text is the error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--state", metavar="DIR", type=Path, help="the device's state directory")
    parser.add_argument(
        "--image",
        metavar="FILE.npy",
        type=Path,
        help="crops to read instead of the sample: float32, 0 to 1, (8, 8) or (n, 8, 8)",
    )
    arguments = parser.parse_args()
    try:
        display = photographed_display(arguments.image) if arguments.image else sample_display()
    except (OSError, ValueError) as error:
        return f"read_meter: {arguments.image}: {error}"
    try:
        version, onnx = installed_model(arguments.state)
    except ModelwardError as error:
        return f"read_meter: {error}"
    readings = read_digits(onnx, display.images)
    print(f"{MODEL} {version}, {len(onnx)} bytes of ONNX\n")
    print("\n".join(render(display, readings)))
    return None


if __name__ == "__main__":
    sys.exit(main())
