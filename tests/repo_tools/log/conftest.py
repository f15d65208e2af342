"""Fixtures: a logged repository whose witnesses answer."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repo_tools.log.site import Logged, logging
from tests.repo_tools.site import make_folder


@pytest.fixture
def unmade(tmp_path: Path) -> Iterator[Logged]:
    """A place for a logged repository, and its witnesses."""
    with logging(tmp_path / "logged") as logged:
        yield logged


@pytest.fixture
def logged(unmade: Logged) -> Logged:
    """A logged repository with one model and nothing released."""
    done = unmade.init()
    assert done.code == 0, done
    return unmade


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """A logged repository with some history: to read and to copy, not to change."""
    place = tmp_path_factory.mktemp("history")
    with logging(place / "logged", '{ threshold = 2, members = ["w1", "w2"] }') as logged:
        assert logged.init().code == 0
        for number in range(2):
            folder = make_folder(place / f"folder-{number}", b"weights %d" % number)
            logged.site.release("alpha", f"1.{number}.0", folder)
        yield logged


@pytest.fixture
def damaged(history: Logged, tmp_path: Path) -> Path:
    """A copy of its files, to damage."""
    shutil.copytree(history.directory, tmp_path / "damaged")
    return tmp_path / "damaged"
