"""modelward-repo publish: publish a release."""

from collections.abc import Sequence
from pathlib import Path

import click

from modelward.errors import UsageError
from modelward.formats.release import Requirements
from modelward_repo.cli import options
from modelward_repo.cli.preparing import prepare_options, routes_as_json, tell_routes, watch
from modelward_repo.publish.bundle import read_bundle, read_evidence
from modelward_repo.publish.prepare import Options
from modelward_repo.publish.release import Keys, Preparation, Published, Request
from modelward_repo.publish.release import publish as publish_release
from modelward_repo.storage.local import LocalStorage


@click.command()
@click.argument("model")
@click.argument("version")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--evidence",
    "evidence",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="A link file, or a directory of them (*.link); repeatable.",
)
@click.option(
    "--requires-runtime",
    "runtime",
    metavar="NAME=SPEC",
    multiple=True,
    help="A Python distribution that devices need, such as 'onnxruntime=>=1.17'; repeatable.",
)
@click.option(
    "--requires-hardware",
    "hardware",
    metavar="MACHINE",
    multiple=True,
    help="A machine it runs on, such as aarch64; repeatable. Default: any.",
)
@click.option(
    "--component",
    "components",
    metavar="MODEL=VERSION",
    multiple=True,
    help="Another model, of exactly this version, that switches together with it; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Run every check, write nothing.")
@prepare_options
@options.repository_option
@options.keys_option
@options.passphrase_option
@options.json_option
def publish(
    model: str,
    version: str,
    bundle: Path,
    evidence: tuple[Path, ...],
    runtime: tuple[str, ...],
    hardware: tuple[str, ...],
    components: tuple[str, ...],
    dry_run: bool,
    prepare: Options,
    repository: Path,
    keys: Path,
    passphrases: options.Passphrases,
) -> None:
    """Publish the directory BUNDLE as VERSION of MODEL.

    The release goes through the gates of a device first: what a device would refuse cannot be
    published. It reads the keys of the model's role, of snapshot and of timestamp, and no other.
    Devices take the release once a channel offers it.

    So that they fetch little, it is published with chunk indexes, compressed copies and patches
    from earlier releases, wherever those save enough. What was made once is kept in --cache.

    \b
        modelward-repo publish meter-reader 1.2.0 bundle --evidence links
        modelward-repo channel set stable meter-reader 1.2.0
    """
    requires = Requirements(
        hardware=tuple(dict.fromkeys(hardware)),
        runtime=_pairs("--requires-runtime", runtime),
        components=_pairs("--component", components),
    )
    now = options.now()
    storage = LocalStorage(repository)
    signers = Keys.load(storage, model, keys, passphrases, now)
    with options.progress("Hashing") as progress:
        content = read_bundle(bundle, progress, prepare.cache)
    request = Request(model, version, content, read_evidence(evidence), requires)
    done = publish_release(
        storage,
        request,
        signers,
        now,
        meter=options.progress,
        dry_run=dry_run,
        preparation=Preparation(prepare, watch()),
    )
    tell(done, dry_run=dry_run)
    if not done.already and not dry_run:
        options.say(f"  Next: modelward-repo channel set stable {model} {version}")
    options.result(as_json(done, dry_run=dry_run))


def tell(done: Published, *, dry_run: bool = False) -> None:
    """Tell people what publishing did."""
    name = f"{done.release.model} {done.release.version}"
    if done.already:
        options.say(f"{name} is published already, with the same content: nothing to do.")
        return
    for gate, finding in done.findings:
        options.say(f"  {gate}: {finding}")
    what = "would be published" if dry_run else "is published"
    options.say(f"{name} {what}, as release {done.release.counter} of this model.")
    tell_routes(done.routes)


def as_json(done: Published, *, dry_run: bool = False) -> dict[str, object]:
    """Return the same as a JSON object."""
    return {
        "model": done.release.model,
        "version": done.release.version,
        "counter": done.release.counter,
        "published": not dry_run,
        "already": done.already,
        "files": {file.path: file.blob.sha256 for file in done.release.files},
        "routes": routes_as_json(done.routes),
        "findings": [{"gate": gate.label, "finding": text} for gate, text in done.findings],
    }


def _pairs(option: str, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Take NAME=VALUE apart, sorted by name as a release has them."""
    pairs: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not name or not equals or not rest or name in pairs:
            raise UsageError(f"{option} {value!r} is not NAME=VALUE, or names something twice")
        pairs[name] = rest
    return tuple(sorted(pairs.items()))
