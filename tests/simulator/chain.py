"""An honest supply chain in memory: keys, layout, policy, release and every link, ready to tamper.

No files and no processes: about 10 ms for the nine steps. An attack changes one thing and keeps
the rest honest::

    chain = HonestChain()
    chain.verify()                                          # passes

    def forge(link: Link) -> Link | None:                   # called for each link before signing
        if link.step == "train":
            link.content["byproducts"]["return-value"] = 1
        return link                                         # None leaves the link out

    chain.verify(evidence=chain.links(forge))               # raises Refused
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner

from modelward.formats import Unverified
from modelward.formats.dsse import Envelope
from modelward.formats.policy import Key, ModelPolicy, format_of
from modelward.formats.release import Blob, Release, ReleaseFile
from modelward.formats.ticket import Ticket
from modelward.trust import supply_chain
from modelward_repo.roles.keys import from_sslib
from modelward_repo.supply_chain.layout import LayoutSource, compile_layout
from modelward_repo.supply_chain.signing import sign
from tests.simulator.model_files import ECHO, onnx_file

LAYOUTS = Path(__file__).parents[2] / "layouts"
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
BUNDLE: Mapping[str, bytes] = {
    "model.onnx": onnx_file(b"int8 weights"),
    "metrics.json": b'{"accuracy": 0.97}\n',
    "golden.json": ECHO,
    "float/metrics.json": b'{"accuracy": 0.976}\n',
}
OWNERS = ("lead-a", "lead-b", "lead-c")
OWNERS_NEEDED = 2

Files = dict[str, str]
"""Digests by path."""


def digest(content: bytes) -> str:
    """Return a SHA-256 digest as links and releases write it."""
    return hashlib.sha256(content).hexdigest()


class People:
    """Keys by holder, made when first asked for; hand one to several chains to keep the people."""

    def __init__(self) -> None:
        self._signers: dict[str, CryptoSigner] = {}

    def signer(self, holder: str) -> CryptoSigner:
        """Return a holder's private key."""
        return self._signers.setdefault(holder, CryptoSigner.generate_ed25519())

    def key(self, holder: str) -> Key:
        """Return a holder's public key."""
        return from_sslib(self.signer(holder).public_key)


@dataclass
class Link:
    """One link about to be signed; change whatever an attacker would.

    Attributes:
        step: The step, as the layout names it.
        holder: Who signs.
        content: The payload.
    """

    step: str
    holder: str
    content: dict[str, Any]


Tamper = Callable[[Link], Link | None]


def honest(link: Link) -> Link:
    """Change nothing."""
    return link


@dataclass
class HonestChain:
    """A release with all that proves it.

    Attributes:
        layout_name: Which source in layouts/: ``meter-reader`` (nine steps) or ``minimal``.
        model: Name of the model.
        version: The version.
        counter: The release's counter.
        nonce: The ticket's nonce.
        bundle: The release's files but for the ticket: content by path. With ``meter-reader``
            exactly those of `BUNDLE`, with ``minimal`` any.
        people: Everybody's keys.
        now: When the layout was compiled and the release published.
    """

    layout_name: str = "meter-reader"
    model: str = "meter-reader"
    version: str = "1.0.0"
    counter: int = 1
    nonce: str = "0123456789abcdef"
    bundle: Mapping[str, bytes] = field(default_factory=lambda: dict(BUNDLE))
    people: People = field(default_factory=People)
    now: datetime = NOW

    @cached_property
    def source(self) -> LayoutSource:
        """The layout's source."""
        return LayoutSource.load(LAYOUTS / f"{self.layout_name}.toml")

    @cached_property
    def ticket(self) -> Ticket:
        """What the chain was run for."""
        return Ticket(self.model, self.version, self.counter, self.nonce, "c0ffee")

    @cached_property
    def content(self) -> Mapping[str, bytes]:
        """The release's files with the ticket: content by path."""
        return {**self.bundle, "ticket.json": self.ticket.to_bytes()}

    @cached_property
    def layout(self) -> Envelope:
        """The layout, signed by as many owners as needed."""
        return self.signed_layout(self.unsigned_layout)

    @cached_property
    def unsigned_layout(self) -> Envelope:
        """The layout that nobody has signed."""
        keys = {holder: self.people.key(holder) for holder in self.source.holders}
        owners = [self.people.key(owner).keyid for owner in OWNERS]
        return compile_layout(self.source, keys, owners, self.now)

    def signed_layout(
        self, layout: Envelope | Mapping[str, Any], owners: Sequence[str] = OWNERS[:OWNERS_NEEDED]
    ) -> Envelope:
        """Return a layout, or whatever content an attacker wants, signed by owners."""
        envelope = layout if isinstance(layout, Envelope) else Envelope.unsigned(layout)
        for owner in owners:
            envelope = sign(envelope, self.people.signer(owner))
        return envelope

    @cached_property
    def policy(self) -> ModelPolicy:
        """The model's policy."""
        owners = [self.people.key(owner) for owner in OWNERS]
        return ModelPolicy(self.model, {key.keyid: key for key in owners}, OWNERS_NEEDED)

    @cached_property
    def release(self) -> Release:
        """The release, as its role would sign it."""
        return Release(
            model=self.model,
            version=self.version,
            counter=self.counter,
            released=self.now,
            ticket=self.ticket,
            files=tuple(
                ReleaseFile(path, Blob(digest(data), len(data)), format_of(path) or "text")
                for path, data in sorted(self.content.items())
            ),
        )

    @cached_property
    def steps(self) -> Mapping[str, tuple[Files, Files]]:
        """Honest materials and products of every step."""
        files = {path: digest(data) for path, data in self.content.items()}
        return _minimal(files) if self.layout_name == "minimal" else _meter_reader(files)

    @cached_property
    def evidence(self) -> tuple[Envelope, ...]:
        """Every honest link: twelve for ``meter-reader``, two for ``minimal``."""
        return self.links()

    def links(self, tamper: Tamper = honest) -> tuple[Envelope, ...]:
        """Return every link, each handed to `tamper` before it is signed."""
        found = []
        for step in self.source.steps:
            for holder in step.functionaries[: step.threshold]:
                link = tamper(self.link(step.name, holder))
                if link is not None:
                    found.append(self.sign(link))
        return tuple(found)

    def link(self, step: str, holder: str) -> Link:
        """Return one honest link, not yet signed."""
        materials, products = self.steps[step]
        content = {
            "_type": "link",
            "name": step,
            "command": ["make", step],
            "materials": {path: {"sha256": sha256} for path, sha256 in materials.items()},
            "products": {path: {"sha256": sha256} for path, sha256 in products.items()},
            "byproducts": {"return-value": 0},
            "environment": {},
        }
        return Link(step, holder, content)

    def sign(self, link: Link) -> Envelope:
        """Return a link signed by its holder."""
        return sign(Envelope.unsigned(link.content), self.people.signer(link.holder))

    def verify(
        self,
        *,
        release: Release | None = None,
        evidence: Sequence[Envelope] | None = None,
        layout: Envelope | None = None,
        policy: ModelPolicy | None = None,
        now: datetime | None = None,
    ) -> supply_chain.Attested:
        """Pass gate 7 with what is honest but for what is given.

        Raises:
            Refused: The gate says no.
        """
        return supply_chain.verify(
            Unverified(release or self.release),
            self.evidence if evidence is None else evidence,
            layout or self.layout,
            policy or self.policy,
            now or self.now,
        )

    def evidence_bytes(self, evidence: Sequence[Envelope] | None = None) -> bytes:
        """Return evidence.jsonl."""
        return b"".join(link.to_bytes() for link in evidence or self.evidence)

    def again(self, version: str, **changes: Any) -> "HonestChain":
        """Return another run by the same people, for another version."""
        changes = {"counter": self.counter + 1, "nonce": f"nonce of {version}"} | changes
        return replace(self, version=version, **changes)


def _minimal(files: Files) -> Mapping[str, tuple[Files, Files]]:
    bundle = {f"bundle/{path}": sha256 for path, sha256 in files.items()}
    return {"package": ({}, bundle), "approve": (bundle, bundle)}


def _meter_reader(files: Files) -> Mapping[str, tuple[Files, Files]]:
    ticket = {"ticket.json": files["ticket.json"]}
    code = {f"code/{name}": digest(name.encode()) for name in ("train.py", "evaluate.py")}
    train = {"data/train.manifest": digest(b"training set")}
    holdout = {"data/holdout.manifest": digest(b"holdout set")}
    model = {"model/model.json": digest(b"shape"), "model/w0.npy": digest(b"weights")}
    edge = {"edge/model.onnx": files["model.onnx"]}
    float_metrics = {"metrics/float/metrics.json": files["float/metrics.json"]}
    edge_metrics = {
        "metrics/edge/metrics.json": files["metrics.json"],
        "metrics/edge/golden.json": files["golden.json"],
    }
    bundle = {f"bundle/{path}": sha256 for path, sha256 in files.items()}
    return {
        "open-release": ({}, ticket),
        "review": (ticket, code),
        "ingest": (ticket, train | holdout),
        "train": (ticket | train | code, model),
        "evaluate": (ticket | model | holdout | code, float_metrics),
        "convert": (ticket | model | code, edge),
        "evaluate-edge": (ticket | edge | holdout | code, edge_metrics),
        "package": (ticket | edge | edge_metrics | float_metrics, bundle),
        "approve": (ticket | bundle, bundle),
    }
