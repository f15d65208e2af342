import base64
import subprocess
import sys
from pathlib import Path

import pytest

from modelward.errors import ExitCode
from modelward.formats.dsse import Envelope
from modelward.formats.policy import ModelPolicy
from modelward_repo.publish.target import Source
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.site import Site, run, serving

POLICY = "policies/alpha.json"


def test_out_of_a_directory(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "sub/policy.json"
    done = site.run("target", POLICY, "-o", path)
    assert done.code == 0
    assert done.out.endswith("bytes, verified\n")
    assert ModelPolicy.parse(path.read_bytes()).model == "alpha"
    path.write_text("old")
    layout = site.run("target", "layouts/alpha.json", "--output", path, "--json")
    assert Envelope.parse("layout", path.read_bytes()).content["_type"] == "layout"
    assert layout.json["length"] == path.stat().st_size
    assert "content_base64" not in layout.json
    content = site.run("target", POLICY, "--json").json["content_base64"]
    assert ModelPolicy.parse(base64.b64decode(content)).model == "alpha"


def test_it_is_printed_byte_for_byte(site: Site) -> None:
    command = [sys.executable, "-m", "modelward_repo", "target", POLICY, "-r", str(site.directory)]
    done = subprocess.run(command, capture_output=True, check=True)
    (file,) = (site.directory / "targets/policies").glob("*.alpha.json")
    assert done.stdout == file.read_bytes()


def test_from_a_server(site: Site, tmp_path: Path) -> None:
    root = site.directory / "metadata/1.root.json"
    path = tmp_path / "policy.json"
    with serving(site.directory, "--workers", "1") as url:
        for address in (url, f"{url}/"):
            done = run("target", POLICY, "-o", path, "--url", address, "--root", root)
            assert done.code == 0, done
        assert ModelPolicy.parse(path.read_bytes()).model == "alpha"
        assert run("target", POLICY, "--url", url).code == ExitCode.USAGE
        stranger = tmp_path / "root.json"
        stranger.write_bytes(root.read_bytes().replace(b'"version":1', b'"version":2'))
        done = run("target", POLICY, "--url", url, "--root", stranger)
        assert done.code == ExitCode.REFUSED
        assert run("target", "nothing", "--url", url, "--root", root).code == ExitCode.USAGE


def test_another_root_than_the_directory_begins_with(site: Site, tmp_path: Path) -> None:
    args = ("--policy", "metadata/minimal.toml", "--plaintext-keys", "--keys", tmp_path / "k")
    assert run("init", tmp_path / "other", *args).code == 0
    other = tmp_path / "other/metadata/1.root.json"
    own = site.directory / "metadata/1.root.json"
    assert site.run("target", POLICY, "--root", own, "--json").code == 0
    done = site.run("target", POLICY, "--root", other)
    assert done.code == ExitCode.REFUSED


def test_tampered_targets_are_refused(site: Site, tmp_path: Path) -> None:
    (file,) = (site.directory / "targets/policies").glob("*.alpha.json")
    file.write_bytes(file.read_bytes().replace(b"alpha", b"alphb"))
    done = site.run("target", POLICY, "-o", tmp_path / "policy.json")
    assert done.code == ExitCode.REFUSED
    assert not (tmp_path / "policy.json").exists()
    file.unlink()
    assert site.run("target", POLICY).code == ExitCode.UNAVAILABLE


@pytest.mark.parametrize("path", ["policies/alpa.json", "../../etc/passwd", "", "models/a/1/x"])
def test_paths_that_nobody_vouches_for(site: Site, path: str) -> None:
    done = site.run("target", path)
    assert done.code == ExitCode.USAGE
    assert f"no role vouches for {path!r}" in done.err
    assert "policies/alpha.json" in done.err or "layouts/alpha.json" in done.err


def test_nothing_outside_of_the_storage_is_read(site: Site) -> None:
    source = Source.stored(LocalStorage(site.directory), None)
    (site.directory.parent / "secret").write_text("secret")
    for path in ("../secret", "%2e%2e/secret", "targets/../../secret"):
        with pytest.raises(Exception, match="there is no"):
            source.fetcher.fetch(source.url + path, 100)


def test_where_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    monkeypatch.chdir(tmp_path)
    assert "which repository?" in run("target", POLICY).err
    assert "which root is to be trusted?" in run("target", POLICY, "--url", "http://x").err
    assert "there is no repository here" in run("target", POLICY, "-r", site.keys).err
    root = site.directory / "metadata/1.root.json"
    done = run("target", POLICY, "--url", "ftp://x", "--root", root)
    assert done.code == ExitCode.USAGE
    assert run("target", POLICY, "--url", "http://x", "--root", "nothing").code == ExitCode.USAGE
