"""modelward-repo target: get one target out of a repository."""

import base64
from pathlib import Path

import click

from modelward.errors import UsageError
from modelward.transfer.http import Http
from modelward_repo.cli import options
from modelward_repo.documents.format_words import sha256
from modelward_repo.documents.inspect import read
from modelward_repo.publish.target import Source, get_target
from modelward_repo.storage.local import LocalStorage
from modelward_repo.supply_chain.files import replace_file


@click.command()
@click.argument("path")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it, replacing what is there. Default: print it.",
)
@click.option("--url", help="Address of a server to get it from, instead of a directory.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Root metadata to trust. Needed with --url; default: the repository's first.",
)
@options.repository_option_if_any
@options.json_option
def target(
    path: str, output: Path | None, url: str | None, root: Path | None, repository: Path | None
) -> None:
    """Get the target PATH out of a repository, verified as a device would.

    For instance the layout and the policy that `modelward-repo attest` holds a step against.
    Trust begins with --root; without it, with the first root in the repository's directory, so
    that you trust whoever can write there.

    \b
        modelward-repo target layouts/meter-reader.json -o layout.json --repository my-repo
        modelward-repo target policies/meter-reader.json -o policy.json \\
            --url https://models.example.com --root root.json
    """
    trusted = read(root) if root else None
    if url is not None:
        if trusted is None:
            raise UsageError(
                "which root is to be trusted?",
                "give --root, a root.json that you got from the security team, not from the server",
            )
        with Http() as http:
            data = get_target(Source.served(http, url, trusted), path)
    elif repository is not None:
        data = get_target(Source.stored(LocalStorage(repository), trusted), path)
    else:
        raise UsageError(
            "which repository? There is none in this directory",
            "name one with --repository DIR, or a server with --url URL",
        )
    if output:
        replace_file(output, data)
        options.say(f"{output}: {path}, {len(data)} bytes, verified")
    elif not options.speaks_json():
        click.echo(data, nl=False)
    options.result(
        {
            "path": path,
            "file": str(output) if output else None,
            "length": len(data),
            "sha256": sha256(data),
            **({} if output else {"content_base64": base64.b64encode(data).decode()}),
        }
    )
