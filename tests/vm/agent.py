"""Runs in the machine: does what it is told through a port, one JSON document a line.

{"command": "...", "seconds": 60}  ->  {"code": 0, "out": "..."}
"""

import json
import subprocess
from pathlib import Path

PORT = next(Path("/dev/virtio-ports").iterdir())

with PORT.open("r+b", buffering=0) as port:
    port.write(b'{"code": 0, "out": "ready"}\n')
    waiting = b""
    while data := port.read(65536):
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            try:
                done = subprocess.run(
                    ["/bin/sh", "-c", order["command"]],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=order["seconds"],
                    check=False,
                )
                answer = {"code": done.returncode, "out": done.stdout.decode(errors="replace")}
            except subprocess.TimeoutExpired as error:
                answer = {"code": 124, "out": (error.stdout or b"").decode(errors="replace")}
            rest = json.dumps(answer).encode() + b"\n"
            while rest:  # the kernel takes 32 KiB at a time
                rest = rest[port.write(rest) :]
