"""modelward-repo log: the transparency log, written, audited and watched."""

from pathlib import Path

import click

from modelward.errors import UsageError
from modelward_repo.cli import options
from modelward_repo.cli.history import history
from modelward_repo.log.add_checkpoint import check_url
from modelward_repo.publish.ledger import KEY, log_policy, log_vkey, read_urls, write_urls
from modelward_repo.publish.refresh import resume
from modelward_repo.publish.signing import online_signers
from modelward_repo.publish.staging import Staging
from modelward_repo.roles.keys import KeyFile
from modelward_repo.storage.local import LocalStorage


@click.group()
def log() -> None:
    """Write, audit and watch the transparency log of a repository.

    What a repository publishes is first recorded in a log that only grows, and that witnesses
    have seen: nobody can then be shown something that others are not.
    """


log.add_command(history)


@log.command()
@click.argument("origin")
@click.option("--holder", default="repository", show_default=True, help="Who holds the key.")
@options.keys_option_if_any
@options.json_option
def vkey(origin: str, holder: str, keys: Path | None) -> None:
    """Print the vkey of the log ORIGIN: what its witnesses are to know it by.

    Make the key first. Then hand the vkey to the witnesses, put theirs into the trust policy, and
    make the repository.

    \b
        modelward-repo key create repository/log --keys my-repo-keys
        modelward-repo log vkey example.com/models --keys my-repo-keys
    """
    if keys is None:
        raise UsageError("which keys?", "name their folder with --keys DIR")
    found = str(log_vkey(origin, KeyFile.of(keys, holder, KEY).public()))
    options.say(found)
    options.result({"vkey": found})


@log.command()
@click.argument("places", nargs=-1, metavar="[NAME=URL]...")
@options.repository_option
@options.json_option
def witnesses(places: tuple[str, ...], repository: Path) -> None:
    """Show the witnesses that root names and where they are reached; with NAME=URL, say where.

    Addresses are not signed: a wrong one costs a cosignature and nothing else.

    \b
        modelward-repo log witnesses w1=https://witness.example.com
    """
    storage = LocalStorage(repository)
    policy = log_policy(Staging.of(storage, options.now()).root.signed)
    if policy is None:
        raise UsageError("root demands no log", "add one with `modelward-repo ceremony`: set-log")
    urls = read_urls(storage)
    for place in places:
        name, _, url = place.partition("=")
        if name not in policy.witnesses:
            known = ", ".join(policy.witnesses) or "none"
            raise UsageError(f"root names no witness {name!r}", f"it names {known}")
        try:
            urls[name] = check_url(url)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if places:
        with storage.lock():
            write_urls(storage, urls)
    options.say(f"log      {policy.vkey}")
    for name, witness in policy.witnesses.items():
        options.say(f"{name:<8} {urls.get(name, '(nobody said where)')}  {witness}")
    options.say(f"quorum   {policy.quorum or 'none'}")
    options.result({"log": policy.to_dict(), "urls": urls})


@log.command()
@options.repository_option
@options.keys_option
@options.passphrase_option
@options.json_option
def publish(repository: Path, keys: Path, passphrases: options.Passphrases) -> None:
    """Publish what is logged and waits for witnesses: ask them again.

    Publishing asks by itself. This is for when too few answered: what was published before is in
    force meanwhile, and `modelward-repo refresh` keeps it fresh.
    """
    storage = LocalStorage(repository)
    now = options.now()
    staging = Staging.of(storage, now)
    waited = staging.waiting
    if waited:
        waited = resume(storage, online_signers(staging, keys, passphrases), now)
    options.say("Published: enough witnesses cosigned." if waited else "Nothing waits.")
    options.result({"published": waited})
