"""Sign a role anew, killed at the 1st, 2nd ... change to the file system; then go on.

    python killed_publisher.py REPOSITORY KEYS MEMORY WORK URL

Each time on a copy of the repository, with witnesses that remember what they saw of that copy.
"""

import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from modelward_repo import cli
from modelward_repo.log.audit import audit
from modelward_repo.publish.ledger import write_urls
from modelward_repo.publish.target import Source
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.publish.kill_everywhere import killed_at


def faults(copy: Path) -> list[str]:
    return audit(Source.stored(LocalStorage(copy), None), datetime.now(UTC)).faults


def main() -> None:
    repository, keys, memory, work, url = sys.argv[1:]
    # Imported once, before forking.
    from modelward_repo.cli import log, refresh  # noqa: F401, PLC0415

    sys.stdout, told = open(os.devnull, "w"), sys.stdout  # noqa: PTH123, SIM115
    point = 0
    more = True
    while more:
        point += 1
        copy = Path(work, str(point))
        shutil.copytree(repository, copy)
        shutil.copytree(Path(memory, "0"), Path(memory, str(point)))
        write_urls(
            LocalStorage(copy),
            {
                name: url.replace("NAME", name).replace("PLACE", str(point))
                for name in ("w1", "w2", "w3")
            },
        )
        where = ["--repository", str(copy), "--keys", keys]
        more = killed_at(point, ["refresh", "channels", *where])
        # Whatever happened, what is published is logged, and can be gone on from.
        before = (copy / "metadata/timestamp.json").read_bytes()
        found = faults(copy)
        assert not found, (point, found)
        assert cli.run(["log", "publish", *where]) == 0, point
        assert cli.run(["refresh", "channels", *where]) == 0, point
        assert (copy / "metadata/timestamp.json").read_bytes() != before
        assert not faults(copy), (point, faults(copy))
        shutil.rmtree(copy)
    told.write(f"points: {point}\n")


if __name__ == "__main__":
    main()
