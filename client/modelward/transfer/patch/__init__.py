"""Gate 10: make a new file out of one that is here and a small patch, in bounded memory.

A patch is as untrusted as any other bytes. Whatever it says, the decoder never gives out more than
the declared length, never takes more memory than it was allowed, and ends (attack row 27). That
the result is the right file is for the caller to check: its SHA-256 decides, as for every blob.

The methods and their formats are in docs/formats.md, the reasons in docs/adr/0011 and 0012.
"""

from collections.abc import Callable, Iterable

from modelward.transfer.patch import tensor_delta, whole
from modelward.transfer.patch.refusal import refused

Sink = Callable[[memoryview], object]  # takes the new file's next bytes; not kept after it returns

TENSOR_DELTA = "tensor-delta/1"
ZSTD_PATCH = "zstd-patch/1"
ZSTD = "zstd/1"
METHODS = frozenset({TENSOR_DELTA, ZSTD_PATCH, ZSTD})


def apply(  # noqa: PLR0913, PLR0917 - what release.json says of a patch, and two ends
    method: str,
    base: int | None,
    patch: Iterable[memoryview],
    sink: Sink,
    length: int,
    memory: int,
) -> None:
    """Give out the file that a patch makes.

    Args:
        method: One of `METHODS`.
        base: Descriptor of the file to start from, open for reading; None for a method or a patch
            that needs none. Only `os.pread` is used, so that its position does not matter.
        patch: The patch, in blocks of any size; read from another thread, not beyond its end.
        sink: Called in the caller's thread with consecutive blocks of at most 1 MiB. What it
            raises ends the work.
        length: Bytes that the new file must have.
        memory: Most bytes of memory to use.

    Raises:
        Refused: The patch is malformed, is for another base, makes another length, or needs more
            memory. Some bytes may have gone to `sink` by then: never more than `length`.
    """
    if method == TENSOR_DELTA:
        tensor_delta.apply(base, patch, sink, length, memory)
    elif method == ZSTD_PATCH:
        if base is None:
            raise refused("needs a base, but there is none")
        whole.apply(base, patch, sink, length, memory)
    elif method == ZSTD:
        whole.apply(None, patch, sink, length, memory)
    else:
        raise refused(f"is of a method that this version does not know: {method!r}")
