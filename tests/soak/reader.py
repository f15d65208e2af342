"""A program that uses a model all the time: opens it, reads it whole, says what it was.

    python reader.py STATE MODEL

Prints a line for each time: the version, and the digest of all its files; or what went wrong.
"""

import hashlib
import sys
import time

import modelward

PAUSE = 0.005  # seconds


def digest(files: dict[str, bytes]) -> str:
    """Return the digest of all files of a version."""
    found = hashlib.sha256()
    for path, data in sorted(files.items()):
        found.update(f"{path}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    return found.hexdigest()


def main() -> None:
    """Read until killed, or until nobody listens."""
    _, state, name = sys.argv
    while True:
        try:
            with modelward.open_model(name, state) as model:
                print("read", model.version, digest({path: model.read(path) for path in model}))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            print("FAILED", type(error).__name__, str(error).replace("\n", " "))
        sys.stdout.flush()
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
