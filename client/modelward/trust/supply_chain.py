"""Gate 7: in-toto. Was every step from data to package done by whom the layout names?

The order is the specification's (in-toto 5.2 step 6 ff.): the layout's owners, its expiry, the
links (`modelward.trust.links`), and at last that the release is what the chain approved (attack
rows 13, 14, 20, 21, 23).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from modelward.errors import FormatError, Gate, Refused
from modelward.formats import Unverified, strict
from modelward.formats.dsse import Envelope
from modelward.formats.policy import ModelPolicy
from modelward.formats.release import Release
from modelward.formats.ticket import FILE as TICKET_FILE
from modelward.trust.layout import FINAL_STEP, Layout, match_rule, problems
from modelward.trust.links import (
    Artifacts,
    Links,
    read_artifacts,
    refused,
    signed_by,
    verify_links,
)

BUNDLE = "bundle/"


@dataclass(frozen=True)
class StepRecord:
    """One step as it was done.

    Attributes:
        name: The step.
        threshold: How many functionaries the layout demands.
        functionaries: Key ids whose evidence counted.
        materials: What went in: digests by path.
        products: What came out: digests by path.
    """

    name: str
    threshold: int
    functionaries: tuple[str, ...]
    materials: Artifacts
    products: Artifacts


@dataclass(frozen=True)
class Chain:
    """A verified supply chain.

    Attributes:
        owners: Key ids of the layout's owners whose signatures counted.
        owner_threshold: How many the policy demands.
        expires: When the layout expires.
        steps: Every step, in the layout's order.
        matches: Which step's files each step took: (taker, giver) pairs.
    """

    owners: tuple[str, ...]
    owner_threshold: int
    expires: datetime
    steps: tuple[StepRecord, ...]
    matches: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Attested:
    """A release whose every file is proven to come out of its supply chain.

    Attributes:
        release: The release, no longer only claimed.
        chain: The proof, for `explain`.
    """

    release: Release
    chain: Chain


def verify(
    release: Unverified[Release],
    evidence: Sequence[Envelope],
    layout: Envelope,
    policy: ModelPolicy,
    now: datetime,
) -> Attested:
    """Verify that the release's files are exactly what its supply chain approved.

    Args:
        release: What the release role claims.
        evidence: Every link of the release.
        layout: The model's layout.
        policy: The model's policy: who owns the layout.
        now: The time to judge expiry by.

    Raises:
        Refused: Anything does not hold.
        FormatError: The layout or a link is ill-formed.
    """
    chain = verify_chain(evidence, layout, policy, now)
    _check_products(release.claims, chain.steps[-1].products)
    return Attested(release.claims, chain)


def verify_chain(
    evidence: Sequence[Envelope], layout: Envelope, policy: ModelPolicy, now: datetime
) -> Chain:
    """Verify layout and links, whatever they may be the evidence of.

    Raises:
        Refused: Anything does not hold.
        FormatError: The layout or a link is ill-formed.
    """
    owners = verify_owners(layout, policy)
    checked = read_layout(layout, policy, now)
    return _chain(verify_links(evidence, checked), checked, owners, policy)


def verify_owners(layout: Envelope, policy: ModelPolicy) -> tuple[str, ...]:
    """Return the owners who signed the layout, at least the policy's threshold of them.

    Raises:
        Refused: Too few valid signatures (attack row 23).
    """
    signed = tuple(
        keyid
        for keyid in sorted(layout.signatures)
        if keyid in policy.owners and signed_by(layout, policy.owners[keyid])
    )
    if len(signed) < policy.threshold:
        raise Refused(
            Gate.SUPPLY_CHAIN,
            f"the layout is signed by {len(signed)} of its owners, "
            f"but {policy.threshold} of {len(policy.owners)} must sign",
            "have the missing owners sign with `modelward-repo layout sign`",
        )
    return signed


def read_layout(layout: Envelope, policy: ModelPolicy, now: datetime) -> Layout:
    """Return the layout, well-formed and in force.

    Raises:
        Refused: It has expired, or an owner is also a functionary.
        FormatError: It is ill-formed or proves nothing.
    """
    checked = Layout.from_content(layout.content)
    if now >= checked.expires:
        raise Refused(
            Gate.SUPPLY_CHAIN,
            f"the layout expired at {strict.rfc3339(checked.expires)}",
            "its owners must sign a new one with `modelward-repo layout sign`",
        )
    for where, problem in problems(checked, policy.owners.values()):
        raise FormatError("layout", where, problem)
    return checked


def _chain(links: Links, layout: Layout, owners: tuple[str, ...], policy: ModelPolicy) -> Chain:
    records = []
    matches: dict[tuple[str, str], None] = {}
    for step in layout.steps:
        by_key = links[step.name]
        materials, products = read_artifacts(next(iter(by_key.values())))
        records.append(
            StepRecord(
                name=step.name,
                threshold=step.threshold,
                functionaries=tuple(sorted(by_key)),
                materials=materials,
                products=products,
            )
        )
        for rule in (*step.materials, *step.products):
            if rule[0] == "MATCH" and match_rule(rule).step != step.name:
                matches[step.name, match_rule(rule).step] = None
    return Chain(owners, policy.threshold, layout.expires, tuple(records), tuple(matches))


def _check_products(release: Release, approved: Artifacts) -> None:
    """Require that the release is what was approved: every file, no other file, this ticket."""
    outside = sorted(path for path in approved if not path.startswith(BUNDLE))
    if outside:
        raise refused(f"the step {FINAL_STEP!r} approved {outside[0]!r} outside of {BUNDLE}")
    expected = {path.removeprefix(BUNDLE): digest for path, digest in approved.items()}
    claimed = {file.path: file.blob.sha256 for file in release.files}
    for path in sorted(expected.keys() | claimed.keys()):
        if path not in expected:
            raise refused(f"the release has a file {path!r} that nobody approved")
        if path not in claimed:
            raise refused(f"the release lacks the approved file {path!r}")
        if expected[path] != claimed[path]:
            raise refused(f"the release's {path!r} is not the file that was approved")
    if expected.get(TICKET_FILE) != release.ticket.sha256():
        # Honest evidence of another release must not vouch for this one.
        raise refused(
            f"the evidence was not made for {release.model} {release.version}: its {TICKET_FILE} "
            "is another one"
        )
