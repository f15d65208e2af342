"""modelward-repo ceremony propose: one command a change, and several changes in one request."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from modelward.errors import UsageError
from modelward.formats import strict
from modelward_repo.cli import options
from modelward_repo.cli.times import is_given, now_option
from modelward_repo.publish.staging import Staging
from modelward_repo.roles import carry, ceremony
from modelward_repo.roles.changes import Change, HeldKey
from modelward_repo.roles.expiry import span
from modelward_repo.roles.keys import PUBLIC
from modelward_repo.roles.policy import CHANNELS, TOP_LEVEL, role_name
from modelward_repo.roles.review import review, text
from modelward_repo.roles.signers import open_public
from modelward_repo.roles.state import (
    Rejected,
    View,
    before,
    is_holder,
)
from modelward_repo.storage.local import LocalStorage
from modelward_repo.supply_chain.layout import FUNCTIONARY, OWNER

NEGLECTED = timedelta(days=30)
_FILE = click.Path(path_type=Path, dir_okay=False)
_KEY_NAMES = (*TOP_LEVEL, CHANNELS, OWNER, FUNCTIONARY)


@dataclass(frozen=True)
class Scene:
    """What a change is declared against.

    Attributes:
        view: What is in force.
        storage: The repository.
        staging: The same, loaded.
        keys: Folder of holders.
        ask: Asked for a PIN, if a public key can only be had with it.
    """

    view: View
    storage: LocalStorage
    staging: Staging
    keys: Path
    ask: options.Passphrases

    def key(self, reference: str, holder: str | None = None) -> HeldKey:
        """Return a public key and whose it is.

        Args:
            reference: A file, a URI, or HOLDER/NAME in the folder of keys.
            holder: Whose it is; None to go by the file's name.
        """
        inside = self.keys / f"{reference}{PUBLIC}"
        where = str(inside) if inside.is_file() else reference
        public = open_public(where, self.ask)
        name = holder or _holder_of(where)
        if name is None or not is_holder(name):
            raise UsageError(f"who holds the key {reference}?", "say --holder NAME")
        return HeldKey(public, name)


Build = Callable[..., Sequence[Change]]
_BUILDERS: dict[str, tuple[list[click.Parameter], Build]] = {}


@click.group()
def propose() -> None:
    """Propose a change: writes a signing request, changes nothing.

    Several changes make one request: name the others with --also. Keys are named by file, URI, or
    HOLDER/NAME in the folder of keys; keys that a role has, by holder or key id. Roles are root,
    targets, snapshot, timestamp, channels, and model-MODEL for each model.

    \b
        modelward-repo ceremony propose add-key root carol.pub -o request.json \\
            --also 'remove-key root bob' --also 'set-threshold root 2'
    """


def declare(name: str, *params: click.Parameter) -> Callable[[Build], Build]:
    """Make a builder of changes a command, by itself and within --also."""

    def register(build: Build) -> Build:
        _BUILDERS[name] = (list(params), build)

        def run(**values: Any) -> None:
            own = {str(param.name): values.pop(str(param.name)) for param in params}
            _propose(name, own, **values)

        command = click.Command(name, callback=run, help=build.__doc__)
        for common in (
            options.json_option,
            options.passphrase_option,
            options.keys_option,
            options.repository_option,
            now_option,
            click.option(
                "--dry-run", is_flag=True, help="Show what would come of it, write nothing."
            ),
            click.option("--note", default="", metavar="TEXT", help="Why; signers see it."),
            click.option(
                "--also",
                "--change",
                "also",
                multiple=True,
                metavar="CHANGE",
                help="One more change, such as 'remove-key root bob'; repeatable.",
            ),
            click.option(
                "--output", "-o", type=_FILE, help="The signing request to write; must not exist."
            ),
        ):
            common(command)
        command.params = [*params, *reversed(command.params)]
        propose.add_command(command)
        return build

    return register


def argument(name: str, **attributes: Any) -> click.Argument:
    """Return an argument of a change."""
    return click.Argument([name], **attributes)


def _propose(
    name: str,
    own: dict[str, Any],
    *,
    also: tuple[str, ...],
    note: str,
    output: Path | None,
    dry_run: bool,
    now: datetime,
    repository: Path,
    keys: Path,
    passphrases: options.Passphrases,
) -> None:
    storage = LocalStorage(repository)
    staging = Staging.of(storage, now)
    scene = Scene(before(ceremony.load(staging)), storage, staging, keys, passphrases)
    changes = [*_BUILDERS[name][1](scene, **own)]
    for words in also:
        changes += _parse(scene, words)
    if output is None and not dry_run:
        raise UsageError("where to write the signing request?", "say --output request.json")
    if output and output.exists():
        raise UsageError(f"{output} exists already", "name another file, or move it away")
    if not is_given():
        _check_clock(staging, now)
    commands = (_spelt(name, own), *also)
    request = ceremony.propose(storage, ceremony.Wish(changes, commands, note), now)
    found = review(request, now)
    for part in (
        text.header(found),
        text.changes(found),
        text.warnings(found),
        text.signatures(found),
    ):
        for line in part:
            options.say(line)
    if found.stops:
        raise Rejected(f"this must not be signed: {found.stops[0].text}", "nothing was written")
    if output and not dry_run:
        carry.save(output, request)
        options.say(f"\nWritten to {output}. Nothing is changed yet. Next, for each who signs:")
        options.say(f"  modelward-repo ceremony sign {output} --key KEY")
    options.result({"file": str(output) if output and not dry_run else None, **found.to_dict()})


def _check_clock(staging: Staging, now: datetime) -> None:
    """Refuse to count expiry from a clock that is far ahead, as far as the repository can tell."""
    expired = staging.timestamp.signed.expires if staging.timestamp else now
    if now - expired > NEGLECTED:
        raise Rejected(
            f"this machine's clock says {strict.rfc3339(now)}, but the repository's timestamp "
            f"expired {span(now - expired)} before that: is the clock wrong?",
            "set the clock, or say what time it is with --now, which is then believed",
        )


def _parse(scene: Scene, words: str) -> list[Change]:
    """Return what a change means that was given as one argument."""
    try:
        name, *args = shlex.split(words)
        params, build = _BUILDERS[name]
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"{words!r} is not a change", f"a change begins with one of {', '.join(_BUILDERS)}"
        ) from error
    command = click.Command(name, params=params)
    values = command.make_context(name, args, parent=click.get_current_context()).params
    return [*build(scene, **values)]


def _spelt(name: str, own: dict[str, Any]) -> str:
    """Return a change as one would give it to --also; for the record only."""
    words = [name]
    for param in _BUILDERS[name][0]:
        value = own[str(param.name)]
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None:
                words += [param.opts[0]] if isinstance(param, click.Option) else []
                words.append(str(one))
    return shlex.join(words)


def _holder_of(reference: str) -> str | None:
    """Return whose a key's file is, going by its name: carol.pub, or KEYS/carol/root.pub."""
    path = Path(reference)
    if path.suffix not in (PUBLIC, ".key", ".ref"):
        return None
    if path.stem in _KEY_NAMES or path.stem.startswith(role_name("")):
        return path.resolve().parent.name
    return path.stem
