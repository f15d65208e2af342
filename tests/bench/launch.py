"""Run one command and say what it took: `python -S launch.py COMMAND...`.

Seconds of the clock, seconds of all processors together, peak memory, and the bytes that were
handed to the kernel to be written. A process of its own because it is small: on Linux, a child's
peak counts the memory that its parent had when it was started.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path


def written() -> int:
    """Return the bytes that this process, and those it waited for, have written."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


already = written()
before = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=sys.stderr)
seconds = time.perf_counter() - before
used = resource.getrusage(resource.RUSAGE_CHILDREN)
taken = {
    "status": status,
    "seconds": seconds,
    "cpu": used.ru_utime + used.ru_stime,
    "memory": used.ru_maxrss * 1024,
    "written": written() - already,
}
print(json.dumps(taken))
