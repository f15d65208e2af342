"""modelward-repo inspect: say in plain words what a file is."""

from pathlib import Path

import click

from modelward_repo.cli import options
from modelward_repo.documents.inspect import inspect as inspect_file


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@options.json_option
def inspect(file: Path) -> None:
    """Say in plain words what FILE is and what it says, and what that does not prove.

    FILE may be TUF metadata, a layout, a link, evidence.jsonl, release.json, a channel, a policy,
    a ticket, a public key, a device's floors or a signing request. It is told by its content.

    \b
        modelward-repo inspect my-repo/metadata/1.root.json
    """
    found = inspect_file(file, options.now())
    for line in found.lines:
        options.say(line)
    options.say(f"\nSHA-256 {found.more['sha256']}, {found.more['length']} bytes")
    for title, items in (("Checked:", found.checked), ("NOT verified:", found.unverified)):
        for number, item in enumerate(items):
            options.say(f"{title if number == 0 else '':<13} - {item}")
    options.result(found.to_dict())
