"""modelward-repo ceremony: change who may sign what, with the keys offline."""

import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path

import click
from securesystemslib.signer import Signer

from modelward.errors import UsageError
from modelward_repo.cli import options
from modelward_repo.cli.changes import propose
from modelward_repo.cli.times import now_option
from modelward_repo.roles import carry, words
from modelward_repo.roles import ceremony as ceremonies
from modelward_repo.roles.enact import Enacted, Order, enact
from modelward_repo.roles.keys import find_signers
from modelward_repo.roles.request import Request, check_known_root
from modelward_repo.roles.review import Review, page, review, text
from modelward_repo.roles.signers import open_public, open_signer
from modelward_repo.roles.state import Rejected, holder, listed, title
from modelward_repo.storage.local import LocalStorage

_FILE = click.Path(path_type=Path, dir_okay=False)
_REQUEST = click.argument("file", type=_FILE)
_EXPECT = click.option(
    "--expect", metavar="WORDS", help="Go on only if the request has these words."
)
_KNOWN_ROOT = click.option(
    "--known-root",
    type=_FILE,
    help="A root.json that you know is right: go on only if the request builds upon it.",
)
_CONFIRM = click.option(
    "--confirm",
    metavar="ROLE",
    multiple=True,
    help="Name of a role that changes dangerously, given here instead of typed; repeatable.",
)
_KEYS = click.option(
    "--key",
    "references",
    metavar="KEY",
    multiple=True,
    help="A key: its file, or a URI such as pkcs11:...; repeatable.",
)


@click.group()
def ceremony() -> None:
    """Change who may sign what, with keys that are never online.

    A change is one file, the signing request. It is proposed where the repository is, carried to
    whoever must sign it, who need nothing but the file, and published once enough have signed:

    \b
        modelward-repo ceremony propose add-key root carol.pub -o request.json
        modelward-repo ceremony sign request.json --key KEYS/alice/root.key
        modelward-repo ceremony merge alice.json bob.json -o request.json
        modelward-repo ceremony publish request.json
    """


ceremony.add_command(propose)


@ceremony.command()
@_REQUEST
@click.option("--html", type=_FILE, help="Also write it as a page to print, with a QR code.")
@_EXPECT
@_KNOWN_ROOT
@now_option
@options.json_option
def show(
    file: Path, html: Path | None, expect: str | None, known_root: Path | None, now: datetime
) -> None:
    """Show what the signing request FILE changes, who has signed, and what to be careful about.

    Everything shown is worked out from the metadata in the request. Its words are the same for
    every signer: compare them, aloud or on paper.

    \b
        modelward-repo ceremony show request.json --html request.html
    """
    request = _open(file, expect, known_root)
    found = review(request, now)
    _say(text.lines(found))
    if html:
        carry.write(html, page.html(found).encode())
        options.say(f"\nTo print: {html}")
    options.result({"file": str(file), **found.to_dict()})


@ceremony.command()
@_REQUEST
@_KEYS
@click.option("--output", "-o", type=_FILE, help="File to write. Default: FILE itself.")
@_EXPECT
@_KNOWN_ROOT
@_CONFIRM
@click.option("--yes", "-y", is_flag=True, help="Sign without being asked, but for dangers.")
@click.option("--dry-run", is_flag=True, help="Do everything but sign.")
@now_option
@options.passphrase_option
@options.json_option
def sign(
    file: Path,
    references: tuple[str, ...],
    output: Path | None,
    expect: str | None,
    known_root: Path | None,
    confirm: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    now: datetime,
    passphrases: options.Passphrases,
) -> None:
    """Show the signing request FILE and sign it: offline, without the repository.

    Signs whatever in the request the key may sign. Signatures of others are kept. Changes that
    can lock people or devices out ask you to type the role's name.

    \b
        modelward-repo ceremony sign request.json --key KEYS/alice/root.key
    """
    if not references:
        raise UsageError("sign with which key?", "name it with --key FILE, or --key pkcs11:...")
    request = _open(file, expect, known_root)
    found = review(request, now)
    _say(text.lines(found))
    if found.stops:
        raise Rejected(f"this must not be signed: {found.stops[0].text}", "nothing was signed")
    publics = {reference: open_public(reference, passphrases) for reference in references}
    for public in publics.values():
        roles = ceremonies.check_may_sign(request, public.keyid)
        name = next(
            holder(key)
            for role in roles
            for keyid, key in request.members(role).items()
            if keyid == public.keyid
        )
        options.say(f"\nYou sign {listed(roles)} as {title(public.keyid, name)}.")
    if not dry_run:
        _consent(found, confirm, yes=yes)
    signed: dict[str, list[str]] = {}
    for reference, public in () if dry_run else publics.items():
        signer = open_signer(reference, passphrases.afresh())
        if signer.public_key.keyid != public.keyid:
            raise UsageError(f"the private key of {reference} is not that of its public key")
        request, roles = ceremonies.sign(request, signer)
        signed[public.keyid] = list(roles)
    where = output or file
    if dry_run:
        options.say("\nNothing was signed: this was a dry run.")
    else:
        request = carry.save(where, request)
        options.say(f"\nSigned, and written to {where}. Bring it to whoever signs next, or back.")
    found = review(request, now)
    options.say(text.conclusion(found))
    options.result({"file": str(where), "signed": signed, **found.to_dict()})


@ceremony.command()
@click.argument("files", type=_FILE, nargs=-1, required=True)
@click.option("--output", "-o", type=_FILE, required=True, help="File to write.")
@click.option("--dry-run", is_flag=True, help="Show what would come of it, write nothing.")
@now_option
@options.json_option
def merge(files: tuple[Path, ...], output: Path, dry_run: bool, now: datetime) -> None:
    """Collect the signatures of several copies of one signing request, in any order.

    \b
        modelward-repo ceremony merge alice.json bob.json -o request.json
    """
    request = ceremonies.merge({str(path): carry.load(path) for path in files})
    if not dry_run:
        request = carry.save(output, request)
    found = review(request, now)
    _say(text.status(found))
    options.say("Nothing was written: this was a dry run." if dry_run else f"Written to {output}.")
    options.result({"file": str(output), **found.to_dict()})


@ceremony.command()
@_REQUEST
@now_option
@options.json_option
def status(file: Path, now: datetime) -> None:
    """Show who has signed the request FILE, who is missing, and what comes next.

    \b
        modelward-repo ceremony status request.json
    """
    found = review(carry.load(file), now)
    _say(text.status(found))
    options.result({"file": str(file), **found.to_dict()})


@ceremony.command()
@_REQUEST
@_KEYS
@click.option(
    "--leave-out",
    metavar="PATH",
    multiple=True,
    help="Target, or folder of targets such as models/MODEL/1.0.1, that new keys are not to "
    "vouch for; repeatable.",
)
@_EXPECT
@_CONFIRM
@click.option("--dry-run", is_flag=True, help="Run every check, write nothing.")
@options.repository_option
@options.keys_option
@options.passphrase_option
@options.json_option
def publish(
    file: Path,
    references: tuple[str, ...],
    leave_out: tuple[str, ...],
    expect: str | None,
    confirm: tuple[str, ...],
    dry_run: bool,
    repository: Path,
    keys: Path,
    passphrases: options.Passphrases,
) -> None:
    """Bring the signing request FILE into force, once enough have signed.

    A new root must be signed by enough keys of the present root and of the new one. Snapshot and
    timestamp are signed anew, and roles whose keys changed; that takes their keys. The result is
    read as a device reads it before anything is written, and if this is interrupted, running it
    again finishes it.

    \b
        modelward-repo ceremony publish request.json --repository my-repo
    """
    now = options.now()
    request = _open(file, expect, None)
    found = review(request, now)
    _say(text.changes(found))
    _say(text.warnings(found))
    if found.stops:
        raise Rejected(f"this must not be published: {found.stops[0].text}", "nothing was changed")
    # Nobody's signature covers these numbers, and devices never go back from them.
    numbers = [role for role in found.to_type if role in request.proposed.numbers]
    if not dry_run:
        _have_typed(found, numbers, confirm)
    finder = _Finder(references, keys, passphrases)
    done = enact(LocalStorage(repository), request, Order(finder, leave_out, dry_run), now)
    _tell(done, dry_run=dry_run)
    options.result(
        {
            "published": not dry_run,
            "already": done.already,
            "versions": dict(done.versions),
            "carried": {role: list(paths) for role, paths in done.carried.items()},
            "gapless": done.gapless,
            "words": request.words,
        }
    )


@ceremony.command()
@click.argument("path", metavar="DOCUMENT")
@click.option("--output", "-o", type=_FILE, required=True, help="File to write.")
@options.repository_option
@options.json_option
def document(path: str, output: Path, repository: Path) -> None:
    """Write a DOCUMENT that targets signs to a file: to change it, or have it signed anew.

    \b
        modelward-repo ceremony document layouts/my-model.json -o layout.json
        modelward-repo layout sign layout.json --key KEYS/lead-d/layout.key
        modelward-repo ceremony propose set-layout my-model layout.json -o request.json
    """
    documents = ceremonies.documents(LocalStorage(repository), options.now())
    if path not in documents:
        raise UsageError(
            f"targets signs no document {path!r}", f"there are {', '.join(sorted(documents))}"
        )
    if output.exists():
        raise UsageError(f"{output} exists already", "name another file, or move it away")
    carry.write(output, documents[path])
    options.say(f"{path} is written to {output}.")
    options.result({"document": path, "file": str(output)})


class _Finder:
    """Finds online keys: those named on the command line first, then those in the folder."""

    def __init__(
        self, references: Sequence[str], keys: Path, passphrases: options.Passphrases
    ) -> None:
        self._named = {open_public(one, passphrases).keyid: one for one in references}
        self._keys = keys
        self._passphrases = passphrases

    def __call__(self, role: str, keyids: Collection[str], threshold: int) -> list[Signer]:
        named = [keyid for keyid in keyids if keyid in self._named][:threshold]
        found = [open_signer(self._named[keyid], self._passphrases) for keyid in named]
        if len(found) < threshold:
            rest = [keyid for keyid in keyids if keyid not in named]
            missing = threshold - len(found)
            found += find_signers(self._keys, role, rest, missing, self._passphrases)
        return found


def _open(file: Path, expect: str | None, known_root: Path | None) -> Request:
    request = carry.load(file)
    if expect is not None:
        try:
            expected = words.read(expect)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if expected != request.words:
            raise Rejected(
                f"{file} has the words {request.words}, not {expected}",
                "it is not the request that was agreed upon: do not sign it, tell the others",
            )
    if known_root is not None:
        version = check_known_root(request, carry.read(known_root))
        options.say(f"It builds upon root {version}, which you know.")
    return request


def _consent(found: Review, confirmed: Sequence[str], *, yes: bool) -> None:
    """Ask whether to sign; for what is dangerous, by having the role's name typed.

    Raises:
        UsageError: The answer was no, or there is nobody to ask.
    """
    _have_typed(found, found.to_type, confirmed)
    if found.to_type or yes or not sys.stdin.isatty():
        return
    if not click.confirm("\nSign this?", err=True):
        raise _declined()


def _have_typed(found: Review, roles: Sequence[str], confirmed: Sequence[str]) -> None:
    """Have the names of roles typed, unless they were given as options.

    Raises:
        UsageError: One was not, or there is nobody to type it.
    """
    names = {name.strip() for each in confirmed for name in each.split(",")}
    to_type = [role for role in roles if role not in names]
    if to_type and not sys.stdin.isatty():
        raise UsageError(
            f"this changes {listed(to_type)} dangerously, and there is no terminal to type it at",
            "if it is what was agreed upon, say "
            + " ".join(f"--confirm '{role}'" for role in to_type),
        )
    for role in to_type:
        for line in text.dangers(found, role):
            click.echo(line, err=True)
        prompt = f"Type {role} to go on"
        if click.prompt(prompt, default="", show_default=False, err=True).strip() != role:
            raise _declined()


def _declined() -> UsageError:
    return UsageError(
        "nothing was signed", "go on only with what you have read and what was agreed upon"
    )


def _tell(done: Enacted, *, dry_run: bool) -> None:
    if done.already:
        options.say("\nThis request is in force already: nothing to do.")
        return
    what = "Would be in force" if dry_run else "In force"
    versions = ", ".join(f"{role} {version}" for role, version in done.versions.items())
    options.say(f"\n{what}: {versions}.")
    for role, paths in done.carried.items():
        options.say(f"  The new keys of {role} vouch for what it listed before:")
        for path in paths or ("nothing",):
            options.say(f"    {path}")
    if not done.gapless:
        options.say(
            "  Between two files there is a moment in which devices refuse; they follow next time."
        )


def _say(lines: Iterable[str]) -> None:
    """Tell people, with what matters most in colour where the terminal has any."""
    for line in lines:
        if line.startswith(("  STOP", "DO NOT SIGN")):
            options.say(click.style(line, fg="red", bold=True))
        elif line.startswith(("  !!", "    !")):
            options.say(click.style(line, fg="yellow", bold=True))
        else:
            options.say(click.style(line, bold=True) if line.isupper() else line)
