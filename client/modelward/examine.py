"""Gates 6 to 8: may this release be installed? Decided before any of its weights is fetched.

A publisher runs the very same function before it publishes, so that what a device would refuse
cannot be published.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime

from modelward.errors import FormatError, Gate, Refused
from modelward.formats import Unverified, dsse, strict
from modelward.formats import policy as policies
from modelward.formats import release as releases
from modelward.formats.policy import FleetPolicy, ModelPolicy
from modelward.formats.release import Blob, Release, ReleaseFile
from modelward.trust import model_format, requirements, supply_chain
from modelward.trust import policy as trust_policy
from modelward.trust.repository import Repository
from modelward.trust.supply_chain import Attested

OpenReader = AbstractContextManager[model_format.Reader]
"""A file that is open for as long as it is looked into."""

_PLAIN = frozenset(("json", "text", "signature"))
SMALL_FILE = 4 << 20  # bytes: the most that a file read by gate 8 may have


@dataclass(frozen=True)
class Examined:
    """A release that passed gates 6 to 8.

    Attributes:
        attested: The release and the proof of how it was made.
        document: Its release.json, as signed.
        evidence: The documents that prove it, by file name; kept for `explain`.
        findings: What each gate found, for people.
    """

    attested: Attested
    document: bytes
    evidence: Mapping[str, bytes]
    findings: tuple[tuple[Gate, str], ...]

    @property
    def release(self) -> Release:
        """The release."""
        return self.attested.release


def examine(  # noqa: PLR0913 - the publisher calls this too: nothing may be implied
    repository: Repository,
    fleet: FleetPolicy,
    model: str,
    version: str,
    *,
    fetch_blob: Callable[[Blob], bytes],
    facts: requirements.Facts | None,
    floor: int,
    now: datetime,
) -> Examined:
    """Take one release through gates 6 to 8, before any of its weights is fetched.

    Args:
        repository: The repository, refreshed.
        fleet: Policy for the fleet.
        model: The model.
        version: The version.
        fetch_blob: Returns a small blob's content, verified. Not called before gate 7 is passed.
        facts: What the device is; None to skip the device's own requirements.
        floor: The least counter to accept.
        now: Trusted time.

    Raises:
        Refused: A gate said no.
        Unavailable: Something could not be had.
    """
    # 6. Release: is this the release, is it new enough, does it fit this device?
    with at_gate(Gate.RELEASE):
        path = releases.target_path(model, version)
        document = required(repository, path, releases.CAP)
        claimed = Unverified(Release.parse(document))
        _check_identity(claimed.claims, model, version, floor)
        if facts is not None:
            requirements.check(claimed.claims.requires, facts)
        evidence = required(repository, releases.evidence_path(model, version), dsse.EVIDENCE_CAP)
    findings = [(Gate.RELEASE, _release_detail(claimed.claims))]

    # 7. Supply chain: was every step done by whom the layout names?
    with at_gate(Gate.SUPPLY_CHAIN):
        policy_bytes = required(repository, policies.model_policy_path(model), policies.CAP)
        layout = required(repository, policies.layout_path(model), dsse.ENVELOPE_CAP)
        policy = ModelPolicy.parse(policy_bytes)
        if policy.model != model:
            raise Refused(Gate.SUPPLY_CHAIN, f"the policy of {model} is one of {policy.model}")
        attested = supply_chain.verify(
            claimed,
            dsse.parse_evidence(evidence),
            dsse.Envelope.parse("layout", layout),
            policy,
            now,
        )
    findings.append((Gate.SUPPLY_CHAIN, _chain_detail(attested)))

    # 8. Policy: formats, metrics, signature.
    with at_gate(Gate.POLICY):
        release = attested.release
        content = {}
        for name in trust_policy.small_files(release, policy):
            file = release.file(name)
            if file is not None:
                _check_small(name, file.blob)
                content[name] = fetch_blob(file.blob)
        trust_policy.check(release, fleet, policy, content)
    findings.append((Gate.POLICY, _policy_detail(policy, content)))
    documents = {"evidence.jsonl": evidence, "layout.json": layout, "policy.json": policy_bytes}
    return Examined(attested, document, documents, tuple(findings))


def look_inside(release: Release, open_file: Callable[[ReleaseFile], OpenReader]) -> str:
    """Walk every file of a release: the rest of gate 8, as soon as the bytes are here.

    Args:
        release: The release.
        open_file: Opens one of its files.

    Returns:
        What the files hold, for people.

    Raises:
        FormatError: A file is not what its suffix says, or lies about what it holds (attack row
            24).
        OSError: A file cannot be read.
    """
    found = []
    with at_gate(Gate.POLICY):
        for file in release.files:
            with open_file(file) as reader:
                held = model_format.check(file.format, reader)
            if file.format not in _PLAIN:
                found.append(f"{file.path} holds {held}")
    return "; ".join((*found, "every file is what its suffix says"))


@contextmanager
def at_gate(gate: Gate) -> Iterator[None]:
    """Fill in which gate read a document that broke its format."""
    try:
        yield
    except FormatError as error:
        error.gate = error.gate or gate
        raise


def required(repository: Repository, path: str, cap: int) -> bytes:
    """Return a target that must be there.

    Raises:
        Refused: No role vouches for it, or it is not valid.
        Unavailable: It could not be fetched.
    """
    data = repository.target(path, cap)
    if data is None:
        raise Refused(
            Gate.METADATA,
            f"no role of the repository vouches for {path}",
            "whoever publishes must publish it, or correct what refers to it",
        )
    return data


def _check_identity(release: Release, model: str, version: str, floor: int) -> None:
    if (release.model, release.version) != (model, version):
        # Attack row 10: a valid release, served under another's name.
        raise Refused(
            Gate.RELEASE,
            f"the release of {model} {version} says that it is {release.model} {release.version}",
            "tell whoever publishes this model",
        )
    if release.counter < floor:
        raise Refused(
            Gate.RELEASE,
            f"{model} {version} has the counter {release.counter}, but this device accepts only "
            f"{floor} and above",
            "an older release cannot be installed again; publish it anew as a newer one",
        )


def _check_small(name: str, blob: Blob) -> None:
    if blob.length > SMALL_FILE:
        raise Refused(
            Gate.POLICY, f"{name!r} is {blob.length} bytes long, at most {SMALL_FILE} may be"
        )


def _release_detail(release: Release) -> str:
    return f"counter {release.counter}, {len(release.files)} files, {release.length} bytes"


def _chain_detail(attested: Attested) -> str:
    chain = attested.chain
    links = sum(len(step.functionaries) for step in chain.steps)
    return (
        f"{len(chain.steps)} steps proven by {links} signed links; layout signed by "
        f"{len(chain.owners)} owners ({chain.owner_threshold} needed), "
        f"valid until {strict.rfc3339(chain.expires)}"
    )


def _policy_detail(policy: ModelPolicy, content: Mapping[str, bytes]) -> str:
    met = trust_policy.describe_metrics(policy.metrics, content)
    signed = "; OpenSSF model signature valid" if policy.signers else ""
    return f"formats allowed; {met or 'no metric is gated on'}{signed}"
