"""A split of labelled digit images on disk: `images.npy` and `labels.npy` in one directory."""

from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

SIDE = 8  # pixels, both ways
CLASSES = 10  # the digits 0 to 9

Scalar = TypeVar("Scalar", np.float32, np.int64)


class Split(NamedTuple):
    """Labelled images.

    Attributes:
        images: From 0 to 1, shape (samples, 8, 8).
        labels: The digit in each, shape (samples,).
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @property
    def pixels(self) -> npt.NDArray[np.float32]:
        """The images row by row, shape (samples, 64): what the network takes."""
        return self.images.reshape(len(self.images), SIDE * SIDE)


def save_split(split: Split, directory: Path) -> None:
    """Write `split` into `directory`, the same bytes for the same values."""
    directory.mkdir(parents=True, exist_ok=True)
    np.save(directory / "images.npy", split.images, allow_pickle=False)
    np.save(directory / "labels.npy", split.labels, allow_pickle=False)


def load_split(directory: Path) -> Split:
    """Read the split in `directory`.

    Raises:
        OSError: A file is missing or unreadable.
        ValueError: A file is not an array of the kind `Split` describes.
    """
    images = load_array(directory / "images.npy", np.float32, (None, SIDE, SIDE))
    labels = load_array(directory / "labels.npy", np.int64, (len(images),))
    if len(images) == 0:
        raise ValueError(f"{directory}: no samples")
    if not np.all((images >= 0) & (images <= 1)):
        raise ValueError(f"{directory / 'images.npy'}: pixels must be from 0 to 1")
    if not np.all((labels >= 0) & (labels < CLASSES)):
        raise ValueError(f"{directory / 'labels.npy'}: labels must be digits, 0 to 9")
    return Split(images, labels)


def load_array(
    path: Path, dtype: type[Scalar], shape: tuple[int | None, ...]
) -> npt.NDArray[Scalar]:
    """Read one `.npy` file; anything that would need pickle to decode is refused.

    Args:
        path: The file.
        dtype: The type its values must have.
        shape: The shape it must have; None stands for any length.

    Raises:
        OSError: The file is missing or unreadable.
        ValueError: The file is not such an array.
    """
    with path.open("rb") as file:
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise ValueError(f"{path}: not a .npy array: {error}") from error
    fits = len(array.shape) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        wanted = f"{dtype.__name__} {shape}".replace("None", "n")
        raise ValueError(f"{path}: {array.dtype} {array.shape} instead of {wanted}")
    return array
