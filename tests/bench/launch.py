"""Run one command and say how long it took and how much memory: `python -S launch.py COMMAND...`.

A process of its own because it is small: on Linux, a child's peak counts the memory that its parent
had when it was started.
"""

import json
import resource
import subprocess
import sys
import time

before = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=sys.stderr)
seconds = time.perf_counter() - before
memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({"status": status, "seconds": seconds, "memory": memory}))
