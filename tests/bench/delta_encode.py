"""Make a patch, as a command like the others': delta_encode.py METHOD BASE TARGET PATCH."""

import sys
from pathlib import Path

from modelward_repo.publish import delta

method, base, target, patch = sys.argv[1:]
delta.encode(method, Path(base) if base else None, Path(target), Path(patch))
