"""Apply a patch and hash what it makes, as a device does.

delta_decode.py METHOD BASE PATCH MADE [MODULE... to load, or -MODULE for one that is not there]
"""

import hashlib
import importlib
import os
import sys
from pathlib import Path

from modelward.transfer import patch
from modelward.transfer.patch.operations import HEAD

BLOCK = 256 << 10  # bytes

method, base, source, made = sys.argv[1:5]
for module in sys.argv[5:]:
    if module.startswith("-"):
        sys.modules[module[1:]] = None  # importing it fails
    else:
        importlib.import_module(module)
with Path(source).open("rb", buffering=0) as file, Path(made).open("wb", buffering=0) as out:
    length = HEAD.unpack(os.pread(file.fileno(), HEAD.size, 0))[-1]
    digest = hashlib.sha256()

    def sink(block: memoryview) -> None:
        """Hash and write."""
        digest.update(block)
        out.write(block)

    descriptor = os.open(base, os.O_RDONLY) if base else None
    blocks = (memoryview(block) for block in iter(lambda: file.read(BLOCK), b""))
    patch.apply(method, descriptor, blocks, sink, length, 64 << 20)
