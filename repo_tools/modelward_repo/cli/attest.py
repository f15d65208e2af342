"""The command `modelward-repo attest`."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from modelward.errors import UsageError
from modelward.formats.dsse import Envelope
from modelward.formats.policy import CAP, ModelPolicy
from modelward.trust.layout import Layout
from modelward.trust.links import read_artifacts
from modelward_repo.cli import options
from modelward_repo.cli.hashing import hashing_bar
from modelward_repo.roles.signers import open_signer
from modelward_repo.supply_chain import attest as attesting
from modelward_repo.supply_chain.files import create_file

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("step")
@click.option("--layout", required=True, type=_FILE, help="The model's layout, signed.")
@click.option(
    "--policy", required=True, type=_FILE, help="The model's policy: policies/MODEL.json."
)
@click.option(
    "--links", required=True, type=_DIRECTORY, help="Evidence so far; the link goes here."
)
@options.key_option("Your private key, functionary.key")
@click.option(
    "--materials",
    "-m",
    multiple=True,
    metavar="PATH",
    help="File or directory it takes; repeatable.",
)
@click.option(
    "--products",
    "-p",
    multiple=True,
    metavar="PATH",
    help="File or directory it makes; repeatable.",
)
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    metavar="DIR=FILE",
    help="FILE, a material or product, must be the manifest of DIR; repeatable.",
)
@click.option(
    "--workspace",
    default=Path(),
    type=_DIRECTORY,
    help="Directory that paths are relative to and the command runs in. Default: this one.",
)
@options.passphrase_option
@options.json_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def attest(
    step: str,
    layout: Path,
    policy: Path,
    links: Path,
    key: str,
    materials: tuple[str, ...],
    products: tuple[str, ...],
    manifests: tuple[str, ...],
    workspace: Path,
    passphrases: options.Passphrases,
    command: tuple[str, ...],
) -> None:
    """Do STEP of a supply chain and sign what it took and made: a link.

    Before COMMAND runs, the layout and the evidence of every earlier step that STEP builds upon
    are verified, as a device will; so nobody's work rests on unproven input. Afterwards the
    materials must be as they were and the products as the layout demands. A COMMAND that fails
    leaves no link. Steps that people do, such as review and approve, have no COMMAND.

    The command line is recorded and published with the release: never put a secret on it.
    Output and environment are not recorded.

    \b
        modelward-repo attest train --layout layout.json --policy policy.json --links links \\
            --key KEYS/train-ci/functionary.key -m ticket.json -m code -m data/train.manifest \\
            --manifest data/train=data/train.manifest -p model -- python code/train.py
    """
    envelope = attesting.load_envelope(layout)
    with hashing_bar() as progress:
        link = attesting.attest(
            step,
            workspace=workspace,
            materials=materials,
            products=products,
            manifests=[_pair(text) for text in manifests],
            command=command,
            signer=open_signer(key, passphrases),
            layout=envelope,
            policy=_read_policy(policy),
            links=attesting.load_links(links),
            now=options.now(),
            run=_run_with_output_aside if _speaks_json() else None,
            progress=progress,
        )
    path = links / attesting.link_name(link)
    create_file(path, link.to_bytes())
    _tell(path, link, envelope, attesting.load_links(links))


def _tell(path: Path, link: Envelope, layout: Envelope, links: Sequence[Envelope]) -> None:
    name = link.content["name"]
    taken, made = read_artifacts(link)
    step = Layout.from_content(layout.content).step(name)
    needed = step.threshold if step else 0
    count = sum(other.content.get("name") == name for other in links)
    options.say(f"{path}: {name} took {len(taken)} files and made {len(made)}")
    options.say(f"  {count} of the {needed} needed have attested it")
    options.result(
        {
            "file": str(path),
            "step": name,
            "keyid": next(iter(link.signatures)),
            "materials": dict(taken),
            "products": dict(made),
            "links": count,
            "threshold": needed,
        }
    )


def _pair(text: str) -> tuple[str, str]:
    directory, equals, file = text.partition("=")
    if not directory or not equals or not file:
        raise UsageError(
            f"--manifest {text!r} is not like DIR=FILE", "such as data/train=data/train.manifest"
        )
    return directory, file


def _read_policy(path: Path) -> ModelPolicy:
    try:
        with path.open("rb") as file:
            return ModelPolicy.parse(file.read(CAP + 1))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _run_with_output_aside(command: Sequence[str], workspace: Path) -> int:
    """Run the command with its output on standard error: standard output speaks JSON."""
    return subprocess.run(
        list(command), cwd=workspace, stdout=sys.stderr.fileno(), check=False
    ).returncode


def _speaks_json() -> bool:
    return click.get_current_context().find_root().ensure_object(options.Output).json
