"""modelward-repo refresh: sign what is about to expire anew."""

import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click
from securesystemslib.signer import Signer

from modelward.errors import ModelwardError, UsageError
from modelward_repo import systemd
from modelward_repo.cli import options
from modelward_repo.publish.refresh import check_refreshable, due
from modelward_repo.publish.refresh import refresh as refresh_roles
from modelward_repo.publish.signing import online_signers, role_signers
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.publish.status import standings
from modelward_repo.publish.watch import Kind, Line, Watch
from modelward_repo.roles.expiry import AUTOMATIC, Urgency, attention, by_urgency
from modelward_repo.roles.holders import folder_names
from modelward_repo.storage.local import LocalStorage
from modelward_repo.supply_chain.files import replace_file

PATIENCE = 30.0  # seconds that the watch waits for another publisher before it says so


@click.command()
@click.argument("roles", nargs=-1, metavar="[ROLE]...")
@click.option("--due", "only_due", is_flag=True, help="Sign only what has passed half of its time.")
@click.option("--watch", is_flag=True, help="Stay, and sign each role at half of its time.")
@click.option(
    "--systemd",
    "units",
    metavar="DIR",
    help="Write a systemd service and timer that run this; - prints them.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be signed; sign nothing.")
@options.repository_option
@options.keys_option
@options.passphrase_option
@options.json_option
def refresh(
    roles: tuple[str, ...],
    only_due: bool,
    watch: bool,
    units: str | None,
    dry_run: bool,
    repository: Path,
    keys: Path,
    passphrases: options.Passphrases,
) -> None:
    """Sign the timestamp anew, and the snapshot when it is half expired.

    Devices refuse a timestamp that is older than its validity, a day by default, because somebody
    may be hiding updates from them. So let a machine do this, by a timer or with --watch; both
    sign a role at half of its time, which leaves the other half to mend what may go wrong. Name
    other roles, such as channels or model-NAME, to renew their expiry as well; that takes their
    keys. It says loudly what is near its end and takes somebody else to sign.

    \b
        modelward-repo refresh --repository my-repo
        modelward-repo refresh --watch --repository my-repo
        modelward-repo refresh --systemd /etc/systemd/system --repository my-repo
        systemctl daemon-reload && systemctl enable --now modelward-refresh.timer
    """
    for role in roles:
        check_refreshable(role)
    if sum((only_due, watch, units is not None)) > 1 or (watch and dry_run):
        raise UsageError("--due, --watch and --systemd exclude each other", "choose one of them")
    if units is not None:
        _install(units, systemd.Place(repository, keys, passphrases.file, roles), dry_run=dry_run)
        return
    work = _Work(LocalStorage(repository), keys, passphrases)
    if watch:
        _watch(work, roles)
    else:
        _once(work, roles, only_due=only_due, dry_run=dry_run)


@dataclass(frozen=True)
class _Work:
    """Where to sign, with which keys."""

    storage: LocalStorage
    keys: Path
    passphrases: options.Passphrases

    def open_keys(
        self, staging: Staging, roles: Sequence[str]
    ) -> tuple[Online, Mapping[str, Sequence[Signer]]]:
        named = {role: role_signers(staging, role, self.keys, self.passphrases) for role in roles}
        return online_signers(staging, self.keys, self.passphrases), named

    def sign(
        self, now: datetime, roles: Sequence[str], patience: float | None = None
    ) -> tuple[str, ...]:
        staging = Staging.of(self.storage, now)
        online, named = self.open_keys(staging, roles)
        stale = None
        if staging.waiting:
            published = Staging.published(self.storage, now)
            stale = online_signers(published, self.keys, self.passphrases)
        return refresh_roles(self.storage, online, now, named, patience, stale=stale)


def _once(work: _Work, roles: Sequence[str], *, only_due: bool, dry_run: bool) -> None:
    now = options.now()
    staging = Staging.of(work.storage, now)
    times = due(staging, roles)
    wanted = [role for role in times if times[role] <= now or not only_due]
    if not only_due and not roles and times["snapshot"] > now:
        wanted.remove("snapshot")
    if dry_run or not wanted:
        signed: tuple[str, ...] = ()
    else:
        signed = work.sign(now, [role for role in wanted if role not in AUTOMATIC])
    if dry_run and wanted:
        options.say(f"Would be signed anew: {', '.join(wanted)}.")
    elif signed:
        options.say(f"Signed anew: {', '.join(signed)}.")
    else:
        options.say("Nothing is due: nothing was signed.")
    near = _near(Staging.of(work.storage, now), now, work.keys)
    for line in near:
        click.secho(f"ATTENTION: {line}", err=True, fg="yellow", bold=True)
    options.result(
        {"signed": list(signed), "attention": near} | ({"would_sign": wanted} if dry_run else {})
    )


def _near(staging: Staging, now: datetime, keys: Path) -> list[str]:
    """Return what is near its end and was not signed just now."""
    found = by_urgency(standings(staging, folder_names(keys)), now)
    return [attention(item, now) for item in found if item.urgency(now) is not Urgency.FINE]


def _watch(work: _Work, roles: Sequence[str]) -> None:
    try:
        due(Staging.of(work.storage, options.now()), roles)
    except UsageError:
        raise  # a misspelt name does not mend itself
    except ModelwardError:
        pass  # the watch will say so, and go on trying
    if sys.stdin.isatty():  # passphrases are typed now, by whoever starts the watch
        work.open_keys(Staging.of(work.storage, options.now()), roles)
    with _until_told() as sleep:
        Watch(
            storage=work.storage,
            sign=lambda now, wanted: work.sign(now, wanted, PATIENCE),
            roles=roles,
            clock=options.now,
            sleep=sleep,
            tell=_log,
            names=folder_names(work.keys),
        ).run()


def _log(line: Line) -> None:
    if options.speaks_json():
        click.echo(json.dumps(line.to_dict()))
    else:
        loud = line.kind in (Kind.PROBLEM, Kind.ATTENTION)
        click.secho(str(line), err=loud, fg="yellow" if loud else None, bold=loud)
    sys.stdout.flush()


@contextmanager
def _until_told() -> Iterator[Callable[[float], bool]]:
    """Give a `sleep` that ends early, and returns true, once SIGTERM or SIGINT has come.

    The signals only leave a note in a pipe: what is being signed is finished first.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)

    def note(_number: int, _frame: object) -> None:
        os.write(tell, b"!")

    def sleep(seconds: float) -> bool:
        return bool(select.select([told], [], [], seconds)[0])

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield sleep
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(told)
        os.close(tell)


def _install(where: str, place: systemd.Place, *, dry_run: bool) -> None:
    texts = systemd.units(place)
    printed = where == "-" or dry_run
    for name, text in texts.items():
        if printed:
            options.say(f"# {name}\n{text}")
        else:
            replace_file(Path(where) / name, text.encode())
            options.say(f"Wrote {Path(where) / name}")
    if not printed:
        options.say("Next: systemctl daemon-reload && systemctl enable --now " + systemd.TIMER)
    options.result({"units": texts, "written": None if printed else where})
