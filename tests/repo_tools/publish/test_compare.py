import shutil
from pathlib import Path

import pytest

from modelward.errors import ExitCode
from tests.repo_tools.site import Site, run


@pytest.fixture
def released(site: Site, folder: Path) -> Site:
    site.release("alpha", "1.0.0", folder)
    return site


def test_two_repositories(released: Site, template: Site) -> None:
    done = run("diff", template.directory, released.directory)
    assert done.code == 0
    lines = done.out.splitlines()
    assert "model-alpha: version: 1 -> 2" in lines
    assert any(
        line.startswith("model-alpha: target models/alpha/1.0.0/release.json: added")
        for line in lines
    )
    assert any(line.startswith("channels/stable.json: models.alpha: added: ") for line in lines)
    assert not any(line.startswith(("root", "targets")) for line in lines)
    assert run("diff", template.directory, template.directory).out == "No difference.\n"


def test_a_role_that_only_one_has(released: Site, template: Site) -> None:
    released.run("model", "add", "gamma", "--policy", "metadata/minimal.toml", "--plaintext-keys")
    found = run("diff", template.directory, released.directory, "--json").json
    if any(change["where"].startswith("targets") for change in found["changes"]):
        assert {"where": "model-gamma", "text": f"only in {released.directory}"} in found["changes"]


def test_versions_of_a_role(released: Site) -> None:
    expected = released.run("diff", "1.channels.json", "2.channels.json")
    assert "version: 1 -> 2" in expected.out
    assert "target channels/stable.json: changed" in expected.out
    metadata = released.directory / "metadata"
    for one, other in [
        (metadata / "1.channels.json", metadata / "2.channels.json"),
        ("1.channels.json", "channels"),
        (metadata / "1.channels.json", released.directory),
    ]:
        done = released.run("diff", one, other)
        assert done.out == expected.out, done
    back = released.run("diff", "channels", "1.channels.json")
    assert "version: 2 -> 1 (BACKWARDS)" in back.out


def test_signatures_are_verified_where_the_repository_says_whose_count(
    released: Site, tmp_path: Path
) -> None:
    metadata = released.directory / "metadata"
    changed = tmp_path / "1.channels.json"
    data = (metadata / "1.channels.json").read_bytes()
    start = data.index(b'"sig":"') + 7
    changed.write_bytes(data[:start] + b"0" * 8 + data[start + 8 :])
    done = released.run("diff", metadata / "1.channels.json", changed)
    assert "signatures: operator (" in done.out
    assert "signed only in the first" in done.out
    shutil.copy(metadata / "1.channels.json", tmp_path / "one.json")
    done = run("diff", tmp_path / "one.json", changed, env={"MODELWARD_REPOSITORY": ""})
    assert done.out == "No difference.\n"  # nothing says whose signature it would have to be


def test_other_documents(released: Site) -> None:
    channels = sorted((released.directory / "targets/channels").glob("*.stable.json"))
    layouts = sorted((released.directory / "targets/layouts").iterdir())
    assert "models.alpha" in released.run("diff", *channels).out
    done = released.run("diff", *layouts, "--json").json
    assert done["same"] in (True, False)
    assert (done["a"], done["b"]) == tuple(map(str, layouts))


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("1.channels.json", "1.root.json", "one is of 'channels', the other of 'root'"),
        ("1.channels.json", "nothing", "there is no 'nothing'"),
        ("../metadata/1.root.json", "1.root.json", "there is no '../metadata/1.root.json'"),
        ("keys", "1.root.json", "not a repository"),
        ("keys/alice/root.key", "1.root.json", "cannot be compared"),
        ("keys/alice/root.pub", "1.root.json", "only one of the two is TUF metadata"),
        ("odd.json", "1.root.json", "is not TUF metadata"),
        ("odd.json", "keys", "is not TUF metadata"),
        ("1.x.json", "repo", "the repository has no role 'x'"),
    ],
)
def test_what_cannot_be_compared(
    released: Site, monkeypatch: pytest.MonkeyPatch, one: str, other: str, reason: str
) -> None:
    monkeypatch.chdir(released.keys.parent)
    Path("odd.json").write_text('{"signed": {}, "signatures": []}')
    shutil.copy("repo/metadata/1.channels.json", "1.x.json")
    done = released.run("diff", one, other)
    assert done.code == ExitCode.USAGE, done
    assert reason in done.err
