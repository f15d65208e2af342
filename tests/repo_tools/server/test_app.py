import hashlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from modelward_repo.server.app import create_app
from tests.repo_tools.site import PlainTuf, Site, make_folder, serving
from tests.simulator.model_files import onnx_file

WEIGHTS = bytes(range(256)) * 1000
FILE = onnx_file(WEIGHTS)
SIZE = len(FILE)
IMMUTABLE = "public, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def site(template: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    place = tmp_path_factory.mktemp("served")
    site = template.copy(place)
    site.release("alpha", "1.0", make_folder(place / "folder", WEIGHTS))
    (site.directory / "log/tile/0").mkdir(parents=True)
    (site.directory / "log/checkpoint").write_bytes(b"origin\n1\nroot\n")
    (site.directory / "log/tile/0/000.p").mkdir()
    (site.directory / "log/tile/0/000.p/5").write_bytes(b"tile")
    return site


@pytest.fixture(scope="module")
def url(site: Site) -> Iterator[str]:
    with serving(site.directory) as url:
        yield url


@pytest.fixture(scope="module")
def blob() -> str:
    digest = hashlib.sha256(FILE).hexdigest()
    return f"/blobs/sha256/{digest[:2]}/{digest}"


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=10)


def raw(url: str, path: str, method: str = "GET") -> http.client.HTTPResponse:
    """Ask for a path exactly as it is written."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request(method, path)
    return connection.getresponse()


def test_plain_tuf_reads_the_repository(url: str, plain_tuf: PlainTuf) -> None:
    assert "models/alpha/1.0/release.json" in plain_tuf(url)


def test_a_blob_is_served_whole_by_its_digest(url: str, blob: str) -> None:
    answer = get(url + blob)
    assert answer.content == FILE
    assert answer.headers["ETag"] == f'"{blob[-64:]}"'
    assert answer.headers["Cache-Control"] == IMMUTABLE
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Length"] == str(SIZE)
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [("bytes=10-19", 10, 20), ("bytes=255990-", 255_990, SIZE), ("bytes=-5", SIZE - 5, SIZE)],
)
def test_ranges(url: str, blob: str, asked: str, begin: int, end: int) -> None:
    answer = get(url + blob, Range=asked)
    assert answer.status_code == 206
    assert answer.content == FILE[begin:end]
    assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{SIZE}"


def test_a_range_beyond_the_end(url: str, blob: str) -> None:
    answer = get(url + blob, Range="bytes=999999-")
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


def test_if_range_resumes_only_the_same_file(url: str, blob: str) -> None:
    same = get(url + blob, **{"Range": "bytes=0-0", "If-Range": f'"{blob[-64:]}"'})
    other = get(url + blob, **{"Range": "bytes=0-0", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)


def test_compression_is_never_applied(url: str, blob: str) -> None:
    for path in (blob, "/metadata/timestamp.json"):
        answer = get(url + path, **{"Accept-Encoding": "gzip, br, zstd"})
        assert "Content-Encoding" not in answer.headers


def test_the_timestamp_is_asked_for_again_every_time(url: str, site: Site) -> None:
    path = site.directory / "metadata/timestamp.json"
    answer = get(f"{url}/metadata/timestamp.json")
    assert answer.content == path.read_bytes()
    assert answer.headers["Cache-Control"] == "no-cache"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert answer.headers["ETag"] == f'"{digest}"'
    again = get(f"{url}/metadata/timestamp.json", **{"If-None-Match": f'"{digest}"'})
    assert (again.status_code, again.content) == (304, b"")
    site.run("refresh")
    fresh = get(f"{url}/metadata/timestamp.json", **{"If-None-Match": f'"{digest}"'})
    assert fresh.status_code == 200
    assert fresh.content == path.read_bytes() != answer.content


def test_blobs_too_are_not_sent_twice(url: str, blob: str) -> None:
    answer = get(url + blob, **{"If-None-Match": f'"{blob[-64:]}"'})
    assert (answer.status_code, answer.content) == (304, b"")


def test_every_file_but_those_that_change_is_immutable(url: str, site: Site) -> None:
    found = {
        f"/{path.relative_to(site.directory).as_posix()}"
        for path in site.directory.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.parts)
    }
    assert len(found) > 20
    for path in found:
        answer = raw(url, path)
        assert answer.status == 200, path
        # A partial tile's name comes back where one log takes the place of another.
        changing = path in ("/metadata/timestamp.json", "/log/checkpoint") or ".p/" in path
        assert answer.headers["Cache-Control"] == ("no-cache" if changing else IMMUTABLE)
        assert answer.headers["ETag"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        if path.startswith("/targets/"):
            assert answer.headers["ETag"].strip('"') in path


def test_head(url: str, blob: str) -> None:
    answer = raw(url, blob, "HEAD")
    assert (answer.status, answer.headers["Content-Length"]) == (200, str(SIZE))
    assert answer.read() == b""


@pytest.mark.parametrize(
    "path",
    [
        "/metadata",
        "/metadata/",
        "/targets/",
        "/blobs/sha256/",
        "/nothing",
        "/metadata/9.root.json",
        "/metadata/root.json",
        "/metadata/0.root.json",
        "/.lock",
        "/.partial/",
        "/.partial/half",
        "/metadata/.hidden.json",
        "/metadata/1.root.json.tmp",
        "/targets/.x/" + "0" * 64 + ".x",
        "/../keys/alice/root.key",
        "/metadata/../.lock",
        "/metadata/../../keys/alice/root.key",
        "/%2e%2e/keys/alice/root.key",
        "/metadata/%2e%2e%2f%2e%2e%2fkeys%2falice%2froot.key",
        "/metadata//timestamp.json",
        "/metadata/timestamp.json/",
        "//etc/passwd",
        "/metadata/timestamp.json%00",
        "/metadata\\timestamp.json",
        "/blobs/sha256/ab/../../../.lock",
        "/blobs/sha256/ab/" + "c" * 64,
        "/blobs/sha256/AB/" + "AB" * 32,
        "/log/",
        "/log/tile/",
    ],
)
def test_nothing_else_exists(url: str, site: Site, path: str) -> None:
    (site.directory / ".partial/half").write_bytes(b"half")
    (site.directory / "metadata/.hidden.json").write_bytes(b"{}")
    (site.directory / "metadata/1.root.json.tmp").write_bytes(b"{}")
    answer = raw(url, path)
    body = answer.read()
    assert answer.status == 404
    assert body == b"404 Not Found\n"
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_symbolic_links_in_the_directory_lead_nowhere_unserved(url: str, site: Site) -> None:
    """Names that the layout does not know are not served, wherever they lead."""
    link = site.directory / "targets/secret"
    link.symlink_to(site.keys / "alice/root.key")
    assert raw(url, "/targets/secret").status == 404
    link.unlink()


def test_writing_is_not_possible(url: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert raw(url, "/metadata/timestamp.json", method).status == 405


def test_the_page_says_what_this_is(url: str) -> None:
    answer = get(f"{url}/")
    assert "modelward repository" in answer.text
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'"


def test_the_page_does_not_repeat_what_a_client_sends(site: Site) -> None:
    client = create_app(site.directory).test_client()
    answer = client.get("/", base_url="http://<script>alert(1)</script>/")
    assert b"<script>" not in answer.data


def test_a_relative_directory_is_served(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.directory)
    client = create_app(Path()).test_client()
    assert client.get("/metadata/timestamp.json").status_code == 200
