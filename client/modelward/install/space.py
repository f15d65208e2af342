"""How much room on disk something takes."""

from collections.abc import Iterable
from pathlib import Path


def freed(paths: Iterable[Path]) -> int:
    """Return the bytes on disk that removing files and trees would free.

    A file that has other names elsewhere frees nothing.
    """
    links: dict[tuple[int, int], int] = {}
    total = 0
    for path in (inner for outer in paths for inner in (outer, *outer.rglob("*"))):
        if path.is_symlink() or path.is_file():
            status = path.lstat()
            place = (status.st_dev, status.st_ino)
            links[place] = links.get(place, 0) + 1
            if links[place] == status.st_nlink:  # the last of its names goes, too
                total += status.st_blocks * 512  # the unit of stat(2)
    return total
