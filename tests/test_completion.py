"""Completion scripts, run by the shells they are for where those are installed."""

import shutil
import subprocess

import pytest

from modelward import cli
from modelward.completion import script

COMMANDS = {
    "init", "update", "check", "import", "run", "confirm", "rollback", "pin", "unpin", "gc",
    "status", "explain", "verify", "evidence", "gossip", "verify-proof", "report", "serve",
    "systemd", "completion",
}  # fmt: skip


def complete(*words: str) -> set[str]:
    """Return what bash offers for the last word."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    line = " ".join(["modelward", *words])
    program = f"""
set -euo pipefail
{script(cli.parser(), "bash")}
COMP_WORDS=({line.replace("''", '""')})
COMP_CWORD={len(words)}
_modelward
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run([bash, "-c", program], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return set(done.stdout.split())


def test_commands():
    assert complete("''") == COMMANDS | {"--help"}
    assert complete("u") == {"update", "unpin"}
    assert complete("c") == {"check", "completion", "confirm"}
    assert complete("--") == {"--help"}


def test_options():
    assert complete("status", "--") == {"--state", "--json", "--help"}
    assert complete("explain", "meter-reader", "--s") == {"--state", "--svg"}
    assert {"--repository", "--root", "--label"} <= complete("init", "--")
    assert complete("update", "--nothing") == set()


def test_shells():
    assert complete("completion", "''") >= {"bash", "zsh", "fish"}
    assert complete("completion", "z") == {"zsh"}


def test_it_is_registered():
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    program = script(cli.parser(), "bash") + "complete -p modelward"
    done = subprocess.run([bash, "-c", program], capture_output=True, text=True, check=True)
    assert "-F _modelward modelward" in done.stdout


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(shell):
    text = script(cli.parser(), shell)
    assert all(command in text for command in COMMANDS)
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([program, "-n", "-c", text], check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_command(capsys, shell):
    assert cli.main(["completion", shell]) == 0
    assert capsys.readouterr().out == script(cli.parser(), shell)
