import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from modelward.errors import ExitCode
from tests.repo_tools.site import Site, make_folder, run, serving, start


def started(directory: Path, *args: object) -> tuple["subprocess.Popen[str]", str]:
    process = start("serve", directory, "--port", 0, *args, env={})
    assert process.stdout
    return process, process.stdout.readline()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_serves_and_stops_cleanly(template: Site, number: int) -> None:
    process, line = started(template.directory)
    assert line.startswith(f"serving {template.directory} on http://127.0.0.1:")
    url = line.split()[-1]
    assert requests.get(f"{url}/metadata/timestamp.json", timeout=5).ok
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/metadata/timestamp.json", timeout=5)


def test_a_busy_port_is_said_even_if_it_is_our_own(template: Site) -> None:
    with serving(template.directory) as url:
        done = run("serve", template.directory, "--port", urlsplit(url).port)
        assert done.code == ExitCode.USAGE
        assert "Address already in use" in done.err
        assert "--port" in done.err


def test_an_address_that_is_not_ours(template: Site) -> None:
    done = run("serve", template.directory, "--port", 0, "--host", "192.0.2.1")
    assert done.code == ExitCode.USAGE
    assert "cannot listen on 192.0.2.1" in done.err


def test_a_host_that_is_no_address(template: Site) -> None:
    done = run("serve", template.directory, "--port", 0, "--host", "no.such.host.invalid")
    assert done.code == ExitCode.USAGE
    assert "cannot listen on no.such.host.invalid" in done.err


def test_a_directory_that_is_no_repository(tmp_path: Path) -> None:
    done = run("serve", tmp_path)
    assert done.code == ExitCode.USAGE
    assert "is not a repository" in done.err


def test_slow_downloads_do_not_keep_other_devices_waiting(site: Site, tmp_path: Path) -> None:
    site.release("alpha", "1.0", make_folder(tmp_path / "folder", bytes(8 << 20)))
    blob = max((site.directory / "blobs").rglob("*"), key=lambda path: path.stat().st_size)
    path = f"/{blob.relative_to(site.directory).as_posix()}"
    with serving(site.directory) as url:
        parts = urlsplit(url)
        slow = []
        for _ in range(64):
            connection = socket.create_connection((parts.hostname, parts.port or 0), timeout=10)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            slow.append(connection)  # and never read
        time.sleep(0.5)
        took: list[float] = []

        def poll() -> None:
            for _ in range(10):
                begin = time.monotonic()
                assert requests.get(f"{url}/metadata/timestamp.json", timeout=10).ok
                took.append(time.monotonic() - begin)

        threads = [threading.Thread(target=poll) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for connection in slow:
            connection.close()
    assert len(took) == 40
    assert sorted(took)[20] < 1
