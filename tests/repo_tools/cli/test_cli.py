import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from modelward.errors import ExitCode
from modelward_repo import cli
from modelward_repo.roles import keys as key_module
from tests.repo_tools.site import MINIMAL, Site, run
from tests.repo_tools.terminal import at_terminal

PASSPHRASE = "correct horse battery staple"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


ALL = commands(cli.root)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    done = run(*path, "--help")
    assert done.code == 0
    assert done.out.startswith("Usage: modelward-repo")
    assert max(len(line) for line in done.out.splitlines()) <= 100


def leaf(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli.root
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found
        command = found
    return command


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_speaks_json(path: tuple[str, ...]) -> None:
    command = leaf(path)
    if not isinstance(command, click.Group) and path != ("completion",):
        assert "--json" in {name for param in command.params for name in param.opts}


def test_starting_loads_only_the_command_that_is_used() -> None:
    code = (
        "import sys; from modelward_repo.cli import run; run(['key', '--help'])\n"
        "print([name for name in sys.modules if name.startswith('modelward_repo.cli.')])\n"
        "print('flask' in sys.modules, 'granian' in sys.modules, 'in_toto' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *_, modules, heavy = done.stdout.splitlines()
    assert modules == "['modelward_repo.cli.options', 'modelward_repo.cli.key']"
    assert heavy == "False False False"


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelward_repo", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("modelward-repo, version ")


@pytest.mark.parametrize(
    "args", [("nonsense",), ("init",), ("status", "--wrong"), ("key", "nonsense"), ("serve",)]
)
def test_usage_errors_exit_2(args: tuple[str, ...]) -> None:
    done = run(*args)
    assert done.code == ExitCode.USAGE
    assert "Usage: modelward-repo" in done.err


def test_errors_name_what_to_do_on_stderr(tmp_path: Path) -> None:
    done = run("status", env={"MODELWARD_REPOSITORY": str(tmp_path)})
    assert done.code == ExitCode.USAGE
    assert done.out == ""
    assert done.err.startswith("modelward-repo: there is no repository here\n  What to do: ")


def test_errors_in_json(tmp_path: Path) -> None:
    done = run("status", "--json", "-r", tmp_path)
    assert done.code == ExitCode.USAGE
    assert done.err == ""
    assert done.json["outcome"] == "usage"
    assert done.json["exit_code"] == 2


def test_json_after_two_dashes_is_not_ours(tmp_path: Path) -> None:
    done = run("status", "-r", tmp_path, "--", "--json")
    assert done.code == ExitCode.USAGE
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.out)


def test_the_current_directory_is_the_default_repository(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("status")
    assert done.code == ExitCode.USAGE
    assert "which repository?" in done.err
    monkeypatch.chdir(site.directory)
    assert run("status").code == 0


def test_keys_lie_beside_the_repository_by_default(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.keys.rename(site.directory.with_name("repo-keys"))
    assert run("refresh", "--repository", site.directory).code == 0
    monkeypatch.chdir(site.directory)
    assert run("refresh").code == 0
    assert "alice       root " in run("key", "list").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    done = run("completion", shell)
    assert done.code == 0
    assert "_MODELWARD_REPO_COMPLETE" in done.out


def test_completion_completes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelward_repo"],
        env={
            **os.environ,
            "_MODELWARD_REPO_COMPLETE": "bash_complete",
            "COMP_WORDS": "modelward-repo channel s",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["plain,set", "plain,show"]


def test_keys_are_created_listed_and_shown(tmp_path: Path) -> None:
    keys = ("--keys", tmp_path / "keys")
    done = run("key", "create", "alice/root", *keys, "--plaintext", "--json")
    assert done.code == 0
    keyid = done.json["keyid"]
    row = ["alice", "root", "ed25519", keyid[:8], "here,", "NOT", "encrypted"]
    assert run("key", "list", *keys).out.splitlines()[1].split() == row
    (tmp_path / "keys/alice/root.key").unlink()
    assert run("key", "list", *keys).out.splitlines()[1].endswith("not here")
    shown = run("key", "show", "alice/root", *keys, "--json").json
    assert (shown["keyid"], shown["private_key"]) == (keyid, None)
    assert keyid in run("key", "show", "alice/root", *keys).out


@pytest.mark.parametrize("name", ["alice", "alice/", "/root", "../x/root", "a/b/c", "Alice/root"])
def test_names_of_keys_that_are_none(tmp_path: Path, name: str) -> None:
    done = run("key", "create", name, "--keys", tmp_path / "keys", "--plaintext")
    assert done.code == ExitCode.USAGE
    assert not (tmp_path / "keys").exists()


def test_a_passphrase_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_module, "KDF_ROUNDS", 1)
    secret = tmp_path / "secret"
    secret.write_text(f"{PASSPHRASE}\nanother line\n")
    site = Site(tmp_path / "repo", tmp_path / "keys")
    args = ("--policy", MINIMAL, "--model", "m", "--passphrase-file", secret)
    assert site.run("init", site.directory, *args).code == 0
    for path in site.keys.rglob("*.key"):
        assert site.run("key", "show", f"{path.parent.name}/{path.stem}").code == 0
    assert site.run("refresh", "--passphrase-file", secret).code == 0
    done = site.run("refresh")
    assert done.code == ExitCode.USAGE
    assert "--passphrase-file" in done.err
    secret.write_text("wrong\n")
    assert "wrong passphrase" in site.run("refresh", "--passphrase-file", secret).err
    secret.write_text("\n")
    assert "not a passphrase" in site.run("refresh", "--passphrase-file", secret).err
    secret.unlink()
    assert "cannot be read" in site.run("refresh", "--passphrase-file", secret).err


def test_a_passphrase_is_asked_for_once_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_module, "KDF_ROUNDS", 1)
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE)
    site = Site(tmp_path / "repo", tmp_path / "keys")
    args = ("--policy", MINIMAL, "--passphrase-file", secret)
    assert site.run("init", site.directory, *args).code == 0
    session = at_terminal(["refresh", "channels"], [PASSPHRASE], site.env)
    code, shown = session.code, session.shown
    assert code == 0, shown
    assert shown.count("Passphrase for") == 1
    assert PASSPHRASE not in shown
    assert "Signed anew: channels, snapshot, timestamp." in shown
    session = at_terminal(["refresh"], ["wrong"], site.env)
    code, shown = session.code, session.shown
    assert code == ExitCode.USAGE
    assert "wrong passphrase" in shown


def test_new_keys_are_encrypted_with_what_is_typed_twice(tmp_path: Path) -> None:
    args = ["key", "create", "alice/root", "--keys", str(tmp_path / "keys")]
    session = at_terminal(args, [PASSPHRASE, "something else"], {})
    code, shown = session.code, session.shown
    assert code == ExitCode.USAGE
    assert "the two passphrases differ" in shown
    assert not (tmp_path / "keys").exists()
    session = at_terminal(args, [PASSPHRASE, PASSPHRASE], {})
    code, shown = session.code, session.shown
    assert code == 0
    assert "(encrypted)" in shown
    assert PASSPHRASE not in shown
