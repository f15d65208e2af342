"""modelward-repo witness: watch over somebody else's log, and say so under one's own name."""

from pathlib import Path

import click

from modelward.errors import FormatError, UsageError
from modelward.formats.note import VerifierKey
from modelward_repo.cli import options

MEMORY = "witness.sqlite"


@click.group()
def witness() -> None:
    """Witness transparency logs: cosign what only grows, and nothing else.

    Run one on a host of its own, by people of their own: a witness is worth what it would take to
    make it lie together with the log. It keeps one small file, which must never be lost.

    \b
        modelward-repo witness key example.com/witness --out witness.key
        modelward-repo witness serve example.com/witness --key witness.key --log log.vkey
    """


@witness.command()
@click.argument("name")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The private key's file. An existing one is not changed; its vkey is printed.",
)
@click.option("--ml-dsa-44", "post_quantum", is_flag=True, help="Make a post-quantum key.")
@click.option("--plaintext-keys", is_flag=True, help="Leave the key unencrypted.")
@options.passphrase_option
@options.json_option
def key(
    name: str,
    out: Path,
    post_quantum: bool,
    plaintext_keys: bool,
    passphrases: options.Passphrases,
) -> None:
    """Make a key for the witness NAME, unless there is one, and print its vkey.

    Give the vkey to whoever runs the log: it goes into [log.witnesses] of the trust policy, and
    from there into root. A cosignature by an ML-DSA-44 key is 3.3 kB where an Ed25519 one is 100
    bytes; three of them fit into a timestamp.

    \b
        modelward-repo witness key example.com/witness --out witness.key
    """
    from modelward_repo.log import witness_keys  # noqa: PLC0415 - starts slowly

    made = not out.exists()
    if made:
        passphrase = None if plaintext_keys else passphrases.new()
        witness_keys.create(out, post_quantum=post_quantum, passphrase=passphrase)
    vkey = str(witness_keys.load(out, name, passphrases).vkey)
    options.say(vkey)
    options.result({"vkey": vkey, "key": str(out), "made": made})


@witness.command()
@click.argument("name")
@click.option(
    "--key",
    "keys",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A private key to cosign with; repeatable: with both kinds, an answer has both.",
)
@click.option(
    "--log",
    "logs",
    required=True,
    multiple=True,
    metavar="VKEY",
    help="A log to witness: its vkey, or a file with it; repeatable.",
)
@click.option(
    "--memory",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path(MEMORY),
    show_default=True,
    help="The file that remembers what was cosigned.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8090,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes any free one and says which.",
)
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes."
)
@options.passphrase_option
@options.json_option
def serve(
    name: str,
    keys: tuple[Path, ...],
    logs: tuple[str, ...],
    memory: Path,
    host: str,
    port: int,
    workers: int,
    passphrases: options.Passphrases,
) -> None:
    """Serve the witness NAME over HTTP, until it is told to stop.

    It speaks c2sp.org/tlog-witness: a log posts its newest tree to /add-checkpoint and gets back
    a cosignature, if the tree begins with the one it showed before.

    \b
        modelward-repo witness serve example.com/witness --key witness.key --log log.vkey
    """
    from modelward_repo.server.run import serve_witness  # noqa: PLC0415 - starts slowly, forks
    from modelward_repo.server.witness import Settings  # noqa: PLC0415

    settings = Settings(
        name,
        tuple(path.resolve() for path in keys),
        tuple(str(read_vkey(log)) for log in logs),
        memory.resolve(),
        passphrases.file.resolve() if passphrases.file else None,
    )
    settings.witness()  # whatever is wrong with it is said here, not by a worker that dies

    def ready(url: str) -> None:
        options.say(f"witnessing {len(logs)} log{'s' if len(logs) > 1 else ''} on {url}")
        options.result({"name": name, "url": url, "memory": str(memory)})

    serve_witness(settings, host, port, workers, ready)


def read_vkey(text: str) -> VerifierKey:
    """Return a vkey that is given as it is, or as the file that holds it.

    Raises:
        UsageError: It is neither.
    """
    try:
        if "+" not in text:
            text = Path(text).read_text(encoding="utf-8").strip()
        return VerifierKey.parse(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{text} is neither a vkey nor a file with one") from error
    except FormatError as error:
        raise UsageError(f"{text[:80]} is not a vkey: {error.problem}") from error
