"""modelward-repo diff: say in plain words what is different between two things."""

from pathlib import Path

import click

from modelward_repo.cli import options
from modelward_repo.publish.compare import compare, find
from modelward_repo.roles.holders import folder_names


@click.command()
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@click.option(
    "--keys",
    "-k",
    envvar="MODELWARD_KEYS",
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of public keys, one folder a holder: shows names that metadata lacks.",
)
@options.repository_option_if_any
@options.json_option
def diff(one: str, other: str, keys: Path | None, repository: Path | None) -> None:
    """Say in plain words what is different in B, compared with A.

    A and B are two metadata files of one role, two repositories, a file and a repository, or two
    other documents of a kind, such as layouts, policies or channels. With --repository, or in a
    repository's directory, they may also be names of its metadata files, such as 3.targets.json,
    or of roles, such as targets: what the repository has now.

    Signatures are verified where a repository around the files says whose keys count; nothing
    else is.

    \b
        modelward-repo diff 3.targets.json targets --repository my-repo
        modelward-repo diff yesterday/my-repo my-repo
    """
    now = options.now()
    sides = find(one, repository, now), find(other, repository, now)
    found = list(compare(*sides, folder_names(keys)))
    for change in found:
        options.say(str(change))
    if not found:
        options.say("No difference.")
    options.result(
        {
            "a": sides[0].label,
            "b": sides[1].label,
            "same": not found,
            "changes": [change.to_dict() for change in found],
        }
    )
