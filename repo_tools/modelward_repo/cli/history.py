"""modelward-repo log history: who signed what, and about when."""

from pathlib import Path

import click

from modelward.errors import UsageError
from modelward_repo.cli import options
from modelward_repo.publish.staging import TIMESTAMP
from modelward_repo.roles.history import history as read_history
from modelward_repo.roles.holders import folder_names
from modelward_repo.storage.local import LocalStorage


@click.command()
@click.argument("roles", nargs=-1, metavar="[ROLE]...")
@click.option("--reverse", is_flag=True, help="Newest first.")
@options.repository_option
@options.keys_option
@options.json_option
def history(roles: tuple[str, ...], reverse: bool, repository: Path, keys: Path) -> None:
    """Show who signed what, and about when: every version of every role, oldest first.

    It is read from nothing but the metadata that lies in the repository; a timestamp lies there
    only in its newest version. Metadata does not say when it was signed: the times are its expiry
    less the time for which its role is signed, and they are as right as the signers' clocks were.
    Only valid signatures of keys that had the role at some time are shown.

    \b
        modelward-repo log history --repository my-repo
        modelward-repo log history root targets --repository my-repo
    """
    storage = LocalStorage(repository)
    if not storage.exists(TIMESTAMP):
        raise UsageError("there is no repository here", "name its directory with --repository")
    files = ((path, storage.read(path)) for path in storage.list("metadata"))
    entries = read_history(files, folder_names(keys))
    known = {entry.role for entry in entries}
    for role in roles:
        if role not in known:
            raise UsageError(
                f"the repository has no role {role!r}", f"it has {', '.join(sorted(known))}"
            )
    shown = [entry for entry in entries if not roles or entry.role in roles]
    if reverse:
        shown.reverse()
    for entry in shown:
        options.say(str(entry))
    options.result({"entries": [entry.to_dict() for entry in shown]})
