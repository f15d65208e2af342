"""What the documents say is so: the five commands work, links lead somewhere, targets exist."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.model_files import onnx_file
from tests.simulator.world import clean_environment

ROOT = Path(__file__).parents[1]
ADDRESS = ("127.0.0.1", 8080)  # as the README has it
FILES = {"model.onnx": onnx_file(b"some weights"), "labels.txt": b"zero\none\n"}
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "*/*.md", "docs/**/*.md", "examples/*/*.md")
    for path in ROOT.glob(pattern)
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)

FIVE_COMMANDS = re.compile(r"<!-- five commands[^>]*-->\n```sh\n(.*?)```", re.DOTALL)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
USERS = (
    r"^useradd --system (\w+)", r"^chown -R (\w+)", r"^sudo -u (\w+)", r"^User=(\w+)",
    r"`install -d .*?(?:-o (\w+)|STATE)", r"^\*/\d+ \* \* \* \* (\w+)",
)  # fmt: skip
EVENT = re.compile(r'"event": "([a-z]+)"')
EVENTS = re.compile(r"^\| `event` .*\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)
MAKE = re.compile(r"(?:^|[;&(] *)make ([a-z][a-z-]*)", re.MULTILINE)


def five_commands() -> str:
    (found,) = FIVE_COMMANDS.findall((ROOT / "README.md").read_text("utf-8"))
    return found


def test_there_are_five():
    assert len(five_commands().strip().splitlines()) == 5


def test_your_own_model_in_five_commands(tmp_path):
    if is_busy(ADDRESS):
        pytest.skip("port 8080 is in use, and the README's commands name it word for word")
    for name in ("metadata", "layouts"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, data in FILES.items():
        (tmp_path / "my-model").mkdir(exist_ok=True)
        (tmp_path / "my-model" / name).write_bytes(data)

    done = run_in_bash(five_commands(), tmp_path)

    assert done.returncode == 0, done
    installed = tmp_path / "device/current/my-model"
    found = {path.name: path.read_bytes() for path in installed.iterdir()}
    assert found.pop("ticket.json")
    assert found == FILES
    assert not is_busy(ADDRESS)


def run_in_bash(commands: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run commands as somebody would who pastes them, and end the server they start."""
    # $! is that server: the one process that the commands leave in the background.
    script = f"set -e\ntrap 'kill $!; wait $!' EXIT\n{commands}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=clean_environment() | {"PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # bash and what it started, no other
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def is_busy(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return True
    return False


def test_one_user_owns_the_state_directory_whatever_is_done_with_it():
    text = (ROOT / "docs/device.md").read_text("utf-8")
    found = {what: set(re.findall(what, text, re.MULTILINE)) for what in USERS}
    assert found == {what: {"modelward"} for what in USERS}


def test_commands_for_a_device_are_all_about_the_same_one():
    text = (ROOT / "client/README.md").read_text("utf-8")
    commands = re.findall(r"^    modelward .*", text, re.MULTILINE)
    assert len({"--state" in command for command in commands}) == 1


def test_every_event_is_documented():
    files = [ROOT / "client/modelward/cli" / name for name in ("terminal.py", "update.py")]
    told = {event for file in files for event in EVENT.findall(file.read_text("utf-8"))}
    (table,) = EVENTS.findall((ROOT / "docs/device.md").read_text("utf-8"))
    assert told == set(re.findall(r"^\| `([a-z]+)`", table, re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    broken = [link for link in links(document) if not leads_somewhere(document, link)]
    assert not broken


def links(document: Path) -> Iterator[str]:
    """Yield the links of a document to other files of this repository."""
    text = CODE.sub("", FENCE.sub("", document.read_text("utf-8")))
    for link in LINK.findall(text):
        if not re.match(r"[a-z]+:", link):
            yield link


def leads_somewhere(document: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = document.parent / path if path else document
    if not target.exists():
        return False
    return not anchor or target.suffix != ".md" or anchor in anchors(target)


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub and GitLab make them."""
    text = FENCE.sub("", document.read_text("utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        for heading in HEADING.findall(text)
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_exist(document):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    assert {*named_targets(document)} <= targets


def named_targets(document: Path) -> Iterator[str]:
    """Yield the `make` targets that a document's code names."""
    text = document.read_text("utf-8")
    for code in (*FENCE.findall(text), *CODE.findall(FENCE.sub("", text))):
        yield from MAKE.findall(code)
