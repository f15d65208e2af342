"""A device can install the client alone: its wheel, the dependencies that names, nothing more."""

import json
import sys
import zipfile
from pathlib import Path

import pytest

from tests.simulator.world import MODEL, LenientWorld
from tests.wheels import build_wheel, closure, copy_dependencies, install, requirements_of, run

ROOT = Path(__file__).parents[1]
PACKAGES = {"client": "modelward", "repo_tools": "modelward_repo"}
NOT_ON_A_DEVICE = ("modelward_repo", "flask", "werkzeug", "click", "granian", "bcrypt", "pip")

READ = f"""
import json, modelward
with modelward.open_model("{MODEL}", "device") as model:
    print(json.dumps([model.version, {{path: model.read(path).decode() for path in model}}]))
"""
LIST = """
import importlib.metadata, importlib.util, json, re, sys
print(json.dumps([
    [re.sub("[-_.]+", "-", d.metadata["Name"]).lower() for d in importlib.metadata.distributions()],
    [name for name in sys.argv[1:] if importlib.util.find_spec(name)],
]))
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, by folder."""
    place = tmp_path_factory.mktemp("wheels")
    return {folder: build_wheel(ROOT / folder, place) for folder in PACKAGES}


@pytest.mark.parametrize("folder", PACKAGES)
def test_wheel_has_the_whole_package_and_the_licence(wheels, folder):
    package = PACKAGES[folder]
    with zipfile.ZipFile(wheels[folder]) as wheel:
        names = set(wheel.namelist())
    sources = {
        path.relative_to(ROOT / folder).as_posix()
        for path in (ROOT / folder / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert sources == {name for name in names if ".dist-info/" not in name}
    assert any(name.endswith("/LICENSE") for name in names)


def test_client_alone_in_a_clean_environment(wheels, tmp_path):
    python = make_environment(tmp_path / "venv", wheels["client"])
    listed, forbidden = json.loads(run([python, "-c", LIST, *NOT_ON_A_DEVICE], tmp_path))
    assert not forbidden
    assert set(listed) == {"modelward", *closure(requirements_of(wheels["client"]))}

    world = LenientWorld(tmp_path, tmp_path)
    world.found()
    world.publish("1.0.0")
    modelward = python.with_name("modelward")
    state = ["--state", "device"]
    root = world.repository / "metadata/1.root.json"
    with world.serve() as server:
        run([modelward, "init", "--repository", server.url, "--root", root, *state], tmp_path)
        updated = json.loads(run([python, "-m", "modelward", "update", "--json", *state], tmp_path))
    assert updated["running"] == {MODEL: "1.0.0"}
    assert json.loads(run([modelward, "verify", "--json", *state], tmp_path))["outcome"] == "intact"
    version, content = json.loads(run([python, "-c", READ], tmp_path))
    assert version == "1.0.0"
    assert content == {path: data.decode() for path, data in world.offered.items()}


def make_environment(place: Path, wheel: Path) -> Path:
    """Return the Python of an environment with a wheel and what it demands."""
    run([sys.executable, "-m", "venv", "--without-pip", place], place.parent)
    python = place / "bin/python"
    (packages,) = place.glob("lib/python*/site-packages")
    copy_dependencies(wheel, packages)
    install(wheel, python)
    return python
