"""Doing a step of a supply chain and signing what it took and made: a link.

Nobody signs work that rests on unproven input: the evidence of every earlier step that this one
builds upon is verified, with the device's own code, before the command starts. A command that
fails leaves no link.

What a link records is published with the release. The command line is recorded as given, so it
must not hold secrets; output and environment variables may hold some and are not recorded.
"""

import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from securesystemslib.signer import Signer

from modelward.errors import FormatError, Gate, ModelwardError, Refused, UsageError
from modelward.formats.dsse import ENVELOPE_CAP, MAX_LINKS, Envelope
from modelward.formats.policy import ModelPolicy
from modelward.trust.layout import Layout, Step
from modelward.trust.links import up_to, verify_links, verify_materials
from modelward.trust.supply_chain import read_layout, verify_owners
from modelward_repo.supply_chain.hasher import Known, Progress, hash_files, no_progress, relative
from modelward_repo.supply_chain.manifest import check_manifest
from modelward_repo.supply_chain.signing import sign

SUFFIX = ".link"

Run = Callable[[Sequence[str], Path], int]
"""Runs a command in a directory and returns what `subprocess` calls its return code."""


class StepError(ModelwardError):
    """The step's command failed: there is nothing to attest."""


@dataclass(frozen=True)
class Subject:
    """What a step takes and makes.

    Attributes:
        workspace: The directory that paths are relative to and the command runs in.
        materials: Files and directories it takes.
        products: Files and directories it makes.
        manifests: Pairs of a directory and the manifest that is recorded in its place; the
            manifest must be among the materials or products.
    """

    workspace: Path
    materials: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    manifests: tuple[tuple[str, str], ...] = ()


def attest(  # noqa: PLR0913 - each is a different thing that the caller alone can know
    step: str,
    *,
    workspace: Path,
    materials: Sequence[str],
    products: Sequence[str],
    manifests: Sequence[tuple[str, str]],
    command: Sequence[str],
    signer: Signer,
    layout: Envelope,
    policy: ModelPolicy,
    links: Sequence[Envelope],
    now: datetime,
    run: Run | None = None,
    progress: Progress = no_progress,
    known: Known | None = None,
) -> Envelope:
    """Do a step and return its signed link.

    Args:
        step: Name of the step.
        workspace: The directory that paths are relative to and the command runs in.
        materials: Files and directories the step takes.
        products: Files and directories it makes.
        manifests: Pairs of a directory and its manifest, see `Subject`.
        command: What to run, as given; empty where people do the step.
        signer: Key of the functionary who does it.
        layout: The model's layout, signed by its owners.
        policy: The model's policy: who owns the layout.
        links: Evidence so far; that of steps this one does not build upon is not looked at.
        now: The time to judge the layout's expiry by.
        run: Runs the command; by default with the output passed through.
        progress: Told how far hashing is.
        known: What was hashed before, and need not be again; None to hash everything.

    Raises:
        Refused: The layout or evidence does not hold, or the files are not as the layout demands.
        FormatError: The layout or a link is ill-formed.
        UsageError: A path cannot be recorded.
        StepError: The command failed.
    """
    subject = Subject(workspace, tuple(materials), tuple(products), tuple(manifests))
    verify_owners(layout, policy)
    checked = read_layout(layout, policy, now)
    declared = _functionary_step(checked, step, signer)
    earlier = [link for link in links if _step_of(link) in checked.consumed_by(step)]
    proven = verify_links(earlier, up_to(checked, step, threshold=0))
    _check_manifests_listed(subject)

    taken = _record(subject, subject.materials, progress, known)
    verify_materials(declared, taken, proven)
    if command:
        _run(command, workspace, run or _run_here)
        _check_unchanged(taken, _record(subject, subject.materials, progress))
    made = _record(subject, subject.products, progress, None if command else known)

    link = sign(
        Envelope.unsigned(
            {
                "_type": "link",
                "name": step,
                "command": list(command),
                "materials": {path: {"sha256": digest} for path, digest in taken.items()},
                "products": {path: {"sha256": digest} for path, digest in made.items()},
                "byproducts": {"return-value": 0},
                "environment": {},
            }
        ),
        signer,
    )
    _check_size(link)
    others = [other for other in links if _step_of(other) == step and not _same_key(other, link)]
    # The whole of it once more as a device sees it: product rules, and agreement with those who
    # did the same step before. Others may still have to do it.
    verify_links([*earlier, *others, link], up_to(checked, step, threshold=1))
    return link


def load_links(directory: Path) -> tuple[Envelope, ...]:
    """Read the evidence so far: every `*.link` of a directory, none if there is no directory.

    Raises:
        UsageError: One cannot be read.
        FormatError: One is not an envelope.
    """
    paths = sorted(directory.glob(f"*{SUFFIX}"))
    if len(paths) > MAX_LINKS:
        raise UsageError(f"{directory} holds more than {MAX_LINKS} links")
    return tuple(load_envelope(path) for path in paths)


def load_envelope(path: Path) -> Envelope:
    """Read a link's or a layout's file.

    Raises:
        UsageError: It cannot be read.
        FormatError: It is not an envelope.
    """
    try:
        with path.open("rb") as file:
            data = file.read(ENVELOPE_CAP + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return Envelope.parse(str(path), data)


def link_name(link: Envelope) -> str:
    """Return the name of a link's file: ``<step>.<first 8 digits of the key id>.link``."""
    return f"{_step_of(link)}.{next(iter(link.signatures))[:8]}{SUFFIX}"


def _functionary_step(layout: Layout, name: str, signer: Signer) -> Step:
    step = layout.step(name)
    if step is None:
        names = ", ".join(step.name for step in layout.steps)
        raise UsageError(f"the layout has no step {name!r}", f"its steps are {names}")
    keyid = signer.public_key.keyid
    if keyid not in step.functionaries:
        others = ", ".join(keyid[:8] for keyid in step.functionaries)
        raise Refused(
            Gate.SUPPLY_CHAIN,
            f"the key {keyid[:8]} may not do the step {name!r}; the layout names {others}",
            "sign with the functionary key of somebody the layout names",
        )
    return step


def _step_of(link: Envelope) -> str:
    """Return the step that a link says it is of: a claim, to find it by."""
    return str(link.content.get("name"))


def _same_key(one: Envelope, other: Envelope) -> bool:
    return set(one.signatures) == set(other.signatures)


def _check_manifests_listed(subject: Subject) -> None:
    recorded = [relative(subject.workspace, path) for path in subject.materials + subject.products]
    for directory, file in subject.manifests:
        place = PurePosixPath(relative(subject.workspace, file))
        if not any(place.is_relative_to(path) for path in recorded):
            raise UsageError(
                f"the manifest {file} of {directory} is neither a material nor a product",
                f"add --materials {file} or --products {file}",
            )


def _record(
    subject: Subject, paths: Sequence[str], progress: Progress, known: Known | None = None
) -> dict[str, str]:
    """Hash what a step takes or makes; a manifest only if its directory is what it says."""
    digests = hash_files(subject.workspace, paths, progress, known)
    for directory, file in subject.manifests:
        name = relative(subject.workspace, file)
        if name in digests:
            check_manifest(subject.workspace, directory, name, digests[name], progress)
    return digests


def _run(command: Sequence[str], workspace: Path, run: Run) -> None:
    try:
        result = run(command, workspace)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise StepError(
            f"the command {command[0]!r} could not be run: {why}; no link was written",
            "check its name and that it is installed; it runs in the workspace, without a shell",
        ) from error
    if result == 0:
        return
    how = f"exit status {result}"
    if result < 0:
        how = f"signal {-result}"
        if -result in signal.valid_signals():
            how = f"signal {-result} ({signal.strsignal(-result)})"
    raise StepError(
        f"the command {command[0]!r} failed with {how}; no link was written",
        "a failed step is never attested: mend it and run it again",
    )


def _run_here(command: Sequence[str], workspace: Path) -> int:
    return subprocess.run(list(command), cwd=workspace, check=False).returncode


def _check_unchanged(before: dict[str, str], after: dict[str, str]) -> None:
    differing = sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )
    if differing:
        raise Refused(
            Gate.SUPPLY_CHAIN,
            f"the command changed its own materials: {differing[0]!r}"
            + (f" and {len(differing) - 1} more" if len(differing) > 1 else ""),
            "have it write elsewhere; Python leaves __pycache__ unless PYTHONDONTWRITEBYTECODE=1",
        )


def _check_size(link: Envelope) -> None:
    try:
        Envelope.parse("link", link.to_bytes())
    except FormatError as error:
        raise UsageError(
            f"the link would not be accepted: {error.problem}",
            "record a large directory as one manifest: --manifest DIR=FILE",
        ) from error
