"""The project's two commands with their imports done: each run is a fork, 20 ms instead of 600.

`python warm.py SOCKET` serves; `shim` is what stands in PATH under a command's name and has its
arguments, directory, environment, standard streams and exit code passed on. What runs is the real
command line; only key derivation is made cheap.
"""

import array
import contextlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SHIM = """#!{python} -ISE
import array, json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({socket!r})
order = [os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]
link.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
link.sendall(json.dumps(order).encode() + b"\\n")
sys.exit(int(link.makefile().readline() or 70))
"""
COMMANDS = ("modelward", "modelward-repo")


@contextlib.contextmanager
def warm(place: Path, *prefix: str) -> Iterator[Path]:
    """Keep the commands warm, and give a folder with them for PATH.

    Args:
        place: An empty directory with a short name.
        prefix: A command to run them under, such as faketime.
    """
    address, folder = place / "s", place / "bin"
    folder.mkdir(parents=True)
    for name in COMMANDS:
        (folder / name).write_text(SHIM.format(python=sys.executable, socket=str(address)))
        (folder / name).chmod(0o755)
    # It ends with its standard input: a signal would reach only a command that it runs under.
    command = [*prefix, sys.executable, __file__, str(address)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 30
            while not address.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the commands did not start")
                time.sleep(0.02)
            yield folder
        finally:
            process.stdin.close()


def serve(address: str) -> None:
    """Run commands until standard input ends."""
    from modelward import cli as device  # noqa: PLC0415
    from modelward import update  # noqa: F401, PLC0415
    from modelward_repo import cli as repository  # noqa: PLC0415
    from modelward_repo.cli import ceremony, init, layout, release, status  # noqa: F401, PLC0415
    from modelward_repo.roles import keys, private  # noqa: PLC0415

    keys.KDF_ROUNDS, private.SCRYPT_COST = 1, 2
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(8)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        link, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _run(link, {"modelward": device.main, "modelward-repo": repository.run})
        link.close()


def _run(link: socket.socket, commands: dict) -> None:
    _, ancillary, _, _ = link.recvmsg(1, socket.CMSG_SPACE(3 * 4))
    streams = array.array("i", ancillary[0][2])
    name, arguments, folder, environment = json.loads(link.makefile().readline())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [name, *arguments]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
    code = 70
    try:
        code = int(commands[name](arguments) or 0)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    except BaseException:  # noqa: BLE001
        import traceback  # noqa: PLC0415

        traceback.print_exc()
    with contextlib.suppress(OSError):
        link.sendall(f"{code}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
