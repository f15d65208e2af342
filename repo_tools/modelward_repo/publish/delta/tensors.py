"""Where the tensors of a file lie, whatever its format. Anything not understood has none.

Nothing here is trusted: a file that lies about its tensors makes a bad delta, never a wrong one,
since every byte of the new file is coded, whichever tensor it is taken for.
"""

from dataclasses import dataclass
from itertools import pairwise

from modelward_repo.publish.delta import onnx, safetensors
from modelward_repo.publish.delta.files import File
from modelward_repo.publish.delta.tensor import Tensor


def tensors_of(file: File) -> list[Tensor]:
    """Return a file's tensors in the order of their data, none of which overlap."""
    found = safetensors.tensors(file) or onnx.tensors(file)
    found = sorted(tensor for tensor in found if tensor.end > tensor.start)
    if any(after.start < before.end for before, after in pairwise(found)):
        return []
    return found if not found or found[-1].end <= file.length else []


@dataclass(frozen=True)
class Gap:
    """What lies between tensors.

    Attributes:
        start: Where it begins.
        end: Where it ends.
    """

    start: int
    end: int

    @property
    def length(self) -> int:
        """Bytes of it."""
        return self.end - self.start


def parts_of(file: File) -> list[Tensor | Gap]:
    """Return a file's tensors and what lies between them, without a hole."""
    parts: list[Tensor | Gap] = []
    end = 0
    for tensor in tensors_of(file):
        if tensor.start > end:
            parts.append(Gap(end, tensor.start))
        parts.append(tensor)
        end = tensor.end
    if end < file.length:
        parts.append(Gap(end, file.length))
    return parts
