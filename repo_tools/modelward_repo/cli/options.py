"""Options that commands share, and how commands speak."""

import getpass
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from modelward.errors import UsageError
from modelward_repo.supply_chain.hasher import Progress, no_progress

F = TypeVar("F", bound=Callable[..., Any])
MAX_PASSPHRASE = 1024  # bytes
_PIN_FILE = f"{__name__}.pin_file"


@dataclass
class Output:
    """How to speak: to people, or in JSON to programs."""

    json: bool = False


def say(text: str = "") -> None:
    """Tell people something, unless the command speaks JSON."""
    if not _output().json:
        click.echo(text)


def result(data: Mapping[str, Any]) -> None:
    """Print a command's result, if it speaks JSON."""
    if _output().json:
        click.echo(json.dumps(data, indent=2))


def speaks_json() -> bool:
    """Tell whether the command speaks JSON."""
    return _output().json


@contextmanager
def progress(label: str) -> Iterator[Progress]:
    """Show a progress bar on a terminal, for as long as the block takes."""
    if _output().json or not sys.stderr.isatty():
        yield no_progress
        return
    with click.progressbar(length=0, label=label, file=sys.stderr) as bar:

        def advance(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield advance


def now() -> datetime:
    """Return the time, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


class Passphrases:
    """Where passphrases and PINs come from: files, or whoever sits at the terminal, asked once.

    Never from arguments or the environment, which other processes can read. A passphrase is asked
    for once and tried on every key file. A PIN is for one token only: trying it on another would
    bring that one nearer to locking.

    Args:
        file: File with the passphrase of encrypted keys; None to ask.
        pin_file: File with the PIN of a token; None to ask.
    """

    def __init__(self, file: Path | None, pin_file: Path | None = None) -> None:
        self._file = file
        self._pin_file = pin_file
        self._known: bytes | None = None
        self._pins: dict[str, bytes] = {}

    @property
    def file(self) -> Path | None:
        """The file that passphrases come from; None where somebody is asked."""
        return self._file

    def __call__(self, what: Path | str) -> bytes:
        """Return the passphrase of the key file at a path, or the PIN that a text names.

        Raises:
            UsageError: There is neither file nor terminal.
        """
        if isinstance(what, str):
            return self._pin(what)
        if self._known is None:
            self._known = _read(self._file, "passphrase") or _ask(
                f"Passphrase for {what}: ", f"the key {what} is encrypted", "passphrase"
            )
        return self._known

    def new(self) -> bytes:
        """Return the passphrase to encrypt new keys with, asking twice.

        Raises:
            UsageError: There is neither file nor terminal, or the answers differ.
        """
        if self._known is None:
            self._known = _read(self._file, "passphrase") or _ask_twice()
        return self._known

    def afresh(self) -> "Passphrases":
        """Return the same without what was asked so far: for a key with another passphrase."""
        return Passphrases(self._file, self._pin_file)

    def _pin(self, what: str) -> bytes:
        if what not in self._pins:
            if self._pin_file and self._pins:
                raise UsageError(
                    f"{self._pin_file} holds one PIN, but more than one token is used",
                    "name each token's own file in its URI, with pin-source=file:..., or be asked",
                )
            self._pins[what] = _read(self._pin_file, "PIN") or _ask(
                f"{what}: ", f"the {what} is needed", "pin"
            )
        return self._pins[what]


def _read(file: Path | None, what: str) -> bytes | None:
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_PASSPHRASE + 1)
    except OSError as error:
        raise UsageError(f"the {what} file {file} cannot be read: {error.strerror}") from error
    line = text.split(b"\n", 1)[0].rstrip(b"\r")
    if not line or len(line) > MAX_PASSPHRASE:
        raise UsageError(f"the first line of {file} is not a {what}")
    return line


def _ask(prompt: str, why: str, option: str) -> bytes:
    if not sys.stdin.isatty():
        raise UsageError(
            f"{why}, and there is no terminal to ask at",
            f"run this in a terminal, or name a file that holds it with --{option}-file",
        )
    return getpass.getpass(prompt).encode()


def _ask_twice() -> bytes:
    if not sys.stdin.isatty():
        raise UsageError(
            "new keys are encrypted, and there is no terminal to ask for a passphrase",
            "run this in a terminal, name a file that holds it with --passphrase-file, or leave "
            "the keys readable, for tests, with the option for plaintext keys",
        )
    first = getpass.getpass("Passphrase for the new keys: ")
    if not first:
        raise UsageError("an empty passphrase protects nothing")
    if getpass.getpass("Again: ") != first:
        raise UsageError("the two passphrases differ", "try again")
    return first.encode()


def repository_option(command: F) -> F:
    """Add ``--repository``, as a parameter `repository` of type Path."""
    return click.option(
        "--repository",
        "-r",
        envvar="MODELWARD_REPOSITORY",
        show_envvar=True,
        type=click.Path(path_type=Path, file_okay=False),
        callback=_repository,
        is_eager=True,  # the default of --keys depends on it
        help="The repository's directory. Default: this directory, if it is one.",
    )(command)


def repository_option_if_any(command: F) -> F:
    """Add ``--repository`` where there need not be one, as a parameter of type Path or None."""
    return click.option(
        "--repository",
        "-r",
        envvar="MODELWARD_REPOSITORY",
        type=click.Path(path_type=Path, file_okay=False),
        callback=lambda _ctx, _param, value: value or _here(),
        is_eager=True,
        help="The repository's directory. Default: this directory, if it is one.",
    )(command)


def keys_option(command: F) -> F:
    """Add ``--keys``, as a parameter `keys` of type Path."""
    return click.option(
        "--keys",
        "-k",
        envvar="MODELWARD_KEYS",
        show_envvar=True,
        type=click.Path(path_type=Path, file_okay=False),
        callback=_keys,
        help="Folder of keys, one folder a holder. Default: <repository>-keys beside it.",
    )(command)


def keys_option_if_any(command: F) -> F:
    """Add ``--keys`` where a key can be named without it, too."""
    return click.option(
        "--keys",
        "-k",
        envvar="MODELWARD_KEYS",
        show_envvar=True,
        type=click.Path(path_type=Path, file_okay=False),
        callback=lambda ctx, param, value: (
            _keys(ctx, param, value) if value or ctx.params.get("repository") else None
        ),
        help="Folder of keys, one folder a holder. Default: <repository>-keys beside it.",
    )(command)


def passphrase_option(command: F) -> F:
    """Add ``--passphrase-file`` and ``--pin-file``, as a parameter `passphrases`."""
    for_pins = click.option(
        "--pin-file",
        type=click.Path(path_type=Path, dir_okay=False),
        expose_value=False,
        is_eager=True,
        callback=lambda ctx, _param, value: ctx.meta.__setitem__(_PIN_FILE, value),
        help="File with the PIN of the token that a key is on, on its first line. Default: ask.",
    )
    for_files = click.option(
        "--passphrase-file",
        "passphrases",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=lambda ctx, _param, value: Passphrases(value, ctx.meta.get(_PIN_FILE)),
        help="File with the passphrase of encrypted keys on its first line. Default: ask.",
    )
    return for_files(for_pins(command))


def key_option(what: str) -> Callable[[F], F]:
    """Return what adds ``--key``, as a parameter `key` of type str, for `open_signer`.

    Args:
        what: Whose key it must be.
    """
    return click.option(
        "--key",
        required=True,
        metavar="KEY",
        type=click.Path(path_type=str),  # so that shells complete files; a URI passes as it is
        callback=lambda _ctx, _param, value: check_reference(value),
        help=f"{what}: a file, or a URI such as 'pkcs11:token=LABEL;id=%02' or awskms:...",
    )


def check_reference(reference: str) -> str:
    """Return the path or URI of a key, before anything is done with it.

    Raises:
        UsageError: It is a URI that makes no sense.
    """
    # Imported when needed: securesystemslib loads every key service's library that it finds.
    from modelward_repo.roles.remote import check_uri, scheme_of  # noqa: PLC0415

    return check_uri(reference) if scheme_of(reference) else reference


def json_option(command: F) -> F:
    """Add ``--json``; `result` and `say` know whether it was given."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_json,
        help="Speak JSON, errors too.",
    )(command)


def _output() -> Output:
    return click.get_current_context().find_root().ensure_object(Output)


def _json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().ensure_object(Output).json = True


def _repository(ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    if ctx.resilient_parsing:
        return value
    value = value or _here()
    if value is None:
        raise UsageError(
            "which repository? There is none in this directory",
            "name one with --repository DIR, or make one with `modelward-repo init`",
        )
    return value


def _here() -> Path | None:
    return Path() if Path("metadata/timestamp.json").is_file() else None


def _keys(ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    repository = ctx.params.get("repository") or ctx.params.get("directory")
    if value is not None or ctx.resilient_parsing:
        return value
    if repository is None:
        raise UsageError("which keys?", "name their folder with --keys DIR")
    where = Path(repository).resolve()
    return where.with_name(f"{where.name}-keys")
