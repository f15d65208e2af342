"""The `x-log` object of root.json: whose log, which witnesses, and how many of them.

Only root's threshold can change it. The quorum is the one of c2sp.org/tlog-policy, as JSON:
`"none"`, one witness's name, or a group `{"threshold": 2, "members": ["a", "b", {...}]}`.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelward.formats import strict
from modelward.formats.note import SignatureType, VerifierKey

FIELD = "x-log"
DOCUMENT = f"root.json: {FIELD}"
MAX_WITNESSES = 32
MAX_DEPTH = 4  # groups within groups
NONE = "none"
_LOG_TYPES = (SignatureType.ED25519, SignatureType.COSIGNATURE_ML_DSA_44)
_WITNESS_TYPES = (SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_ML_DSA_44)


@dataclass(frozen=True)
class Group:
    """Witnesses and groups of them, of which some must have cosigned.

    Attributes:
        threshold: How many.
        members: Names of witnesses, and groups.
    """

    threshold: int
    members: "tuple[str | Group, ...]"

    def is_met(self, cosigned: Collection[str]) -> bool:
        """Tell whether these witnesses are a quorum."""
        return self.threshold <= sum(
            member.is_met(cosigned) if isinstance(member, Group) else member in cosigned
            for member in self.members
        )

    def names(self) -> Iterator[str]:
        """Yield the witnesses, those of inner groups too."""
        for member in self.members:
            if isinstance(member, Group):
                yield from member.names()
            else:
                yield member

    def to_dict(self) -> dict[str, Any]:
        """Return the group as a JSON object."""
        return {
            "threshold": self.threshold,
            "members": [
                member.to_dict() if isinstance(member, Group) else member for member in self.members
            ],
        }

    def __str__(self) -> str:
        return f"{self.threshold} of {{{', '.join(map(str, self.members))}}}"


@dataclass(frozen=True)
class LogPolicy:
    """Which log a device believes, and who must have seen what it was shown.

    Attributes:
        vkey: The log's key; its name is the log's origin.
        witnesses: The witnesses' keys, by the names that the quorum uses.
        quorum: Who must have cosigned; None for nobody.
    """

    vkey: VerifierKey
    witnesses: Mapping[str, VerifierKey]
    quorum: Group | None

    @classmethod
    def parse(cls, value: Any) -> "LogPolicy":
        """Parse the object. Unknown fields are ignored.

        Raises:
            FormatError: Ill-formed; a key appears twice; or the quorum names a witness that is
                not listed, names one twice, or can never be met.
        """
        fields = strict.Fields(DOCUMENT, value)
        vkey = _key(fields, "vkey", _LOG_TYPES)
        inner = fields.fields("witnesses")
        if len(inner.raw) > MAX_WITNESSES:
            raise fields.wrong("witnesses", f"are more than {MAX_WITNESSES}")
        witnesses: dict[str, VerifierKey] = {}
        # One key under two names would be counted twice (tlog-policy); so would a log that is
        # its own witness.
        seen = {vkey.public_key: "the log"}
        for name in inner.raw:
            if not name or name == NONE or not name.isprintable():
                raise inner.wrong(name, "is not a name for a witness")
            key = _key(inner, name, _WITNESS_TYPES)
            if key.public_key in seen:
                raise inner.wrong(name, f"has the same key as {seen[key.public_key]}")
            seen[key.public_key] = name
            witnesses[name] = key
        return cls(vkey, witnesses, _quorum(fields, witnesses))

    def to_dict(self) -> dict[str, Any]:
        """Return the object."""
        return {
            "vkey": str(self.vkey),
            "witnesses": {name: str(key) for name, key in self.witnesses.items()},
            "quorum": self.quorum.to_dict() if self.quorum else NONE,
        }

    @property
    def origin(self) -> str:
        """Which log: the first line of its checkpoints."""
        return self.vkey.name

    def is_quorum(self, cosigned: Collection[str]) -> bool:
        """Tell whether these witnesses, by name, are enough."""
        return self.quorum is None or self.quorum.is_met(cosigned)


def _key(fields: strict.Fields, name: str, types: Collection[SignatureType]) -> VerifierKey:
    key = VerifierKey.parse(fields.text(name, most=4096), DOCUMENT, fields.at(name))
    if key.type not in types:
        raise fields.wrong(name, f"must not be a key of signature type {key.type:#04x}")
    return key


def _quorum(fields: strict.Fields, witnesses: Collection[str]) -> Group | None:
    value = fields.any("quorum")
    if value == NONE:
        return None
    # A single witness is a group of one.
    group = (
        Group(1, (fields.text("quorum"),))
        if isinstance(value, str)
        else _group(fields.fields("quorum"), depth=1)
    )
    seen: set[str] = set()
    for name in group.names():
        if name not in witnesses:
            raise fields.wrong("quorum", f"names {name[:80]!r}, which is not a witness")
        if name in seen:
            raise fields.wrong("quorum", f"names {name[:80]!r} twice")
        seen.add(name)
    return group


def _group(fields: strict.Fields, depth: int) -> Group:
    if depth > MAX_DEPTH:
        raise fields.wrong("", f"is nested deeper than {MAX_DEPTH} groups")
    members: list[str | Group] = []
    for index, member in enumerate(fields.items("members", most=MAX_WITNESSES)):
        if isinstance(member, str):
            members.append(member)
        else:
            field = f"{fields.at('members')}[{index}]"
            members.append(_group(strict.Fields(DOCUMENT, member, field), depth + 1))
    if not members:
        raise fields.wrong("members", "must not be empty")
    return Group(fields.integer("threshold", least=1, most=len(members)), tuple(members))
