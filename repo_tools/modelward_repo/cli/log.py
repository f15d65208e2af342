"""modelward-repo log: the transparency log, written, audited and watched."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from modelward.config.address import check_repository
from modelward.errors import ExitCode, FormatError, Unavailable, UsageError
from modelward.formats.log_evidence import LogEvidence
from modelward.formats.log_policy import LogPolicy
from modelward.transfer.http import Http
from modelward.trust import split_view
from modelward.trust.split_view import Verdict
from modelward_repo.cli import options
from modelward_repo.cli.history import history
from modelward_repo.cli.witness import read_vkey
from modelward_repo.documents.inspect import read
from modelward_repo.log.add_checkpoint import check_url
from modelward_repo.log.audit import audit
from modelward_repo.log.monitor import Event
from modelward_repo.log.prove import prove as prove_release
from modelward_repo.log.watch import Monitor
from modelward_repo.publish.ledger import KEY, log_policy, log_vkey, read_urls, write_urls
from modelward_repo.publish.refresh import resume
from modelward_repo.publish.signing import online_signers
from modelward_repo.publish.staging import FIRST_ROOT, Staging
from modelward_repo.publish.target import Source
from modelward_repo.roles.keys import KeyFile
from modelward_repo.storage.local import LocalStorage
from modelward_repo.supply_chain.files import replace_file

ROOT_CAP = 512_000  # bytes, as TUF's client has it

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Root metadata to trust. Default: the repository's first.",
)


class _HistoryByDefault(click.Group):
    """A group that shows the history of signatures unless a command of the log is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read `log [ROLE]...` as `log history [ROLE]...`."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["history", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_HistoryByDefault)
def log() -> None:
    """Show who signed what; write, audit and watch the transparency log.

    Without a command: who signed what, and about when, from the metadata itself (`log history`).

    The transparency log holds what a repository publishes: it only grows, and witnesses have seen
    it, so that nobody can be shown something that others are not.

    \b
        modelward-repo log root targets --repository my-repo
        modelward-repo log verify https://models.example.com --root root.json
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


@log.command()
@click.argument("repository", metavar="URL|DIR")
@root_option
@options.json_option
def verify(repository: str, root: Path | None) -> int:
    """Audit the log of the repository at URL, or in DIR, from its first leaf.

    Reads every leaf and every tile, every root, snapshot and role that was ever logged, and
    verifies every cosignature. Trust begins with --root; without it, with the first root that is
    there. Ends with exit code 3 if anything is wrong.

    \b
        modelward-repo log verify https://models.example.com --root root.json
    """
    with source_of(repository, root) as source, options.progress("Auditing") as progress:
        found = audit(source, options.now(), progress)
    options.say(f"log      {found.origin}, {found.size} leaves")
    options.say(f"cosigned {', '.join(found.cosigned) or 'by nobody'}")
    options.say(f"read     {found.documents} roots and snapshots, {found.roles} targets roles")
    for note in found.notes:
        options.say(f"note     {note}")
    for fault in found.faults:
        click.secho(f"FAULT    {fault}", err=True, fg="red", bold=True)
    options.say("Everything is as it was logged." if not found.faults else "This log is NOT sound.")
    options.result(found.to_dict())
    return ExitCode.REFUSED if found.faults else ExitCode.DONE


@log.command()
@click.argument("repository", metavar="URL|DIR")
@root_option
@click.option("--once", is_flag=True, help="Look once, and end.")
@click.option(
    "--memory",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("log-monitor.json"),
    show_default=True,
    help="The file that remembers what was read.",
)
@click.option("--webhook", metavar="URL", help="An address to post what is new to, as JSON.")
@click.option(
    "--every",
    default=300.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds between two looks.",
)
@options.json_option
def monitor(
    repository: str, root: Path | None, once: bool, memory: Path, webhook: str | None, every: float
) -> int:
    """Watch the log at URL: say what is new, and raise the alarm.

    New releases are news. A changed root, a key nobody has seen before, a release that changed,
    or a log that contradicts itself is an alarm: the monitor ends with exit code 3, having
    remembered what it saw, so that whatever restarts it goes on from there. Two checkpoints that
    cannot both be true are kept beside the memory, for `modelward-repo log judge`. The first look
    only takes stock.

    \b
        modelward-repo log monitor https://models.example.com --root root.json
    """
    watch = Monitor(memory, webhook, _say_event)
    while True:
        with source_of(repository, root) as source:
            try:
                alarm = watch.look(source)
            except Unavailable as error:
                if once:
                    raise
                alarm = False
                click.secho(f"PROBLEM: {error.reason}", err=True, fg="yellow", bold=True)
        if alarm or once:
            return ExitCode.REFUSED if alarm else ExitCode.DONE
        time.sleep(every)


@log.command()
@click.argument("release", metavar="MODEL/VERSION")
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the proof, replacing what is there.",
)
@click.option(
    "--documents",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder to write root, snapshot, role and release to, which lead to the release.",
)
@click.option("--url", help="Address of a server to read, instead of a directory.")
@root_option
@options.repository_option_if_any
@options.json_option
def prove(
    release: str,
    output: Path,
    documents: Path | None,
    url: str | None,
    root: Path | None,
    repository: Path | None,
) -> None:
    """Write a stand-alone proof that MODEL/VERSION was logged (c2sp.org/tlog-proof).

    `modelward verify-proof` verifies it offline, with a root and nothing else; with the documents,
    down to the release's files.

    \b
        modelward-repo log prove meter-reader/1.2.0 -o release.tlog-proof --documents proof
        modelward verify-proof release.tlog-proof proof/* --root root.json
    """
    model, slash, version = release.partition("/")
    where = url or (str(repository) if repository else None)
    if not slash or where is None:
        raise UsageError(
            "which release of which repository?", "name MODEL/VERSION, and --repository or --url"
        )
    with source_of(where, root) as source:
        proof = prove_release(source, model, version)
    written = [output]
    replace_file(output, proof.data)
    if documents:
        documents.mkdir(parents=True, exist_ok=True)
        for name, data in proof.documents.items():
            replace_file(documents / name, data)
            written.append(documents / name)
    options.say(f"{output}: {model} {version} is in leaf {proof.index} of {proof.size}")
    options.result({"files": list(map(str, written)), "index": proof.index, "size": proof.size})


@log.command()
@click.argument("evidence", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--log", "vkey", metavar="VKEY", help="The log's key as you know it, or its file.")
@options.json_option
def judge(evidence: Path, vkey: str | None) -> int:
    """Judge evidence against a log, offline: two checkpoints that it signed.

    FILE is what `modelward evidence export` or `modelward-repo log monitor` kept. Without --log,
    compare the key that is printed with the one that the log is known by. Ends with exit code 3
    if the log is proven to have broken its promise to only append, with 4 if that is open.

    \b
        modelward-repo log judge evidence.json --log log.vkey
    """
    try:
        parsed = LogEvidence.parse(read(evidence))
    except FormatError as error:
        raise UsageError(f"{evidence} is no evidence against a log: {error.reason}") from error
    policy = parsed.policy
    if vkey:
        policy = LogPolicy(read_vkey(vkey), {}, None)
    found = split_view.judge(parsed, policy)
    options.say(f"{found.verdict.value}: {found.reason}")
    options.say(f"  the log's key: {policy.vkey}")
    options.result(
        {
            "verdict": found.verdict.value,
            "reason": found.reason,
            "proven": found.proven,
            "vkey": str(policy.vkey),
        }
    )
    return _JUDGED[found.verdict]


_JUDGED = {
    Verdict.SPLIT_VIEW: ExitCode.REFUSED,
    Verdict.REWRITTEN: ExitCode.REFUSED,
    Verdict.CONSISTENT: ExitCode.DONE,
    Verdict.OPEN: ExitCode.UNAVAILABLE,
    Verdict.NOTHING: ExitCode.ERROR,
}


def _say_event(event: Event) -> None:
    if options.speaks_json():
        click.echo(json.dumps(event.to_dict()))
    else:
        click.secho(str(event), err=event.alarm, fg="red" if event.alarm else None)


@contextmanager
def source_of(repository: str, root: Path | None) -> Iterator[Source]:
    """Give the repository at an address or in a directory."""
    trusted = read(root) if root else None
    if "://" not in repository:
        yield Source.stored(LocalStorage(Path(repository)), trusted)
        return
    with Http() as http:
        base = check_repository(repository)
        if trusted is None:
            trusted = http.fetch(f"{base}/{FIRST_ROOT}", ROOT_CAP)
            click.echo("No --root: trusting the first root that the server shows.", err=True)
        yield Source.served(http, base, trusted)
