"""modelward-repo key: create, list, show and test keys."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from modelward.errors import ModelwardError, UsageError
from modelward.formats.names import check_name
from modelward.formats.policy import Key
from modelward_repo.cli import options
from modelward_repo.publish.holdings import holdings
from modelward_repo.publish.staging import TIMESTAMP, Staging
from modelward_repo.roles import private, remote, tokens
from modelward_repo.roles.keys import PRIVATE, REFERENCE, KeyFile, find_keys, from_sslib
from modelward_repo.roles.signers import open_signer
from modelward_repo.storage.local import LocalStorage

# Nothing that is signed anywhere begins like this, so that no test makes a signature of worth.
CHALLENGE = b"modelward-repo key test\n"
_NAME = click.argument("name", metavar="HOLDER/NAME")


@click.group()
def key() -> None:
    """Create, list and test keys: one folder a holder, as if on separate machines.

    A key is a file, or it is elsewhere and a file says where, by a URI:

    \b
        pkcs11:token=LABEL;id=%02?module-path=/usr/lib/softhsm/libsofthsm2.so
        awskms:KEY
        gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1
        azurekms://VAULT.vault.azure.net/keys/NAME/VERSION
        hv:NAME/VERSION
        ssh-agent:SHA256:FINGERPRINT
    """


@key.command()
@_NAME
@click.option(
    "--plaintext",
    "--plaintext-keys",
    "plaintext",
    is_flag=True,
    help="Leave it unencrypted. For tests and demos only.",
)
@click.option(
    "--scheme",
    type=click.Choice(private.SCHEMES),
    help="Default: ed25519, or ecdsa-sha2-nistp256 on a token.",
)
@click.option(
    "--on",
    metavar="URI",
    help="Make it on a PKCS#11 token: pkcs11:token=LABEL. It never leaves it.",
)
@options.repository_option_if_any
@options.keys_option
@options.passphrase_option
@options.json_option
def create(
    name: str,
    plaintext: bool,
    scheme: str | None,
    on: str | None,
    repository: Path | None,
    keys: Path,
    passphrases: options.Passphrases,
) -> None:
    """Create the key NAME of HOLDER. Hand the .pub file to others; the .key file stays.

    A role's key has the role's name (root, targets, snapshot, timestamp, channels, model-MODEL);
    an owner of layouts has a key named layout; whoever does steps has one named functionary.

    \b
        modelward-repo key create alice/root --keys keys
        modelward-repo key create bob/root --keys keys --scheme ml-dsa-65
        modelward-repo key create carol/root --keys keys --on 'pkcs11:token=carol'
    """
    del repository
    file = _key(keys, name)
    if on is None:
        public = file.create(None if plaintext else passphrases.new(), scheme or "ed25519")
        options.say(f"Created {file.path} ({'NOT encrypted' if plaintext else 'encrypted'})")
    else:
        public = _create_on(file, on, scheme or next(iter(tokens.CURVES)), passphrases)
        options.say(f"Created {file.reference()}, which {file.reference_path} refers to")
    _tell_public(file, public)
    options.result(_json(file, {}))


@key.command()
@_NAME
@click.argument("uri")
@options.repository_option_if_any
@options.keys_option
@options.passphrase_option
@options.json_option
def add(
    name: str, uri: str, repository: Path | None, keys: Path, passphrases: options.Passphrases
) -> None:
    """Have the key at URI as the key NAME of HOLDER.

    The key stays where it is. HOLDER/NAME.ref is written to say where, and HOLDER/NAME.pub with
    its public half; from then on every command that needs the key finds it.

    \b
        modelward-repo key add alice/root 'pkcs11:token=YubiKey PIV %2315835999;id=%02' --keys keys
        modelward-repo key add online/timestamp awskms:alias/timestamp --keys keys
    """
    del repository
    file = _key(keys, name)
    public = file.refer(remote.check_uri(uri), passphrases)
    options.say(f"{file.reference_path} refers to {file.reference()}")
    _tell_public(file, public)
    options.result(_json(file, {}))


@key.command("list")
@options.repository_option_if_any
@options.keys_option
@options.json_option
def list_keys(repository: Path | None, keys: Path) -> None:
    """List the keys of all holders: where each is, and what it may sign in the repository."""
    roles = _roles(repository)
    rows = [("holder", "name", "scheme", "key id", "private key", "may sign")]
    found = list(find_keys(keys))
    for file in found:
        public = file.public()
        signs = ", ".join(roles.get(public.keyid, ())) or ("-" if roles else "")
        holder, _, name = file.name.partition("/")
        rows.append((holder, name, public.scheme, public.keyid[:8], _where(file), signs))
    if found:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            options.say("  ".join(cells).rstrip())
    else:
        options.say(f"There are no keys in {keys}.")
    options.result({"keys": [_json(file, roles) for file in found]})


@key.command()
@_NAME
@options.repository_option_if_any
@options.keys_option
@options.json_option
def show(name: str, repository: Path | None, keys: Path) -> None:
    """Show one key."""
    file = _key(keys, name)
    public = file.public()
    roles = _roles(repository)
    options.say(file.name)
    options.say(f"  key id: {public.keyid}")
    options.say(f"  scheme: {public.scheme}")
    options.say(f"  public: {public.public}")
    options.say(f"  private key: {_location(file) or 'not here'}")
    if file.path.exists():
        options.say(f"  encrypted: {'yes' if file.is_encrypted() else 'NO'}")
    if roles:
        options.say(f"  may sign: {', '.join(roles.get(public.keyid, ())) or 'nothing here'}")
    options.result(_json(file, roles))


@key.command()
@click.argument("name", metavar="HOLDER/NAME|KEY")
@options.repository_option_if_any
@options.keys_option_if_any
@options.passphrase_option
@options.json_option
def test(
    name: str, repository: Path | None, keys: Path | None, passphrases: options.Passphrases
) -> None:
    """Open a key, sign a random challenge, verify it. Metadata is not touched.

    KEY is a file, or a URI. Do this before a ceremony: it finds a forgotten passphrase, a locked
    token or an expired login while there is time.

    \b
        modelward-repo key test alice/root --keys keys
        modelward-repo key test 'pkcs11:token=alice;id=%02'
    """
    del repository
    tested = _test(_reference(name, keys), passphrases)
    signer = "with the key" if tested.known else "with what it says is its public key"
    options.say(f"{name}: it signs, and the signature verifies {signer} {tested.key.keyid[:8]}")
    options.say(f"  scheme: {tested.key.scheme}")
    options.say(f"  opened in {tested.opened:.3f} s, signed in {tested.signed:.3f} s")
    options.result(
        {
            "key": name,
            "keyid": tested.key.keyid,
            "scheme": tested.key.scheme,
            "opened_in": round(tested.opened, 6),
            "signed_in": round(tested.signed, 6),
        }
    )


@dataclass(frozen=True)
class _Tested:
    """How a test went.

    Attributes:
        key: The public key.
        known: Whether it was known beforehand, from a .pub file.
        opened: How long opening took, with whoever was asked, in seconds.
        signed: How long signing took, in seconds.
    """

    key: Key
    known: bool
    opened: float
    signed: float


def _test(reference: str | KeyFile, passphrases: options.Passphrases) -> _Tested:
    start = time.monotonic()
    known = None
    if isinstance(reference, KeyFile):
        signer = reference.signer(passphrases)
        known = reference.public() if reference.public_path.exists() else None
    else:
        signer = open_signer(reference, passphrases)
    opened = time.monotonic()
    challenge = CHALLENGE + secrets.token_hex(32).encode()
    signature = signer.sign(challenge)
    signed = time.monotonic()
    signer.public_key.verify_signature(signature, challenge)
    key = from_sslib(signer.public_key)
    if known not in (None, key):
        raise UsageError(
            f"the private key of {name_of(reference)} is {key.keyid[:8]}, but its .pub file is not",
            "move the one away that is wrong: nothing this key signs would count",
        )
    return _Tested(key, known is not None, opened - start, signed - opened)


def name_of(reference: str | KeyFile) -> str:
    """Return what to call a key."""
    return reference.name if isinstance(reference, KeyFile) else reference


def _reference(name: str, keys: Path | None) -> str | KeyFile:
    if remote.scheme_of(name):
        return name
    if name.endswith((PRIVATE, REFERENCE)) or Path(name).is_file():
        return KeyFile(Path(name))
    if keys is None:
        raise UsageError(
            "which keys?", "name their folder with --keys DIR, or the key by its file or URI"
        )
    return _key(keys, name)


def _create_on(file: KeyFile, uri: str, scheme: str, passphrases: options.Passphrases) -> Key:
    file.check_free()
    if remote.scheme_of(uri) != "pkcs11":
        raise UsageError(
            "a key can be made on a PKCS#11 token only, with --on pkcs11:token=LABEL",
            "make it with the service's own tool, then `modelward-repo key add HOLDER/NAME URI`",
        )
    if scheme not in tokens.CURVES:
        raise UsageError(
            f"a token cannot make {scheme} keys", f"use one of {', '.join(tokens.CURVES)}"
        )
    return file.refer(remote.make_key(uri, scheme, passphrases), passphrases)


def _key(keys: Path, name: str) -> KeyFile:
    holder, slash, key_name = name.partition("/")
    try:
        if slash:
            return KeyFile.of(keys, check_name(holder), check_name(key_name))
    except ValueError as error:
        raise UsageError(str(error)) from error
    raise UsageError(f"{name!r} is not HOLDER/NAME", "such as alice/root or train-ci/functionary")


def _roles(repository: Path | None) -> Mapping[str, tuple[str, ...]]:
    """Return what each key may sign; nothing where there is no repository yet."""
    if repository is None or not (repository / TIMESTAMP).is_file():
        return {}
    return holdings(Staging.of(LocalStorage(repository), options.now()))


def _location(file: KeyFile) -> str | None:
    return file.reference() or (str(file.path) if file.path.exists() else None)


def _where(file: KeyFile) -> str:
    """Return where a private key is, in few words; what is wrong with it, too."""
    try:
        uri = file.reference()
        if uri:
            return uri.partition("?")[0]
        if not file.path.exists():
            return "not here"
        return "here, encrypted" if file.is_encrypted() else "here, NOT encrypted"
    except ModelwardError as error:
        return f"({error.reason})"


def _tell_public(file: KeyFile, public: Key) -> None:
    options.say(f"  public: {file.public_path}")
    options.say(f"  key id: {public.keyid}")


def _json(file: KeyFile, roles: Mapping[str, tuple[str, ...]]) -> dict[str, object]:
    public = file.public()
    here = file.path.exists()
    return {
        "name": file.name,
        "keyid": public.keyid,
        "scheme": public.scheme,
        "public": public.public,
        "private_key": str(file.path) if here else None,
        "reference": None if here else file.reference(),
        "encrypted": file.is_encrypted() if here else None,
        "may_sign": list(roles.get(public.keyid, ())),
    }
