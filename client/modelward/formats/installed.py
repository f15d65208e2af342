"""installed.json: what one generation of a device consists of."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from modelward.formats import strict
from modelward.formats.names import check_name, check_version

DOCUMENT = "installed.json"
SCHEMA = "modelward/installed/1"
CAP = 16 << 20
SLOT_DIGITS = 16


@dataclass(frozen=True)
class Slot:
    """One installed release.

    Attributes:
        version: Its version.
        counter: Its counter.
        sha256: Digest of its release.json, which names every file by digest.
    """

    version: str
    counter: int
    sha256: str

    @property
    def name(self) -> str:
        """The slot's directory name."""
        return self.sha256[:SLOT_DIGITS]

    @classmethod
    def read(cls, fields: strict.Fields) -> "Slot":
        """Read a slot.

        Raises:
            FormatError: It is ill-formed.
        """
        return cls(
            fields.checked("version", check_version),
            fields.integer("counter"),
            fields.sha256("release"),
        )

    def to_dict(self) -> dict[str, object]:
        """Return the slot as a JSON object."""
        return {"version": self.version, "counter": self.counter, "release": self.sha256}


@dataclass(frozen=True)
class Installed:
    """What a generation consists of.

    Attributes:
        number: The generation; 0 before anything was installed.
        active: Per model, the slot in use.
        previous: Per model, the slot to fall back to, where there is one.
    """

    number: int = 0
    active: Mapping[str, Slot] = field(default_factory=dict)
    previous: Mapping[str, Slot] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> "Installed":
        """Parse installed.json.

        Raises:
            FormatError: It is ill-formed.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        return cls(
            number=fields.integer("generation"),
            active=read_slots(fields.fields("active")),
            previous=read_slots(fields.fields("previous")),
        )

    def to_bytes(self) -> bytes:
        """Return the document."""
        return strict.dump(
            {
                "schema": SCHEMA,
                "generation": self.number,
                "active": {model: slot.to_dict() for model, slot in self.active.items()},
                "previous": {model: slot.to_dict() for model, slot in self.previous.items()},
            }
        )

    def with_releases(
        self, releases: Mapping[str, Slot], revoked: Collection[str] = ()
    ) -> "Installed":
        """Return the next generation, in which these models run these slots.

        What they replace is kept, but for what is revoked: what was kept before stays, then.

        Args:
            releases: The slots by model.
            revoked: Digests of releases that are revoked.
        """
        active = dict(self.active)
        previous = dict(self.previous)
        for model, slot in releases.items():
            if model in active and active[model] != slot and active[model].sha256 not in revoked:
                previous[model] = active[model]
            active[model] = slot
        return Installed(self.number + 1, active, previous).without(revoked)

    def without(self, revoked: Collection[str]) -> "Installed":
        """Return the same, with nothing kept that is revoked.

        Args:
            revoked: Digests of releases that are.
        """
        kept = {model: slot for model, slot in self.previous.items() if slot.sha256 not in revoked}
        return Installed(self.number, self.active, kept)

    def going_back(self, releases: Mapping[str, Slot]) -> "Installed":
        """Return the next generation, in which these run again. What they replace is not kept.

        It was revoked: to fall back to it would be worse than to have nothing.
        """
        left = {model for model, slot in releases.items() if self.active.get(model) != slot}
        previous = {model: slot for model, slot in self.previous.items() if model not in left}
        return Installed(self.number + 1, {**self.active, **releases}, previous)

    def slots(self) -> tuple[tuple[str, Slot], ...]:
        """Return every slot that runs or is kept, with its model."""
        return (*self.active.items(), *self.previous.items())

    def is_as(self, other: "Installed") -> bool:
        """Tell whether the same runs and is kept, whatever the numbers."""
        return (self.active, self.previous) == (other.active, other.previous)

    def changed_since(self, other: "Installed") -> dict[str, Slot]:
        """Return the slots that run here and did not run in another generation."""
        return {
            model: slot for model, slot in self.active.items() if other.active.get(model) != slot
        }


def read_slots(fields: strict.Fields) -> dict[str, Slot]:
    """Read slots by model.

    Raises:
        FormatError: One is ill-formed.
    """
    found = {}
    for model in fields.raw:
        try:
            check_name(model)  # it becomes a directory
        except ValueError as error:
            raise fields.wrong(model, str(error)) from error
        found[model] = Slot.read(fields.fields(model))
    return found
