"""The command `modelward-repo manifest`."""

import hashlib
from pathlib import Path

import click

from modelward.errors import UsageError
from modelward_repo.cli import options
from modelward_repo.cli.hashing import hashing_bar
from modelward_repo.supply_chain import manifest as manifests
from modelward_repo.supply_chain.files import replace_file


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The manifest to write, outside of DIRECTORY.",
)
@options.json_option
def manifest(directory: Path, output: Path) -> None:
    """List the files of DIRECTORY by digest, in one file.

    A data set is recorded in evidence as its manifest. The format is sha256sum's, so that
    `cd DIRECTORY && sha256sum --check MANIFEST` checks one.

    \b
        modelward-repo manifest data/train -o data/train.manifest
    """
    if output.resolve().is_relative_to(directory.resolve()):
        raise UsageError(
            f"{output} lies in {directory}: a manifest cannot list itself", "write it beside"
        )
    with hashing_bar() as progress:
        data = manifests.manifest(directory, ".", progress)
    replace_file(output, data)
    count = data.count(b"\n")
    options.say(f"{output}: {count} files")
    options.result(
        {"file": str(output), "files": count, "sha256": hashlib.sha256(data).hexdigest()}
    )
