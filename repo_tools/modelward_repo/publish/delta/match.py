"""Which part of the base each part of the new file comes from, and how it is best coded."""

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from modelward.transfer.patch.operations import Coding, Operation
from modelward_repo.publish.delta import unknown
from modelward_repo.publish.delta.files import BLOCK, File
from modelward_repo.publish.delta.residue import packed_planes, residue
from modelward_repo.publish.delta.tensor import Tensor
from modelward_repo.publish.delta.tensors import Gap, parts_of

SAMPLE = 16 << 10  # bytes
SAMPLES = 16  # at most, of one tensor
SPARED = 16  # times what is sampled of a larger tensor is not
SMALL = 64 << 10  # bytes: smaller tensors are coded as most others of their type are
FASTER = 0.005  # of a patch: what the faster decoding of plain differences is worth
LEAST_GAP = 48  # bytes: an operation for less costs more than the bytes


@dataclass(frozen=True)
class Pair:
    """A part of the new file and the part of the base it is compared with.

    Attributes:
        start: Where it begins in the new file.
        length: Bytes.
        offset: Where the base's part of the same length begins; None if there is none.
        width: Bytes of an element.
        is_float: Whether elements are a sign and a magnitude.
    """

    start: int
    length: int
    offset: int | None
    width: int = 1
    is_float: bool = False


def operations(base: File, target: File) -> list[Operation]:
    """Return how the new file is put together from the base, best as far as samples tell."""
    pairs = list(_pairs(base, target))
    usual: dict[tuple[int, bool, bool], dict[Coding, int]] = defaultdict(lambda: defaultdict(int))
    chosen: list[Operation | None] = []
    for pair in pairs:
        operation = None
        if pair.offset is not None and is_same(base, target, pair):
            operation = Operation(Coding.COPY, 1, pair.length, pair.offset)
        elif pair.length >= SMALL:
            coding = _best(base, target, pair)
            operation = _operation(pair, coding)
            usual[_kind(pair)][coding] += pair.length
        chosen.append(operation)
    return list(
        _merged(
            operation or _operation(pair, _most(usual[_kind(pair)], pair))
            for pair, operation in zip(pairs, chosen, strict=True)
        )
    )


def is_same(base: File, target: File, pair: Pair) -> bool:
    """Tell whether both parts have the same bytes."""
    if pair.offset is None:
        return False
    theirs = base.blocks(pair.offset, pair.offset + pair.length)
    ours = target.blocks(pair.start, pair.start + pair.length)
    return all(mine == their for mine, their in zip(ours, theirs, strict=True))


def _kind(pair: Pair) -> tuple[int, bool, bool]:
    return pair.width, pair.is_float, pair.offset is None


def _codings(pair: Pair) -> tuple[Coding, ...]:
    if pair.offset is None:
        return (Coding.RAW,)
    floats = (Coding.FLOAT,) if pair.is_float else ()
    return (Coding.SUBTRACT, *floats, Coding.XOR, Coding.RAW)


def _most(usual: dict[Coding, int], pair: Pair) -> Coding:
    return max(usual, key=usual.__getitem__) if usual else _codings(pair)[0]


def _operation(pair: Pair, coding: Coding) -> Operation:
    offset = 0 if coding is Coding.RAW or pair.offset is None else pair.offset
    return Operation(coding, pair.width, pair.length, offset)


def _best(base: File, target: File, pair: Pair) -> Coding:
    """Return the coding that makes a few samples smallest."""
    codings = _codings(pair)
    if len(codings) == 1:
        return codings[0]
    sizes = dict.fromkeys(codings, 0.0)
    count = min(max(2, pair.length // (SPARED * SAMPLE)), SAMPLES)
    stride = max(SAMPLE, pair.length // count // pair.width * pair.width)
    for position in range(0, pair.length, stride):
        length = min(SAMPLE, pair.length - position)
        new = target.read(pair.start + position, length)
        old = base.read((pair.offset or 0) + position, length)
        for coding in codings:
            planes = packed_planes(residue(coding, pair.width, old, new))
            sizes[coding] += sum(map(len, planes))
    # The order of floats only matters where signs change; without it a device is a third faster.
    sizes[Coding.SUBTRACT] *= 1 - FASTER
    return min(sizes, key=sizes.__getitem__)


def _merged(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Join operations that go on where the one before ended."""
    last: Operation | None = None
    for operation in operations:
        if (
            last is not None
            and last.stream == operation.stream
            and (last.coding is Coding.RAW or last.offset + last.length == operation.offset)
        ):
            last = replace(last, length=last.length + operation.length)
            continue
        if last is not None:
            yield last
        last = operation
    if last is not None:
        yield last


def _pairs(base: File, target: File) -> Iterator[Pair]:
    """Yield all parts of the new file with what they are compared with, in order."""
    theirs, ours = parts_of(base), parts_of(target)
    gaps = _Gaps(base, [part for part in theirs if isinstance(part, Gap)])
    likes = _Likes(
        base,
        [part for part in theirs if isinstance(part, Tensor)],
        [part for part in ours if isinstance(part, Tensor)],
    )
    for part in ours:
        if isinstance(part, Tensor):
            yield from likes.pairs(target, part)
        else:
            yield from gaps.pairs(target, part)


class _Likes:
    """What each tensor of the new file is compared with.

    The one of the same name, type and shape; else one with the same content; else, since exporters
    like to number what has no name, the next one of the same type and shape that nobody else is
    compared with; else one of the same name that has more or fewer rows.
    """

    def __init__(self, base: File, theirs: list[Tensor], ours: list[Tensor]) -> None:
        self._base = base
        self._digests: dict[Tensor, bytes] = {}
        self._by_length: dict[tuple[str, int], list[Tensor]] = defaultdict(list)
        for tensor in theirs:
            self._by_length[tensor.type, tensor.length].append(tensor)
        by_name = {(key, tensor.shape): tensor for key, tensor in _keyed(theirs)}
        self._same = {
            tensor: by_name[key, tensor.shape]
            for key, tensor in _keyed(ours)
            if (key, tensor.shape) in by_name
        }
        taken = set(self._same.values())
        free: dict[tuple[str, tuple[int, ...]], deque[Tensor]] = defaultdict(deque)
        for tensor in theirs:
            if tensor not in taken:
                free[tensor.type, tensor.shape].append(tensor)
        resized = dict(_keyed(theirs))
        self._other: dict[Tensor, Tensor] = {}
        for key, tensor in _keyed(ours):
            if tensor in self._same:
                continue
            if free[tensor.type, tensor.shape]:
                self._other[tensor] = free[tensor.type, tensor.shape].popleft()
            elif key in resized and resized[key].shape[1:] == tensor.shape[1:]:
                self._other[tensor] = resized[key]

    def pairs(self, target: File, tensor: Tensor) -> Iterator[Pair]:
        """Yield the tensor, or its parts, with what they are compared with."""
        found = self._same.get(tensor) or self._copy(target, tensor) or self._other.get(tensor)
        width, is_float = tensor.width, tensor.is_float
        common = min(tensor.length, found.length) if found else 0
        if found and common:
            yield Pair(tensor.start, common, found.start, width, is_float)
        if common < tensor.length:
            yield Pair(tensor.start + common, tensor.length - common, None, width, is_float)

    def _copy(self, target: File, tensor: Tensor) -> Tensor | None:
        """Return a tensor of another name with the same content."""
        candidates = self._by_length.get((tensor.type, tensor.length), [])
        if not candidates:
            return None
        wanted = _digest(target, tensor)
        for candidate in candidates:
            if candidate not in self._digests:
                self._digests[candidate] = _digest(self._base, candidate)
            if self._digests[candidate] == wanted:
                return candidate
        return None


def _keyed(tensors: list[Tensor]) -> Iterator[tuple[tuple[str, str, int], Tensor]]:
    """Yield tensors with name and type, and how many had the same before: branches repeat names."""
    seen: Counter[tuple[str, str]] = Counter()
    for tensor in tensors:
        yield (tensor.name, tensor.type, seen[tensor.name, tensor.type]), tensor
        seen[tensor.name, tensor.type] += 1


class _Gaps:
    """What lies between the base's tensors, by content, and the longest of it."""

    def __init__(self, base: File, gaps: list[Gap]) -> None:
        self._base = base
        self._by_content = {
            base.read(gap.start, gap.length): gap.start
            for gap in gaps
            if LEAST_GAP <= gap.length <= BLOCK
        }
        self._longest = max(gaps, key=lambda gap: gap.length, default=None)

    def pairs(self, target: File, gap: Gap) -> Iterator[Pair]:
        """Yield the gap, or its parts, with what they are compared with."""
        if LEAST_GAP <= gap.length <= BLOCK:
            offset = self._by_content.get(target.read(gap.start, gap.length))
            if offset is not None:
                yield Pair(gap.start, gap.length, offset)
                return
        found = None
        if gap.length >= SMALL:
            shifts = self._shifts(gap)
            found = unknown.layout(self._base, target, gap.start, gap.end, shifts)
        if found is None:
            yield Pair(gap.start, gap.length, None)
        else:
            yield from self._elements(gap, found)

    def _shifts(self, gap: Gap) -> set[int]:
        """Return where the base may have its like: what it has grown by is before it or behind."""
        like = self._longest
        return {like.start - gap.start, like.end - gap.end} if like else set()

    def _elements(self, gap: Gap, found: unknown.Layout) -> Iterator[Pair]:
        start = gap.start + found.phase
        end = gap.end - (gap.end - start) % found.width
        if found.phase:
            yield Pair(gap.start, found.phase, None)
        for place in range(start, end, BLOCK):
            length = min(BLOCK, end - place)
            offset = None if found.shift is None else place + found.shift
            if offset is not None and not 0 <= offset <= self._base.length - length:
                offset = None
            yield Pair(place, length, offset, found.width, is_float=found.width > 1)
        if end < gap.end:
            yield Pair(end, gap.end - end, None)


def _digest(file: File, tensor: Tensor) -> bytes:
    digest = hashlib.sha256()
    for block in file.blocks(tensor.start, tensor.end):
        digest.update(block)
    return digest.digest()
