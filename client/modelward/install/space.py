"""How much room on disk something takes."""

import contextlib
import itertools
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from modelward.install.opened import files_below


def freed(paths: Iterable[Path]) -> int:
    """Return the bytes on disk that removing files and trees would free.

    A file that has other names elsewhere frees nothing.
    """
    links: dict[tuple[int, int], int] = {}
    total = 0
    for path in itertools.chain.from_iterable(map(_files_of, paths)):
        with contextlib.suppress(OSError):  # it is gone, or its path is too long
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):  # which is too deep to look into
                continue
            place = (status.st_dev, status.st_ino)
            links[place] = links.get(place, 0) + 1
            if links[place] == status.st_nlink:  # the last of its names goes, too
                total += status.st_blocks * 512  # the unit of stat(2)
    return total


def _files_of(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        yield from files_below(path)
    else:
        yield path
