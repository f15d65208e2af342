"""A disk that remembers what a power cut may have left of it.

`Recorder` notes every call of `modelward.install.syscalls`. `Recording.cuts` takes each prefix of
that and yields what may be on the disk if the power goes there, harsher than any file system that
we know of:

- what was synced is there: a file's bytes once it was synced, a directory's entries once that was;
- of the rest, any part may be: entries come and go each by itself, in any order; bytes may be all
  there, cut short, or zeros under the right length;
- a rename is atomic: the name is that of the old or the new.
"""

import contextlib
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

from modelward.install import syscalls

FATES = ("all", "none", "zeros", "torn")  # of bytes that were not synced
RANDOM_CUTS = 4  # of each prefix, beside those that are always tried
ENTRIES = frozenset(("enter", "leave", "move", "swap", "mode"))
SUBSETS = 3  # entries up to which every combination is tried


@dataclass(frozen=True)
class Node:
    """What a name may lead to: a file, a directory (`entries`) or a symbolic link (`target`)."""

    mode: int = 0o644
    data: bytes = b""
    target: str | None = None
    entries: tuple[tuple[str, int], ...] | None = None


@dataclass(frozen=True)
class Op:
    """One thing that happened to one inode.

    Attributes:
        kind: `enter`, `leave`, `move`, `swap`, `write`, `truncate`, `mode`, `sync` or `sync all`.
        inode: The file that was written to or synced; the directory whose entry changed.
        name: That entry's name.
        child: What the entry leads to.
        source: Of a move or swap, the directory and name that it came from.
        back: Of a swap, what that name leads to then.
        offset: Of a write, where; of a truncation, the new length.
        data: Of a write, what.
        mode: Of a change of mode, the new one.
    """

    kind: str
    inode: int
    name: str = ""
    child: int = 0
    source: tuple[int, str] = (0, "")
    back: int = 0
    offset: int = 0
    data: bytes = b""
    mode: int = 0

    def is_made_durable_by(self, sync: "Op") -> bool:
        """Tell whether a later sync makes this certain."""
        if sync.kind == "sync all":
            return True
        places = {self.inode, self.source[0]} if self.source[0] else {self.inode}
        return sync.kind == "sync" and sync.inode in places


Image = dict[int, Node]  # all inodes; that of the root directory is 1
ROOT = 1


@dataclass
class Recording:
    """What was on a disk, and what happened to it since."""

    before: Image
    new: Image = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)

    def cuts(self, seed: int = 0, first: int = 0) -> Iterator[tuple[int, Image]]:
        """Yield every prefix's length, and images of what a cut there may leave, each once.

        Args:
            seed: For those that are chosen at random.
            first: The length of the first prefix.
        """
        seen: set[object] = set()
        for length in range(first, len(self.ops) + 1):
            for image in self._images(length, random.Random(f"{seed} {length}")):
                # What a finished action leaves is judged more strictly: it counts by itself.
                tree = (length == len(self.ops), frozenset(flat(image)))
                if tree not in seen:
                    seen.add(tree)
                    yield length, image

    def _images(self, length: int, chance: random.Random) -> Iterator[Image]:
        done = self.ops[:length]
        pending = [
            number
            for number, op in enumerate(done)
            if not op.kind.startswith("sync")
            and not any(op.is_made_durable_by(later) for later in done[number + 1 :])
        ]
        entries = [n for n in pending if done[n].kind in ENTRIES]
        for there in self._subsets(entries, chance):
            lost = frozenset(entries) - frozenset(there)
            for fate in FATES if len(pending) > len(entries) else FATES[:1]:
                changed = [_after(op, fate) if n in pending else op for n, op in enumerate(done)]
                yield self._replay([op for n, op in enumerate(changed) if op and n not in lost])

    def _subsets(self, entries: Sequence[int], chance: random.Random) -> Iterator[Sequence[int]]:
        if len(entries) <= SUBSETS:
            for size in range(len(entries) + 1):
                yield from itertools.combinations(entries, size)
            return
        yield ()
        yield entries
        for _ in range(RANDOM_CUTS):
            yield [number for number in entries if chance.random() < 0.5]
            yield entries[: chance.randrange(len(entries))]  # as a journalling file system does

    def _replay(self, ops: Sequence[Op]) -> Image:
        nodes = {**self.before, **self.new}
        folders = {ino: dict(node.entries) for ino, node in nodes.items()
                   if node.entries is not None}  # fmt: skip
        for op in ops:
            if op.kind == "enter":
                folders[op.inode][op.name] = op.child
            elif op.kind == "leave":
                folders[op.inode].pop(op.name, None)
            elif op.kind == "move":
                folders[op.source[0]].pop(op.source[1], None)
                folders[op.inode][op.name] = op.child
            elif op.kind == "swap":
                folders[op.source[0]][op.source[1]] = op.back
                folders[op.inode][op.name] = op.child
            elif not op.kind.startswith("sync"):
                nodes[op.inode] = _changed(nodes[op.inode], op)
        for ino, entries in folders.items():
            nodes[ino] = replace(nodes[ino], entries=tuple(sorted(entries.items())))
        return nodes


def _after(op: Op, fate: str) -> Op | None:
    """Return what is left of an operation that was not synced; of those on entries, all."""
    if op.kind == "truncate":
        return op if fate != "none" else None
    if op.kind != "write" or fate == "all":
        return op
    if fate == "none":
        return None
    half = len(op.data) // 2
    return replace(op, data=op.data[:half] if fate == "torn" else bytes(len(op.data)))


def _changed(node: Node, op: Op) -> Node:
    if op.kind == "mode":
        return replace(node, mode=op.mode)
    if op.kind == "truncate":
        return replace(node, data=node.data[: op.offset].ljust(op.offset, b"\0"))
    before = node.data[: op.offset].ljust(op.offset, b"\0")
    return replace(node, data=before + op.data + node.data[op.offset + len(op.data) :])


def flat(image: Image, inode: int = ROOT, path: str = ".") -> Iterator[tuple[str, Node]]:
    """Yield everything that can be reached, by path."""
    node = image[inode]
    yield path, replace(node, entries=None)
    for name, child in node.entries or ():
        yield from flat(image, child, f"{path}/{name}")


def write(image: Image, place: Path) -> None:
    """Put an image on a real disk."""
    made: dict[int, Path] = {}

    def put(inode: int, path: Path) -> None:
        node = image[inode]
        if node.entries is not None:
            path.mkdir()
            for name, child in node.entries:
                put(child, path / name)
            path.chmod(node.mode)
        elif node.target is not None:
            path.symlink_to(node.target)
        elif inode in made:
            path.hardlink_to(made[inode])
        else:
            path.write_bytes(node.data)
            path.chmod(node.mode)
            made[inode] = path

    put(ROOT, place)


class Recorder:
    """Notes what happens below a directory.

    Args:
        root: The directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._inodes: dict[int, int] = {}  # ours by the kernel's, which it uses again
        self._next = ROOT
        before: Image = {}
        self._read(root, before)
        self.recording = Recording(before)

    @contextlib.contextmanager
    def attached(self) -> Iterator[Recording]:
        """Record what happens in this block."""
        with contextlib.ExitStack() as stack:
            for name in CALLS:
                real = getattr(syscalls, name)
                stack.enter_context(
                    mock.patch.object(syscalls, name, _wrapped(real, getattr(self, f"_{name}")))
                )
            yield self.recording

    def _read(self, path: Path, image: Image) -> int:
        status = path.lstat()
        known = self._inodes.get(status.st_ino)
        if known:
            return known
        ours = self._name(status.st_ino)
        mode = status.st_mode & 0o7777
        if path.is_symlink():
            image[ours] = Node(mode, target=str(path.readlink()))
        elif path.is_dir():
            inner = [(item.name, self._read(item, image)) for item in sorted(path.iterdir())]
            image[ours] = Node(mode, entries=tuple(inner))
        else:
            image[ours] = Node(mode, path.read_bytes())
        return ours

    def _name(self, inode: int) -> int:
        self._inodes[inode] = self._next
        self._next += 1
        return self._next - 1

    def _of(self, path: Path) -> int:
        return self._inodes[path.lstat().st_ino]

    def _note(self, kind: str, inode: int, **details: object) -> None:
        self.recording.ops.append(Op(kind, inode, **details))  # type: ignore[arg-type]

    def _born(self, path: Path, node: Node) -> None:
        child = self._name(path.lstat().st_ino)
        self.recording.new[child] = node
        self._note("enter", self._of(path.parent), name=path.name, child=child)

    # Each is called with the arguments of the call of that name: before it, then with its result.

    def _create(self, path: Path, mode: int) -> Iterator[None]:
        yield
        self._born(path, Node(mode))

    def _write(self, descriptor: int, data: memoryview) -> Iterator[None]:
        copy, offset = bytes(data), os.lseek(descriptor, 0, os.SEEK_CUR)
        count = yield
        self._note("write", self._opened(descriptor), offset=offset, data=copy[:count])

    def _write_at(self, descriptor: int, data: memoryview, offset: int) -> Iterator[None]:
        copy = bytes(data)
        count = yield
        self._note("write", self._opened(descriptor), offset=offset, data=copy[:count])

    def _truncate(self, descriptor: int, length: int) -> Iterator[None]:
        yield
        self._note("truncate", self._opened(descriptor), offset=length)

    def _reserve(self, descriptor: int, length: int) -> Iterator[None]:
        before = os.fstat(descriptor).st_size
        yield
        self._note("truncate", self._opened(descriptor), offset=max(before, length))

    def _sync(self, descriptor: int) -> Iterator[None]:
        yield
        self._note("sync", self._opened(descriptor))

    def _sync_file_system(self, _descriptor: int) -> Iterator[None]:
        yield
        self._note("sync all", ROOT)

    def _make_directory(self, path: Path, mode: int) -> Iterator[None]:
        there = path.exists()
        yield
        if not there:
            self._born(path, Node(mode, entries=()))

    def _symlink(self, target: str, path: Path) -> Iterator[None]:
        yield
        self._born(path, Node(0o777, target=target))

    def _link(self, source: Path, destination: Path) -> Iterator[None]:
        yield
        folder = self._of(destination.parent)
        self._note("enter", folder, name=destination.name, child=self._of(source))

    def _rename(
        self, source: Path, destination: Path, out_of: int | None = None, into: int | None = None
    ) -> Iterator[None]:
        child = self._inodes[os.stat(source, dir_fd=out_of, follow_symlinks=False).st_ino]
        came_from = (self._folder(source, out_of), source.name)
        yield
        folder = self._folder(destination, into)
        self._note("move", folder, name=destination.name, child=child, source=came_from)

    def _exchange(self, one: Path, other: Path) -> Iterator[None]:
        child, back = self._of(one), self._of(other)
        source, folder = (self._of(one.parent), one.name), self._of(other.parent)
        yield
        self._note("swap", folder, name=other.name, child=child, source=source, back=back)

    def _unlink(self, path: Path, folder: int | None = None) -> Iterator[None]:
        inode = self._folder(path, folder)
        yield
        self._note("leave", inode, name=path.name)

    _remove_directory = _unlink

    def _change_mode(self, path: Path | int, mode: int) -> Iterator[None]:
        yield
        inode = os.stat(path).st_ino  # noqa: PTH116 - of what is open, too
        self._note("mode", self._inodes[inode], mode=mode)

    def _folder(self, path: Path, opened: int | None) -> int:
        return self._of(path.parent) if opened is None else self._opened(opened)

    def _opened(self, descriptor: int) -> int:
        return self._inodes[os.fstat(descriptor).st_ino]


CALLS = (
    "create", "write", "write_at", "truncate", "reserve", "sync", "sync_file_system",
    "make_directory", "symlink", "link", "rename", "exchange", "unlink", "remove_directory",
    "change_mode",
)  # fmt: skip


def _wrapped(real, note):  # type: ignore[no-untyped-def]
    def call(*arguments):  # type: ignore[no-untyped-def]
        noting = note(*arguments)
        next(noting)
        result = real(*arguments)
        with contextlib.suppress(StopIteration):
            noting.send(result)
        return result

    return call
