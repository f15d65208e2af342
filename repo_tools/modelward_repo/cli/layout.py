"""The command `modelward-repo layout`."""

import sys
from pathlib import Path

import click

from modelward.errors import UsageError
from modelward_repo.cli import options
from modelward_repo.roles.keys import KeyFile
from modelward_repo.roles.signers import open_signer
from modelward_repo.supply_chain.attest import load_envelope
from modelward_repo.supply_chain.describe import describe, find_holders, lines
from modelward_repo.supply_chain.files import create_file, replace_file
from modelward_repo.supply_chain.layout import (
    FUNCTIONARY,
    OWNER,
    LayoutSource,
    compile_layout,
    sign_layout,
)

_FILE = click.Path(path_type=Path, dir_okay=False)
_NAMES = click.option(
    "--keys",
    "-k",
    envvar="MODELWARD_KEYS",
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of public keys, one folder a holder: shows names and checks signatures.",
)


@click.group()
def layout() -> None:
    """Compile, sign and show supply-chain layouts: who must do which step, with which files.

    A layout is written as a file in layouts/, compiled once its rules are agreed upon, and
    signed by several owners, each on their own machine:

    \b
        modelward-repo layout compile layouts/minimal.toml --keys KEYS \\
            --owners lead-a,lead-b,lead-c --output layout.json
        modelward-repo layout sign layout.json --key KEYS/lead-a/layout.key
        modelward-repo layout show layout.json --keys KEYS
    """


@layout.command("compile")
@click.argument("source", type=_FILE)
@options.keys_option
@click.option("--owners", required=True, help="Holders who will sign it, separated by commas.")
@click.option(
    "--output", "-o", type=_FILE, help="File to write; it must not exist. Default: print it."
)
@options.json_option
def compile_(source: Path, keys: Path, owners: str, output: Path | None) -> None:
    """Compile SOURCE, a file such as layouts/minimal.toml, to a layout that nobody has signed yet.

    Names become keys: of each holder, KEYS/<holder>/functionary.pub. Whatever would make the
    layout prove less than it seems to is an error: rules that let anything pass, one person in
    two duties, an owner who also does a step.

    \b
        modelward-repo layout compile layouts/minimal.toml --keys KEYS \\
            --owners lead-a,lead-b,lead-c --output layout.json
    """
    parsed = LayoutSource.load(source)
    names = [name.strip() for name in owners.split(",") if name.strip()]
    if not names:
        raise UsageError("a layout without owners cannot be signed", "name them with --owners")
    owner_ids = [
        file.public().keyid
        for file in (KeyFile.of(keys, name, OWNER) for name in names)
        if file.public_path.exists()
    ]
    functionaries = {
        holder: file.public()
        for holder, file in (
            (holder, KeyFile.of(keys, holder, FUNCTIONARY)) for holder in parsed.holders
        )
        if file.public_path.exists()
    }
    envelope = compile_layout(parsed, functionaries, [*names, *owner_ids], options.now())
    if output is None:
        click.echo(envelope.to_bytes(), nl=False)
        return
    create_file(output, envelope.to_bytes())
    for line in lines(envelope, find_holders(keys), options.now()):
        options.say(line)
    options.say(f"\n{output} is compiled. Next: `modelward-repo layout sign {output} --key KEY`")
    options.result({"file": str(output), **describe(envelope, find_holders(keys))})


@layout.command()
@click.argument("file", type=_FILE)
@options.key_option("An owner's private key, layout.key")
@_NAMES
@click.option("--yes", "-y", is_flag=True, help="Sign without being asked.")
@options.passphrase_option
@options.json_option
def sign(
    file: Path, key: str, keys: Path | None, yes: bool, passphrases: options.Passphrases
) -> None:
    """Show the layout FILE and add an owner's signature to it.

    Signatures of other owners are kept. The SHA-256 shown is of what is signed: owners who
    compare it know that they sign the same.

    \b
        modelward-repo layout sign layout.json --key KEYS/lead-a/layout.key
    """
    envelope = load_envelope(file)
    holders = find_holders(keys)
    for line in lines(envelope, holders, options.now()):
        options.say(line)
    if not yes and sys.stdin.isatty() and not click.confirm("\nSign this?", err=True):
        raise UsageError("nothing was signed", "sign only what you have read")
    signer = open_signer(key, passphrases)
    signed = sign_layout(envelope, signer)
    replace_file(file, signed.to_bytes())
    keyid = signer.public_key.keyid
    options.say(f"\nSigned with {key} ({keyid[:8]}); {len(signed.signatures)} signed so far.")
    options.result({"file": str(file), "keyid": keyid, **describe(signed, holders)})


@layout.command()
@click.argument("file", type=_FILE)
@_NAMES
@options.json_option
def show(file: Path, keys: Path | None) -> None:
    """Show the layout FILE: its steps, who may do them, their rules, who has signed.

    \b
        modelward-repo layout show layout.json --keys KEYS
    """
    envelope = load_envelope(file)
    holders = find_holders(keys)
    for line in lines(envelope, holders, options.now()):
        options.say(line)
    options.result({"file": str(file), **describe(envelope, holders)})
