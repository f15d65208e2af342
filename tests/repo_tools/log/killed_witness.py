"""Ask a witness, killed at its 1st, 2nd ... line; then ask it for another history.

    python killed_witness.py PLACE VKEY

PLACE has the requests `honest` and `fork`. Prints per point: its number, whether the answer to
`honest` came out, and the status of the answer to `fork`.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from modelward.formats.note import VerifierKey
from modelward_repo.log.witness import Witness
from modelward_repo.log.witness_store import SqliteStore
from tests.repo_tools.log.site import cosigning_key

WATCHED = ("log/witness.py", "log/witness_store.py", "contextlib.py")


def main() -> None:
    place, vkey = Path(sys.argv[1]), VerifierKey.parse(sys.argv[2])
    honest, fork = (place / "honest").read_bytes(), (place / "fork").read_bytes()
    cosigning_key("w1")
    point = 0
    more = True
    while more:
        point += 1
        memory = place / f"memory-{point}"
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            count = 0

            def trace(frame: FrameType, event: str, _arg: Any) -> Any:
                nonlocal count
                if not frame.f_code.co_filename.endswith(WATCHED):
                    return None
                if event == "line":
                    count += 1
                    if count == point:  # noqa: B023 - a fork has its own
                        os.kill(os.getpid(), signal.SIGKILL)
                return trace

            witness = Witness([cosigning_key("w1")], [vkey], SqliteStore(memory))
            sys.settrace(trace)
            answer = witness.add_checkpoint(honest, 1)
            os.write(tell, str(int(answer.status)).encode())
            sys.settrace(None)
            os._exit(0)
        os.close(tell)
        answered = os.read(told, 3)
        os.close(told)
        _, status = os.waitpid(child, 0)
        more = os.WIFSIGNALED(status)
        after = Witness([cosigning_key("w1")], [vkey], SqliteStore(memory))
        print(point, "yes" if answered else "no", int(after.add_checkpoint(fork, 2).status))


if __name__ == "__main__":
    main()
