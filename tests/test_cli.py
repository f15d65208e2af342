"""The device's command line: what it teaches, what it prints, how it exits."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modelward import cli, update
from modelward.cli.terminal import Terminal
from modelward.errors import ExitCode
from modelward.install import fsops, last
from modelward.transfer.http import Patience
from tests.install.site import MODEL, Site, chain
from tests.simulator.tuf_repository import TufRepository

COMMANDS = {
    "init", "update", "check", "import", "run", "confirm", "rollback", "pin", "unpin", "gc",
    "status", "explain", "verify", "evidence", "gossip", "verify-proof", "report", "serve",
    "systemd", "completion",
}  # fmt: skip
URL = "https://models.example.com"
NOWHERE = "http://127.0.0.1:9"  # refused at once
ROOT = TufRepository().files["metadata/1.root.json"]
UNSIGNED_ROOT = ROOT.replace(b'"version": 1', b'"version": 2')


class Run:
    """Runs the command line in this process and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], state: Path) -> None:
        self._capsys = capsys
        self.state = state
        self.out = self.err = ""

    def __call__(self, command: str, *arguments: str | Path) -> int:
        try:
            code = cli.main([command, "--state", str(self.state), *map(str, arguments)])
        except SystemExit as error:  # argparse
            code = error.code
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, command: str, *arguments: str | Path) -> tuple[int, dict]:
        code = self(command, "--json", *arguments)
        return code, json.loads(self.out)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MODELWARD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def root(tmp_path) -> Path:
    path = tmp_path / "root.json"
    path.write_bytes(ROOT)
    return path


@pytest.fixture
def run(capsys, tmp_path) -> Run:
    return Run(capsys, tmp_path / "state")


@pytest.fixture
def device(run, root) -> Run:
    """A device that was set up."""
    assert run("init", "--repository", NOWHERE, "--root", root, "--device-id", "d") == 0
    return run


@pytest.fixture
def site(device) -> Site:
    """What is installed on the device."""
    site = Site(device.state)
    site.install(chain("1.0.0", 1))
    site.install(chain("2.0.0", 2))
    return site


# --- Help -----------------------------------------------------------------------------------------


def test_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert set(re.findall(r"^    ([a-z-]+)", text, re.MULTILINE)) == COMMANDS
    assert "example:\n  modelward init" in text
    assert "exit codes:" in text


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_of_each_command_teaches(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"example:\n  modelward {command}" in text
    assert "exit codes:" in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("arguments", [[], ["other"], ["init"], ["explain"], ["status", "--nope"]])
def test_wrong_usage(capsys, arguments):
    assert cli.main(arguments) == ExitCode.USAGE
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("usage: modelward")
    assert "what to do: see `modelward" in said.err
    assert cli.main([*arguments, "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["outcome"] == "usage"


@pytest.mark.parametrize(
    "arguments",
    [
        ("gossip", "/nowhere"),
        ("verify-proof", "/nowhere", "--root", "/nowhere"),
        ("explain", MODEL, "--svg", "/nowhere/why.svg"),
        ("update", "../.."),
        ("import", "/nowhere", "Not a name"),
    ],
)
def test_what_was_named_wrongly_is_wrong_usage(device, site, arguments):
    code, result = device.json(*arguments)
    assert (code, result["outcome"]) == (ExitCode.USAGE, "usage")
    assert result["advice"]


# --- init -----------------------------------------------------------------------------------------


def test_init(run, root):
    code, result = run.json(
        *("init", "--repository", f"{URL}/", "--root", root, "--device-id", "d-7"),
        *("--channel", "canary", "--model", "a", "--model", "b", "--label", "site=plant 7=x"),
    )
    assert code == 0
    assert result == {
        "outcome": "initialised",
        "state": str(run.state),
        "root_version": 1,
        "device_id": "d-7",
        "device_key": (run.state / "device.pub").read_text().strip(),
    }
    assert (run.state / "device.key").stat().st_mode & 0o777 == 0o600
    assert (run.state / "root.json").read_bytes() == ROOT
    text = (run.state / "modelward.toml").read_text()
    for line in (
        f'repository = "{URL}"',
        'channel = "canary"',
        'models = ["a", "b"]',
        'device_id = "d-7"',
        '"site" = "plant 7=x"',
    ):
        assert line in text.splitlines()


def test_init_makes_up_an_id(run, root):
    assert run("init", "--repository", URL, "--root", root) == 0
    assert "next: modelward update --state" in run.out
    code, result = run.json("status")
    assert code == 0
    assert len(result["device_id"]) == 32


def test_init_twice(device, root):
    before = (device.state / "modelward.toml").read_bytes()
    assert device("init", "--repository", URL, "--root", root) == ExitCode.USAGE
    assert "is set up already" in device.err
    assert (device.state / "modelward.toml").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--repository", "ftp://example.com"],
        ["--repository", "https://[::1"],
        ["--channel", "Stable"],
        ["--channel", ""],
        ["--model", "../x"],
        ["--label", "site"],
        ["--label", "=x"],
        ["--label", "site="],
        ["--label", "site=a\nb"],
        ["--label", "site=a", "--label", "site=b"],
        ["--device-id", "a\x1b[2J"],
        ["--root", "absent.json"],
    ],
)
def test_init_with_a_bad_setting_leaves_nothing_behind(run, root, arguments):
    given = {"--repository": URL, "--root": str(root)}
    rest = [part for pair in given.items() if pair[0] != arguments[0] for part in pair]
    code, result = run.json("init", *rest, *arguments)
    assert code == ExitCode.USAGE
    assert result["outcome"] == "usage"
    assert not run.state.exists()
    assert "\x1b" not in run.out + run.err
    assert run("init", "--repository", URL, "--root", root) == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 99, ROOT[:-9], UNSIGNED_ROOT])
def test_init_with_a_bad_root(run, root, content):
    root.write_bytes(content)
    code, result = run.json("init", "--repository", URL, "--root", root)
    assert code == ExitCode.REFUSED
    assert result["gate"] == "metadata"
    assert "root metadata is not valid" in run.err
    assert "get the root metadata" in result["advice"]
    assert not run.state.exists()


def test_init_where_a_file_stands(run, root):
    run.state.write_bytes(b"")
    assert run("init", "--repository", URL, "--root", root) == ExitCode.ERROR
    assert "Traceback" not in run.err


# --- Not set up, badly set up ---------------------------------------------------------------------


@pytest.mark.parametrize("command", ["update", "check", "status", "verify", "explain m"])
def test_state_that_is_not_set_up(run, command):
    code, result = run.json(*command.split())
    assert code == result["exit_code"] == ExitCode.USAGE
    assert "is not set up" in result["reason"]
    assert "modelward init" in result["advice"]
    assert "what to do:" in run.err


def test_unknown_setting(device):
    with (device.state / "modelward.toml").open("a") as file:
        file.write("\n[update]\nevery = 5\n")
    assert device("status") == ExitCode.USAGE
    assert "'update' is not a setting" in device.err


def test_flags_win_over_environment_and_file(device, monkeypatch):
    monkeypatch.setenv("MODELWARD_REPOSITORY", "http://127.0.0.1:8")
    assert device("check") == ExitCode.UNAVAILABLE
    assert "127.0.0.1:8/" in device.err
    assert device("check", "--repository", "http://127.0.0.1:7") == ExitCode.UNAVAILABLE
    assert "127.0.0.1:7/" in device.err


# --- update ---------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr(update, "PATIENCE", Patience(tries=1))


def test_events_on_a_full_disk_hide_no_exit_code(device):
    code, result = device.json("update", "--events", "/dev/full")
    assert code == result["exit_code"] == ExitCode.UNAVAILABLE


def test_unreachable_repository(device):
    code, result = device.json("update")
    assert code == result["exit_code"] == ExitCode.UNAVAILABLE
    assert (result["outcome"], result["gate"], result["gate_number"]) == (
        "unavailable",
        "metadata",
        3,
    )
    assert device.err.startswith("modelward: unavailable at gate 3 (metadata): ")
    assert device.json("status")[1]["last"]["outcome"] == "unavailable"


def test_check_leaves_no_note(device):
    device("check")
    assert device.json("status")[1]["last"] is None


def test_update_while_another_runs(device):
    with fsops.lock(device.state / "lock"):
        code, result = device.json("update")
    assert code == ExitCode.UNAVAILABLE
    assert "another modelward" in result["reason"]


def test_a_note_that_cannot_be_written_hides_nothing(device, monkeypatch):
    def write(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(last, "write", write)
    assert device("update") == ExitCode.UNAVAILABLE
    assert "could not be fetched" in device.err


def test_error_of_the_system(device, monkeypatch):
    def lock(*_, **__):
        raise PermissionError(13, "Permission denied", "lock")

    monkeypatch.setattr(fsops, "lock", lock)
    code, result = device.json("update")
    assert code == result["exit_code"] == ExitCode.ERROR
    assert "Permission denied" in result["reason"]
    assert "Traceback" not in device.err


# --- status, verify, explain ----------------------------------------------------------------------


def test_status_of_a_fresh_device(device):
    code, result = device.json("status")
    assert code == 0
    assert (result["generation"], result["models"], result["last"]) == (0, {}, None)
    assert device("status") == 0
    assert "nothing is installed yet" in device.out


def test_status(device, site):
    last.write(device.state, site.device.clock(), {"outcome": "refused", "reason": "too old"})
    code, result = device.json("status")
    assert code == 0
    assert result["generation"] == 2
    model = result["models"][MODEL]
    assert (model["version"], model["counter"], model["previous"]) == ("2.0.0", 2, "1.0.0")
    assert device("status") == 0
    assert "meter-reader 2.0.0 runs; 1.0.0 is kept to fall back to" in device.out
    assert "last update, 2026-11-22T10:00:00Z: refused: too old" in device.out


def test_verify(device, site):
    code, result = device.json("verify")
    assert code == 0, result
    assert result["outcome"] == "intact"
    assert [(item["version"], item["intact"]) for item in result["checked"]] == [
        ("2.0.0", True),
        ("1.0.0", True),
    ]
    assert device("verify", MODEL) == 0
    assert "meter-reader 2.0.0: intact" in device.out


def test_verify_when_nothing_is_installed(device):
    assert device("verify") == 0
    assert device.out == "nothing is installed\n"
    assert device("verify", MODEL) == ExitCode.USAGE


DOCUMENTS = ("release.json", "evidence.jsonl", "layout.json", "policy.json")


@pytest.mark.parametrize("which", ["active", "previous"])
@pytest.mark.parametrize("path", ["files/model.onnx", *DOCUMENTS])
@pytest.mark.parametrize("content", [b"poison", None])
def test_verify_finds_damage(device, site, which, path, content):
    slot = getattr(site.slots.installed(), which)[MODEL]
    damaged = site.slots.directory(MODEL, slot) / path
    damaged.unlink()
    if content is not None:
        damaged.write_bytes(content)
    code, result = device.json("verify")
    assert code == ExitCode.REFUSED
    assert result["outcome"] == "damaged"
    assert [(item["version"], item["path"]) for item in result["problems"]] == [
        (slot.version, "proof" if path in DOCUMENTS else "model.onnx")
    ]
    assert device("verify") == ExitCode.REFUSED
    assert f"meter-reader {slot.version}: DAMAGED" in device.out


def test_explain(device, site, tmp_path):
    code, result = device.json("explain", MODEL, "--svg", tmp_path / "why.svg")
    assert code == 0
    assert (result["model"], result["version"]) == (MODEL, "2.0.0")
    assert [step["name"] for step in result["steps"]] == ["package", "approve"]
    assert len(result["layout"]["owners"]) == result["layout"]["threshold"] == 2
    assert result["roles"] == []
    assert (tmp_path / "why.svg").read_text().startswith("<svg")
    assert device("explain", MODEL) == 0
    assert "meter-reader 2.0.0 is trusted because:" in device.out


def test_explain_what_is_not_installed(device):
    assert device("explain", "absent") == ExitCode.USAGE
    assert "no model 'absent' is installed" in device.err


def test_explain_without_its_proof(device, site):
    slot = site.slots.installed().active[MODEL]
    (site.slots.directory(MODEL, slot) / "evidence.jsonl").unlink()
    assert device("explain", MODEL) == ExitCode.REFUSED
    assert "REFUSED at gate" in device.err


@pytest.mark.parametrize("command", ["status", "verify", "explain m", "update", "check"])
def test_damaged_state_directory(device, site, command):
    (device.state / "current" / "installed.json").unlink()
    code, result = device.json(*command.split())
    if command in {"update", "check"}:
        assert code in {ExitCode.REFUSED, ExitCode.UNAVAILABLE}
    else:
        assert code == ExitCode.REFUSED
        said = result["damage" if command == "status" else "reason"]
        assert "the state directory is damaged" in said


def test_progress_is_drawn_on_a_terminal_only(monkeypatch, capsys):
    for shown in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda shown=shown: shown)
        terminal = Terminal(quiet=False)
        terminal.hashing(1_000_000, 4_000_000)
        terminal.end()
        drawn = capsys.readouterr().err
        assert ("25 % of 4.0 MB  hashed" in drawn) == shown
        assert bool(drawn) == shown


# --- As a process ---------------------------------------------------------------------------------


def modelward(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelward", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_module_runs(device):
    done = modelward("status", "--state", device.state, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["channel"] == "stable"
    assert not done.stderr


def test_reader_that_goes_away(device):
    command = [sys.executable, "-m", "modelward", "status", "--state", str(device.state)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == ExitCode.ERROR
    assert not done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("status",), ExitCode.ERROR),  # what was asked for could not be had
        (("status", "--json"), ExitCode.ERROR),
        (("rollback", "nothing", "--json"), ExitCode.USAGE),  # what went wrong first is what counts
        (("update", "--json"), ExitCode.UNAVAILABLE),
    ],
)
def test_output_on_a_full_disk(device, arguments, code):
    command = [sys.executable, "-m", "modelward", *arguments, "--state", str(device.state)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.startswith("modelward: ")


def test_an_alarm_that_cannot_be_printed_shows_in_the_exit_code(device, site):
    site.file("model.onnx").resolve().write_bytes(b"poison")
    command = [sys.executable, "-m", "modelward", "verify", "--state", str(device.state)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, check=False)
    assert done.returncode == ExitCode.REFUSED


CLOSED = """
import os, subprocess, sys
from modelward.cli.terminal import open_what_is_closed
open_what_is_closed()
opened = os.open("/dev/zero", os.O_RDONLY)
child = [sys.executable, "-c", "import os\\nfor number in range(3): os.fstat(number)"]
os._exit(0 if opened > 2 and not subprocess.run(child).returncode else 1)
"""


def test_no_file_takes_the_place_of_standard_ones_that_are_closed():
    """Nor in a child process: what a library prints there would end up in it."""
    arguments = ["sh", sys.executable, "-c", CLOSED]
    done = subprocess.run(["/bin/sh", "-c", '"$@" <&- >&- 2>&-', *arguments], check=False)
    assert done.returncode == 0


def test_what_the_daemon_prints_is_json_a_line_even_if_it_cannot_run(device):
    with fsops.lock(device.state / "run.lock"):
        assert device("run", "--json") == ExitCode.UNAVAILABLE
    (line,) = device.out.splitlines()
    assert json.loads(line).items() >= {"event": "failed", "level": "error", "exit_code": 4}.items()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_without_standard_output_or_error(device, closed):
    command = f'"$@" {closed}'
    arguments = [sys.executable, "-m", "modelward", "update", "--state", str(device.state)]
    done = subprocess.run(["/bin/sh", "-c", command, "sh", *arguments], check=False)
    assert done.returncode == ExitCode.UNAVAILABLE


LOADED = """
import sys
from modelward.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
heavy = {"tuf", "in_toto", "securesystemslib", "cryptography", "requests", "urllib3"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["verify", "--help"]])
def test_light_commands_load_no_heavy_library(device, arguments):
    if arguments == ["status"]:
        arguments = ["status", "--state", str(device.state)]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_loads_no_heavy_library():
    code = LOADED.replace("main(sys.argv[1:])", "import modelward")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_opening_a_model_loads_no_heavy_library(device, site):
    code = LOADED.replace(
        "main(sys.argv[1:])",
        "import modelward; modelward.open_model(sys.argv[1], sys.argv[2]).close()",
    )
    command = [sys.executable, "-c", code, MODEL, str(site.state)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
