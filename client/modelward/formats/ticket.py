"""ticket.json: what a supply chain was run *for*, decided before its first step.

Every step of a pipeline takes the ticket as a material, so that evidence made for one release
can never be presented as evidence for another, nor for a later one of the same version (attack
rows 13 and 21). The release repeats the ticket; a device rebuilds the ticket's bytes from it and
compares their digest with the attested one, so that it needs no download to know which model,
version and place in their order was approved (docs/adr/0001).
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from modelward.formats import strict
from modelward.formats.names import check_name, check_version

DOCUMENT = "ticket.json"
FILE = "ticket.json"
SCHEMA = "modelward/ticket/1"
CAP = 4096


@dataclass(frozen=True)
class Ticket:
    """One run of a supply chain.

    Attributes:
        model: Name of the model.
        version: The version this run is to become.
        counter: Its place in the order of the model's releases, from 1: what rollback is judged
            by. It is here because here it is attested.
        nonce: Makes two runs for the same version distinguishable.
        commit: The reviewed revision of the training code; empty where there is none.
    """

    model: str
    version: str
    counter: int
    nonce: str
    commit: str = ""

    @classmethod
    def parse(cls, data: bytes) -> "Ticket":
        """Parse the bytes of a ticket file.

        Raises:
            FormatError: Not a ticket, or not spelt the one way a ticket is spelt.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        ticket = cls.from_fields(fields)
        if ticket.to_bytes() != data:
            raise fields.wrong("", "is not in canonical form; create it with `modelward-repo`")
        return ticket

    @classmethod
    def from_fields(cls, fields: strict.Fields) -> "Ticket":
        """Read a ticket that is part of another document."""
        fields.schema(SCHEMA)
        return cls(
            model=fields.checked("model", check_name),
            version=fields.checked("version", check_version),
            counter=fields.integer("counter", least=1),
            nonce=fields.text("nonce", most=128),
            commit=fields.text("commit", most=128),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the ticket as a JSON object."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "version": self.version,
            "counter": self.counter,
            "nonce": self.nonce,
            "commit": self.commit,
        }

    def to_bytes(self) -> bytes:
        """Return the one spelling of this ticket."""
        return strict.dump(self.to_dict())

    def sha256(self) -> str:
        """Return the digest of the ticket's file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()
