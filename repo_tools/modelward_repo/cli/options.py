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
    """Where passphrases come from: a file, or whoever sits at the terminal, asked once.

    Never from arguments or the environment, which other processes can read.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: bytes | None = None

    def __call__(self, path: Path) -> bytes:
        """Return the passphrase of a key file.

        Raises:
            UsageError: There is neither file nor terminal.
        """
        if self._known is None:
            self._known = self._read() or _ask(f"Passphrase for {path}: ", f"the key {path}")
        return self._known

    def new(self) -> bytes:
        """Return the passphrase to encrypt new keys with, asking twice.

        Raises:
            UsageError: There is neither file nor terminal, or the answers differ.
        """
        if self._known is None:
            self._known = self._read() or _ask_twice()
        return self._known

    def _read(self) -> bytes | None:
        if self._file is None:
            return None
        try:
            text = self._file.read_bytes()[: MAX_PASSPHRASE + 1]
        except OSError as error:
            raise UsageError(
                f"the passphrase file {self._file} cannot be read: {error.strerror}"
            ) from error
        line = text.split(b"\n", 1)[0].rstrip(b"\r")
        if not line or len(line) > MAX_PASSPHRASE:
            raise UsageError(f"the first line of {self._file} is not a passphrase")
        return line


def _ask(prompt: str, what: str) -> bytes:
    if not sys.stdin.isatty():
        raise UsageError(
            f"{what} is encrypted, and there is no terminal to ask for its passphrase",
            "run this in a terminal, or name a file that holds it with --passphrase-file",
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
    """Add ``--repository`` where it only says where the keys are by default."""
    return click.option(
        "--repository",
        "-r",
        envvar="MODELWARD_REPOSITORY",
        type=click.Path(path_type=Path, file_okay=False),
        callback=lambda _ctx, _param, value: value or _here(),
        is_eager=True,
        help="The repository whose keys these are.",
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


def passphrase_option(command: F) -> F:
    """Add ``--passphrase-file``, as a parameter `passphrases` of type Passphrases."""
    return click.option(
        "--passphrase-file",
        "passphrases",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=lambda _ctx, _param, value: Passphrases(value),
        help="File with the passphrase of encrypted keys on its first line. Default: ask.",
    )(command)


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
