"""Fixtures: a repository with two models, a folder to release, python-tuf's own client."""

from pathlib import Path

import pytest

from tests.repo_tools.site import (
    MINIMAL,
    MODELS,
    PlainTuf,
    Site,
    make_folder,
    read_with_plain_tuf,
    run,
)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A fresh repository with the models alpha and beta: to copy, not to change."""
    place = tmp_path_factory.mktemp("template")
    site = Site(place / "repo", place / "keys")
    models = [arg for name in MODELS for arg in ("--model", name)]
    done = run(
        *("init", site.directory, "--policy", MINIMAL, "--keys", site.keys, "--plaintext-keys"),
        *models,
    )
    assert done.code == 0, done
    return site


@pytest.fixture
def site(template: Site, tmp_path: Path) -> Site:
    """A fresh repository of this test's own."""
    return template.copy(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model."""
    return make_folder(tmp_path / "folder", b"weights of the first version")


@pytest.fixture
def plain_tuf(tmp_path: Path) -> PlainTuf:
    """Reads all targets of a repository (a directory, or a URL of one) with plain tuf.ngclient."""
    roots: dict[str, bytes] = {}

    def read(source: Path | str, root: bytes | None = None) -> dict[str, bytes]:
        url = source.as_uri() if isinstance(source, Path) else source
        if root is None and isinstance(source, Path):
            root = (source / "metadata/1.root.json").read_bytes()
        elif root is None:
            import requests  # noqa: PLC0415

            root = requests.get(f"{url}/metadata/1.root.json", timeout=10).content
        roots.setdefault(url, root)
        cache = tmp_path / "plain-tuf" / str(len(list(tmp_path.glob("plain-tuf/*"))))
        return read_with_plain_tuf(url, roots[url], cache)

    return read
