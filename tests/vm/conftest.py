"""One Debian for all tests, and a machine for each."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import image
from tests.vm.device import Device


@pytest.hookimpl(tryfirst=True)  # before what is wanted is chosen by its marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder: slow, and only for those who can make a machine."""
    here, reason = Path(__file__).parent, image.missing()
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(7200))
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip("only root may make a disk with Debian on it"))
            elif reason is not None:
                item.add_marker(pytest.mark.skip(reason))


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[image.Image]:
    place = tmp_path_factory.mktemp("debian")
    yield image.build(place)
    shutil.rmtree(place)  # gigabytes


@pytest.fixture
def device(debian: image.Image, repositories: Path, tmp_path: Path) -> Iterator[Device]:
    """A device that offers what the module's own fixture `repositories` has."""
    with Device(debian, repositories, tmp_path) as device:
        device.set_up()
        yield device
    (tmp_path / "disk").unlink()
