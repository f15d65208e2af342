"""Watching a log for as long as the machine runs: a log that nobody reads keeps nobody honest.

Each round reads what was logged since the last one, proves that the log only grew, and says what
is new. New releases are news. A changed root, a key that nobody has seen before, a release that
changed after the fact, or a log that contradicts itself is an alarm.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuf.api.metadata import Metadata, Root, Snapshot, Targets

from modelward.errors import FormatError, Gate, Refused
from modelward.formats import strict
from modelward.formats.leaf import Leaf
from modelward.formats.log_state import CAP as STATE_CAP
from modelward.formats.log_state import LogState
from modelward.trust.merkle import Frontier, leaf_hash
from modelward_repo.log.reader import METADATA_CAP, LogReader, read_repository
from modelward_repo.publish.target import Source

DOCUMENT = "monitor state"
SCHEMA = "modelward/log-monitor/1"
_CAP = 4 * STATE_CAP
_RELEASE = "release.json"


@dataclass(frozen=True)
class Event:
    """Something that was logged.

    Attributes:
        index: By which leaf.
        text: What, for people.
        alarm: Whether somebody should look into it now.
    """

    index: int
    text: str
    alarm: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"index": self.index, "event": self.text, "alarm": self.alarm}

    def __str__(self) -> str:
        return f"{'ALARM: ' if self.alarm else ''}leaf {self.index}: {self.text}"


@dataclass(frozen=True)
class Memory:
    """What a monitor remembers between rounds.

    Attributes:
        state: The newest tree it has read, as a device remembers it.
        leaf: That tree's last leaf.
    """

    state: LogState
    leaf: Leaf

    @classmethod
    def parse(cls, data: bytes) -> "Memory":
        """Parse what `to_bytes` wrote.

        Raises:
            FormatError: It is something else.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, _CAP))
        fields.schema(SCHEMA)
        texts = [fields.any(name) for name in ("state", "leaf")]
        if not all(isinstance(text, str) for text in texts):
            raise FormatError(DOCUMENT, "", "must be two texts")
        state, leaf = (text.encode() for text in texts)
        return cls(LogState.parse(state), Leaf.parse(leaf))

    def to_bytes(self) -> bytes:
        """Return the file."""
        return strict.dump(
            {
                "schema": SCHEMA,
                "state": self.state.to_bytes().decode(),
                "leaf": self.leaf.to_bytes().decode(),
            }
        )


@dataclass(frozen=True)
class Round:
    """One look at a log.

    Attributes:
        memory: What to remember.
        events: What is new, in the order it was logged.
        size: Leaves of the log.
    """

    memory: Memory
    events: tuple[Event, ...]
    size: int


def look(source: Source, memory: Memory | None) -> Round:
    """Read what is new in a log.

    Args:
        source: The repository, and the root to trust.
        memory: What the last look remembered; None to read the log from its first leaf.

    Raises:
        SplitView: The log contradicts what was seen before; the evidence is attached.
        Refused: What the repository shows is not in its log, or something is not valid.
        Unavailable: Something could not be fetched, or too few witnesses cosigned.
    """
    reader = LogReader(source)
    with read_repository(source) as (_, shown):
        # The same eyes as a device's, so that both see the same.
        verified = shown.verify(reader, memory.state if memory else None)
        new = verified.state
        same = memory is not None and memory.state.log == new.log
        old = memory if same else None
        begin = old.state.signed.checkpoint.size if old else 0
        tree = new.signed.checkpoint
        grown = Frontier(begin, old.state.frontier) if old else Frontier()
        events: list[Event] = []
        if memory and not same:
            events.append(Event(0, "root names a new log", alarm=True))
        last = old.leaf if old else None
        before = _Documents.of(reader, last) if last else None
        for index, entry in enumerate(reader.entries(begin, tree.size), begin):
            grown = grown.append(leaf_hash(entry))
            leaf = Leaf.parse(entry)
            now = _Documents.of(reader, leaf)
            if before is None:
                events += now.describe(index)
            else:
                events += now.compare(before, index)
            last, before = leaf, now
        if grown.root() != tree.root or last is None:
            raise Refused(
                Gate.LOG,
                f"the leaves that the log {tree.origin} shows are not those that it signed",
                "its files are damaged, or somebody keeps leaves from you: read another mirror",
            )
    return Round(Memory(new, last), tuple(events), tree.size)


@dataclass(frozen=True)
class _Documents:
    """What one leaf stands for."""

    leaf: Leaf
    root: Root
    roles: Mapping[str, tuple[int, str]]  # version and digest
    reader: LogReader

    @classmethod
    def of(cls, reader: LogReader, leaf: Leaf) -> "_Documents":
        root = Metadata[Root].from_bytes(reader.document(leaf.root.sha256)).signed
        snapshot = Metadata[Snapshot].from_bytes(reader.document(leaf.snapshot.sha256)).signed
        roles = {
            name.removesuffix(".json"): (meta.version, (meta.hashes or {}).get("sha256", ""))
            for name, meta in snapshot.meta.items()
        }
        return cls(leaf, root, roles, reader)

    def targets(self, role: str) -> Targets:
        """Return a targets role as the snapshot lists it."""
        version, _ = self.roles[role]
        path = f"metadata/{version}.{role}.json"
        return Metadata[Targets].from_bytes(self.reader.fetch(path, METADATA_CAP)).signed

    def keys(self) -> dict[str, str]:
        """Return every key that may sign as some role, and one such role."""
        found = {keyid: name for name, role in self.root.roles.items() for keyid in role.keyids}
        delegations = self.targets(Targets.type).delegations
        for name, role in ((delegations.roles if delegations else None) or {}).items():
            found |= dict.fromkeys(role.keyids, name)
        return found

    def describe(self, index: int) -> Iterator[Event]:
        """Yield what there is: the first of all leaves has nothing before it."""
        yield Event(index, f"begins: {self._versions()}; {len(self.keys())} keys")
        for role in self.roles:
            for path in self.targets(role).targets:
                if path.endswith(f"/{_RELEASE}"):
                    yield Event(index, f"new release: {_release(path)}")

    def compare(self, before: "_Documents", index: int) -> Iterator[Event]:
        """Yield what changed."""
        if self.leaf.root != before.leaf.root:
            versions = f"{before.leaf.root.version} to {self.leaf.root.version}"
            yield Event(index, f"root changed, from version {versions}", alarm=True)
        changed = [role for role in self.roles if self.roles[role] != before.roles.get(role)]
        if Targets.type in changed or self.leaf.root != before.leaf.root:
            old, new = before.keys(), self.keys()
            for keyid in new.keys() - old.keys():
                yield Event(index, f"unexpected key {keyid} signs as {new[keyid]}", alarm=True)
            for keyid in old.keys() - new.keys():
                yield Event(index, f"key {keyid} no longer signs as {old[keyid]}")
        for role in before.roles.keys() - self.roles.keys():
            yield Event(index, f"the role {role} is gone", alarm=True)
        for role in changed:
            was = before.targets(role).targets if role in before.roles else {}
            events = list(self._targets(role, was, index))
            yield from events or [Event(index, f"{role}: signed anew")]
        if not changed and self.leaf.root == before.leaf.root:
            yield Event(index, f"signed anew: {self._versions()}")

    def _targets(self, role: str, was: Mapping[str, Any], index: int) -> Iterator[Event]:
        now = self.targets(role).targets
        for path in now.keys() - was.keys():
            release = path.endswith(f"/{_RELEASE}")
            if release or not path.startswith("models/"):
                yield Event(
                    index, f"new release: {_release(path)}" if release else f"{role}: new {path}"
                )
        for path in now.keys() & was.keys():
            if now[path].hashes != was[path].hashes:
                # A published release never changes.
                yield Event(index, f"{role}: {path} changed", alarm=path.startswith("models/"))
        for path in was.keys() - now.keys():
            yield Event(index, f"{role}: {path} is gone", alarm=True)

    def _versions(self) -> str:
        leaf = self.leaf
        return f"root {leaf.root.version}, snapshot {leaf.snapshot.version}"


def _release(path: str) -> str:
    return " ".join(path.split("/")[1:-1])
