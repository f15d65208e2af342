"""A process is run to its end, bounded in time and output; nothing of it is left."""

import fcntl
import os
import sys
import time
from pathlib import Path

import pytest

from modelward.install import process

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def run(script, timeout=60.0, **options):
    return process.run([sys.executable, "-I", "-c", script], ENVIRONMENT, timeout, **options)


def test_what_it_says_and_how_it_ends():
    ended = run("import sys; print(sys.stdin.read()); print('no', file=sys.stderr); sys.exit(7)",
                stdin=b"hello")  # fmt: skip
    assert (ended.code, ended.output, ended.errors, ended.in_time) == (7, b"hello\n", b"no\n", True)
    assert ended.says() == "exit status 7: no"


def test_it_gets_the_environment_it_is_given_and_no_other(monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    assert b"SECRET" not in run("import os; print(sorted(os.environ))").output


def test_killed():
    ended = run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert ended.code < 0
    assert ended.says() == "killed by SIGSEGV"


def test_too_slow():
    ended = run("import time; print('here', flush=True); time.sleep(600)", timeout=1)
    assert not ended.in_time
    assert ended.output == b"here\n"


def test_floods_are_read_but_not_kept():
    ended = run("import os\nfor _ in range(300): os.write(1, b'x' * 65536)", keep=1000)
    assert (ended.code, ended.output) == (0, b"x" * 1000)


def test_all_that_a_pipe_holds_is_heard_at_once():
    """It may hold more than 64 KiB when the process has ended: where pages are large, it does."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(writer, b"x" * (1 << 20))
    os.close(writer)
    kept = bytearray()
    with os.fdopen(reader, "rb", 0) as pipe:
        process._hear(pipe, kept, 1 << 20)
    assert len(kept) == 1 << 20


def test_it_may_leave_its_input_unread():
    assert run("pass", stdin=b"x" * (1 << 20)).code == 0


def test_what_it_started_dies_with_it():
    """A child of the child holds the pipe open, and would have kept us waiting."""
    ended = run("import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)")
    assert ended.in_time
    pid = int(ended.output)
    deadline = time.monotonic() + 60
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(pid)


def test_what_it_left_behind_may_speak_for_ever():
    """How long it took is how long it took itself."""
    script = "; ".join(["cat /dev/zero &"] * 8).replace("&;", "&")
    ended = process.run(["/bin/sh", "-c", f"{script} exit 3"], ENVIRONMENT, 20)
    assert (ended.code, ended.in_time) == (3, True)


@pytest.mark.parametrize("said", ["modelward-leash: errno x", "modelward-leash: errno 2 or so"])
def test_a_command_is_not_taken_for_the_leash(said):
    ended = process.run_leashed(["/bin/sh", "-c", f"echo '{said}' >&2; exit 1"], ENVIRONMENT, 60)
    assert ended.says() == f"exit status 1: {said}"


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_program_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        process.run(["/no/such/program"], dict(os.environ), 60)
