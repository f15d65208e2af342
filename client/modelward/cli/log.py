"""`modelward evidence`, `gossip` and `verify-proof`: what concerns the transparency log."""

import argparse
import sys
from typing import Any

from modelward.cli import files
from modelward.cli.options import command, device_of
from modelward.cli.terminal import say
from modelward.errors import ExitCode, UsageError

_EVIDENCE_HELP = """\
List the evidence that this device keeps against the log, or export one: two checkpoints that the
log signed and that cannot both be true. Anyone can judge it, offline:
`modelward-repo log judge FILE`. Exit code 3 if it proves that the log of today lies.

example:
  modelward evidence export --to evidence.json
"""
_GOSSIP_HELP = """\
Compare a neighbour's checkpoint of the log with the one this device believes. Exit code 3 if both
cannot be true: a split view. The evidence is kept. One's own is in `modelward status --json`.

example:
  modelward gossip http://10.0.0.7:8000/log/checkpoint
"""
_PROOF_HELP = """\
Verify offline that a state of the repository was logged and cosigned, and that it vouches for the
documents given. No device is needed.

example:
  modelward verify-proof release.tlog-proof --root root.json
"""


def add(commands: Any) -> None:
    """Add the commands."""
    evidence = command(
        commands, "evidence", _evidence, "list or export evidence against the log", _EVIDENCE_HELP
    )
    evidence.add_argument("action", choices=("list", "export"))
    evidence.add_argument("name", nargs="?", metavar="NAME", help="which; the newest if not given")
    evidence.add_argument("--to", metavar="FILE", help="where to write it (default: print it)")

    gossip = command(
        commands, "gossip", _gossip, "compare the log with what a neighbour saw", _GOSSIP_HELP
    )
    gossip.add_argument("checkpoint", metavar="FILE_OR_URL", help="a neighbour's checkpoint")

    proof = command(
        commands, "verify-proof", _verify_proof, "verify that something was logged", _PROOF_HELP
    )
    proof.add_argument("proof", metavar="FILE", help="a tlog-proof file")
    proof.add_argument("--root", metavar="FILE", required=True, help="root metadata to trust")
    proof.add_argument(
        "documents", nargs="*", metavar="DOCUMENT",
        help="documents to follow from there: snapshot, role, release.json, a file",
    )  # fmt: skip


def _evidence(options: argparse.Namespace) -> ExitCode:
    from modelward import log_memory  # noqa: PLC0415

    memory = log_memory.remember(device_of(options))
    chosen = [kept for kept in memory.evidence if options.name in (None, kept.name)]
    if options.action == "list":
        told = {"evidence": [log_memory.kept_dict(kept) for kept in chosen]}
        lines = [f"{kept.name}: {kept.judgement.reason}" for kept in chosen]
        say(options, told, "\n".join(lines) or "no evidence is kept")
        return ExitCode.REFUSED if memory.alarms else ExitCode.DONE
    if not chosen:
        raise UsageError("there is no such evidence", "`modelward evidence list` shows what is")
    data = chosen[-1].evidence.to_bytes()
    if options.to:
        files.write(options.to, data)
        say(options, {"written": options.to} | log_memory.kept_dict(chosen[-1]), options.to)
    else:
        sys.stdout.write(data.decode())
    return ExitCode.DONE


def _gossip(options: argparse.Namespace) -> ExitCode:
    from modelward import log_memory  # noqa: PLC0415
    from modelward.formats import note  # noqa: PLC0415
    from modelward.install.owner import check_owner  # noqa: PLC0415
    from modelward.transfer.http import Http  # noqa: PLC0415

    device = device_of(options)
    check_owner(device.config.state)  # who keeps what is heard
    if "://" in options.checkpoint:
        with Http() as http:
            data = http.fetch(options.checkpoint, note.CAP)
    else:
        data = files.read(options.checkpoint)
    found = log_memory.gossip(device, data)
    say(options, found.to_dict(), found.to_text())
    return ExitCode.DONE


def _verify_proof(options: argparse.Namespace) -> ExitCode:
    from modelward import verify_proof  # noqa: PLC0415

    documents = {path: files.read(path) for path in options.documents}
    proven = verify_proof.verify_proof(
        files.read(options.proof), files.read(options.root), documents
    )
    say(options, proven.to_dict(), proven.to_text())
    return ExitCode.DONE
