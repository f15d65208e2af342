"""modelward-repo key: create and list keys."""

from pathlib import Path

import click

from modelward.errors import UsageError
from modelward.formats.names import check_name
from modelward_repo.cli import options
from modelward_repo.roles.keys import KeyFile, find_keys


@click.group()
def key() -> None:
    """Create and list keys: one folder a holder, as if on separate machines."""


@key.command()
@click.argument("name", metavar="HOLDER/NAME")
@click.option("--plaintext", is_flag=True, help="Leave it unencrypted. For tests and demos only.")
@click.option(
    "--scheme",
    type=click.Choice(["ed25519", "ecdsa-sha2-nistp256"]),
    default="ed25519",
    show_default=True,
)
@options.repository_option_if_any
@options.keys_option
@options.passphrase_option
@options.json_option
def create(
    name: str,
    plaintext: bool,
    scheme: str,
    repository: Path | None,
    keys: Path,
    passphrases: options.Passphrases,
) -> None:
    """Create the key NAME of HOLDER. Hand the .pub file to others; the .key file stays.

    A role's key has the role's name (root, targets, snapshot, timestamp, channels, model-MODEL);
    an owner of layouts has a key named layout; whoever does steps has one named functionary.

    \b
        modelward-repo key create alice/root --keys keys
    """
    del repository
    file = _key(keys, name)
    public = file.create(None if plaintext else passphrases.new(), scheme)
    options.say(f"Created {file.path} ({'NOT encrypted' if plaintext else 'encrypted'})")
    options.say(f"  public: {file.public_path}")
    options.say(f"  key id: {public.keyid}")
    options.result(_json(file))


@key.command("list")
@options.repository_option_if_any
@options.keys_option
@options.json_option
def list_keys(repository: Path | None, keys: Path) -> None:
    """List the keys of all holders: key id, name, and whether the private key is here."""
    del repository
    found = list(find_keys(keys))
    for file in found:
        here = "private key here" if file.exists() else "public key only"
        options.say(f"{file.public().keyid[:8]}  {_name(file):<32} {here}")
    if not found:
        options.say(f"There are no keys in {keys}.")
    options.result({"keys": [_json(file) for file in found]})


@key.command()
@click.argument("name", metavar="HOLDER/NAME")
@options.repository_option_if_any
@options.keys_option
@options.json_option
def show(name: str, repository: Path | None, keys: Path) -> None:
    """Show one key."""
    del repository
    file = _key(keys, name)
    public = file.public()
    options.say(f"{_name(file)}")
    options.say(f"  key id: {public.keyid}")
    options.say(f"  scheme: {public.scheme}")
    options.say(f"  public: {public.public}")
    options.say(f"  private key: {file.path if file.exists() else 'not here'}")
    options.result(_json(file))


def _key(keys: Path, name: str) -> KeyFile:
    holder, slash, key_name = name.partition("/")
    try:
        if slash:
            return KeyFile.of(keys, check_name(holder), check_name(key_name))
    except ValueError as error:
        raise UsageError(str(error)) from error
    raise UsageError(f"{name!r} is not HOLDER/NAME", "such as alice/root or train-ci/functionary")


def _name(file: KeyFile) -> str:
    return f"{file.path.parent.name}/{file.path.stem}"


def _json(file: KeyFile) -> dict[str, object]:
    public = file.public()
    return {
        "name": _name(file),
        "keyid": public.keyid,
        "scheme": public.scheme,
        "public": public.public,
        "private_key": str(file.path) if file.exists() else None,
    }
