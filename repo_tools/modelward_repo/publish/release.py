"""Publishing a release, through the very gates that a device will hold it against."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Signer

from modelward.errors import FormatError, Gate, UsageError
from modelward.examine import examine, look_inside
from modelward.formats import policy as policies
from modelward.formats import release as releases
from modelward.formats.policy import FleetPolicy
from modelward.formats.release import Release, Requirements
from modelward.trust.requirements import satisfies
from modelward_repo.publish import blobs
from modelward_repo.publish.bundle import Bundle, Meter
from modelward_repo.publish.prepare import Options, Prepared, Preparer
from modelward_repo.publish.prepare.pool import Watch
from modelward_repo.publish.prepare.routes import Route, routes
from modelward_repo.publish.refresh import resume
from modelward_repo.publish.signing import online_signers, role_signers
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.roles.keys import Passphrase
from modelward_repo.roles.policy import role_name
from modelward_repo.storage import Storage
from modelward_repo.supply_chain.hasher import Progress, no_progress

SIGNATURE = "model.sig"
GOLDEN = "golden.json"
_RELEASE_PATH = re.compile(r"models/[^/]+/([^/]+)/release\.json")


@dataclass(frozen=True)
class Request:
    """What is to be published.

    Attributes:
        model: Name of the model.
        version: The version.
        bundle: Its files.
        evidence: The content of evidence.jsonl.
        requires: What a device must have.
    """

    model: str
    version: str
    bundle: Bundle
    evidence: bytes
    requires: Requirements = field(default_factory=Requirements)


@dataclass(frozen=True)
class Keys:
    """What signs a release. No other private key is read to publish.

    Attributes:
        release: Signers of the model's role.
        online: Signers of snapshot and timestamp.
    """

    release: Sequence[Signer]
    online: Online

    @classmethod
    def load(
        cls, storage: Storage, model: str, keys: Path, passphrase: Passphrase, now: datetime
    ) -> "Keys":
        """Load them from a folder of holders.

        Raises:
            UsageError: They are not there, or the repository has no such model.
        """
        staging = Staging.of(storage, now)
        return cls(
            role_signers(staging, role_name(model), keys, passphrase),
            online_signers(staging, keys, passphrase),
        )


@dataclass(frozen=True)
class Published:
    """What publishing did, or would do.

    Attributes:
        release: The release.
        findings: What each gate found, for people.
        already: Whether it had been published before, so that nothing was done.
        routes: What devices will fetch.
    """

    release: Release
    findings: tuple[tuple[Gate, str], ...] = ()
    already: bool = False
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True)
class Preparation:
    """How to make a release cheap to fetch, and who is told how that goes on."""

    options: Options
    watch: Watch


def no_meter(_label: str) -> AbstractContextManager[Progress]:
    """Show nothing."""
    return nullcontext(no_progress)


def publish(  # noqa: PLR0913 - what, where, signed by whom, when, shown how
    storage: Storage,
    request: Request,
    keys: Keys,
    now: datetime,
    *,
    meter: Meter = no_meter,
    dry_run: bool = False,
    preparation: Preparation | None = None,
) -> Published:
    """Publish a release, or refuse what a device would refuse.

    Blobs are written first, without keeping other publishers waiting. What happened meanwhile is
    then taken into account: the release is staged and judged anew under the repository's lock.

    Args:
        storage: The repository.
        request: What to publish.
        keys: What signs it.
        now: The time to judge and to count expiry by.
        meter: Shows progress.
        dry_run: Judge only, write nothing.
        preparation: How to make it cheap to fetch; None to publish just the files.

    Raises:
        Refused: A device would refuse the release.
        UsageError: The version is published already with other content, or the request makes no
            sense.
        StorageError: Something could not be written; what was published before still is.
        Waiting: It is logged, but too few witnesses cosigned; what was published before still is.
    """
    staging, published = _judge(storage, request, keys, now)
    if published.already and staging.waiting and not dry_run:
        resume(storage, keys.online, now)
    if published.already or dry_run:
        return published
    bundle = request.bundle
    contents = [(file.blob, bundle.directory / file.path) for file in bundle.files]
    prepared = Prepared(bundle.files)
    bases: tuple[Release, ...] = ()
    cache = None
    if preparation is not None:
        cache = preparation.options.cache
        bases = _bases(staging, request, preparation.options)
        preparer = Preparer(storage, preparation.options, preparation.watch)
        prepared = preparer.prepare(bundle.directory, bundle.files, bases)
        contents += [(blob, cache.content(name)) for blob, name in prepared.contents.items()]
    with meter("Storing") as progress:
        blobs.store(storage, contents, progress, cache)
    with storage.lock():
        staging, published = _judge(storage, request, keys, now, prepared)
        if not published.already:
            staging.commit()
    if cache is not None:
        for name in prepared.contents.values():
            cache.forget_content(name)
    return replace(published, routes=tuple(routes(storage, published.release, bases)))


def released(staging: Staging, model: str) -> Iterator[Release]:
    """Yield every published release of a model that is well-formed.

    Raises:
        UsageError: The repository has no such model.
    """
    role = role_name(model)
    for path in staging.targets(role).signed.targets:
        if _RELEASE_PATH.fullmatch(path):
            # What nobody can parse no device ever took: it must not keep honest releases back.
            with suppress(FormatError):
                yield Release.parse(staging.target(role, path) or b"")


def _bases(staging: Staging, request: Request, options: Options) -> tuple[Release, ...]:
    """Return the releases that devices are likely to have, the newest first.

    Raises:
        UsageError: A release that was named does not exist.
    """
    before = [
        release for release in released(staging, request.model)
        if release.version != request.version
    ]  # fmt: skip
    before.sort(key=lambda release: -release.counter)
    bases = {(release.model, release.version): release for release in before[: options.releases]}
    for name, version in options.bases:
        found = {release.version: release for release in released(staging, name)}
        if version not in found:
            raise UsageError(
                f"there is no release {version} of {name} to start from",
                f"its releases are {', '.join(found) or 'none'}",
            )
        bases[name, version] = found[version]
    return tuple(bases.values())


def _judge(
    storage: Storage,
    request: Request,
    keys: Keys,
    now: datetime,
    prepared: Prepared | None = None,
) -> tuple[Staging, Published]:
    """Stage the release and take it through the device's gates."""
    staging = Staging.of(storage, now)
    before = {release.version: release for release in released(staging, request.model)}
    release = _release(request, now, prepared or Prepared(request.bundle.files))
    if request.version in before:
        return staging, _already(staging, request, release, before[request.version])
    floor = next_counter(before.values())
    if release.counter < floor:
        raise UsageError(
            f"the ticket was issued for release {release.counter} of {request.model}, but release "
            f"{floor - 1} is published already",
            "open a new ticket and run the supply chain again: devices never go back",
        )
    _check_components(staging, request.requires)
    role = role_name(request.model)
    added = {
        release.target_path: release.to_bytes(),
        releases.evidence_path(request.model, request.version): request.evidence,
    }
    staging.put_targets(role, staging.targets(role), added, keys.release)
    staging.finish(keys.online)
    with staging.as_device() as repository:
        fleet = FleetPolicy.parse(repository.target(FleetPolicy.TARGET, policies.CAP) or b"")
        examined = examine(
            repository,
            fleet,
            request.model,
            request.version,
            fetch_blob=request.bundle.read,
            facts=None,
            floor=floor,
            now=now,
        )
    held = look_inside(examined.release, request.bundle.reader)
    return staging, Published(examined.release, (*examined.findings, (Gate.POLICY, held)))


def next_counter(before: Iterable[Release]) -> int:
    """Return the place of a model's next release among those that are published."""
    return 1 + max((release.counter for release in before), default=0)


def _release(request: Request, now: datetime, prepared: Prepared) -> Release:
    paths = {file.path for file in request.bundle.files}
    release = Release(
        model=request.model,
        version=request.version,
        counter=request.bundle.ticket.counter,
        released=now,
        ticket=request.bundle.ticket,
        files=prepared.files,
        patches=prepared.patches,
        requires=request.requires,
        signature=SIGNATURE if SIGNATURE in paths else None,
        golden=GOLDEN if GOLDEN in paths else None,
    )
    for _, specifier in request.requires.runtime:
        satisfies("0", specifier)  # a specifier that makes no sense is refused here, not there
    return Release.parse(release.to_bytes())


def _already(staging: Staging, request: Request, new: Release, old: Release) -> Published:
    same = _content(replace(new, released=old.released)) == _content(old)
    evidence = releases.evidence_path(request.model, request.version)
    if same and staging.target(role_name(request.model), evidence) == request.evidence:
        return Published(old, already=True)
    raise UsageError(
        f"{request.model} {request.version} is published already, with other content",
        "a published version never changes: publish this one under a new version",
    )


def _content(release: Release) -> Release:
    """Return what a release is, without the ways there: those may be other ones each time."""
    files = tuple(replace(file, chunks=None) for file in release.files)
    return replace(release, files=files, patches=())


def _check_components(staging: Staging, requires: Requirements) -> None:
    for model, version in requires.components:
        if (
            releases.target_path(model, version)
            not in staging.targets(role_name(model)).signed.targets
        ):
            raise UsageError(
                f"the component {model} {version} is not published",
                "publish components before what needs them",
            )
