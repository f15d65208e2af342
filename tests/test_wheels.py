"""A device can install the client alone: its wheel, the dependencies that names, nothing more."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.simulator.world import MODEL, World, clean_environment

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


class LenientWorld(World):
    """A world whose devices need no runtime: a client alone brings none."""

    def policy(self) -> str:
        """Return the trust policy, which does not demand that a model is run before it is used."""
        demanding = super().policy()
        lenient = demanding.replace("required = true", "required = false")
        assert lenient != demanding
        return lenient


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, by folder."""
    place = tmp_path_factory.mktemp("wheels")
    for folder in PACKAGES:
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
        run([*command, "--outdir", place / folder, ROOT / folder], place)
    return {folder: next((place / folder).glob("*.whl")) for folder in PACKAGES}


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
    assert set(listed) == {"modelward", *closure(wheels["client"])}

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
    """Return the Python of an environment with a wheel and what it demands.

    The dependencies are copied from the environment that runs this test, where they are as
    requirements.lock has them: so no index is needed, and no version is another one.
    """
    run([sys.executable, "-m", "venv", "--without-pip", place], place.parent)
    python = place / "bin/python"
    (packages,) = place.glob("lib/python*/site-packages")
    for name in closure(wheel):
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(distribution.locate_file(file), target)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    run([*pip, "--no-deps", "--disable-pip-version-check", wheel], place)
    return python


def closure(wheel: Path) -> set[str]:
    """Return what a wheel demands, and what that demands, as pip would find it out."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    found: set[str] = set()
    waiting = list(wanted(metadata.get_all("Requires-Dist", [])))
    seen = set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        found.add(canonicalize_name(requirement.name))
        inner = importlib.metadata.requires(requirement.name) or []
        waiting += wanted(inner, requirement.extras)
    return found


def wanted(
    lines: list[str], extras: set[str] | frozenset[str] = frozenset()
) -> Iterator[Requirement]:
    """Yield the requirements that apply here."""
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            yield requirement


def run(command: list[object], folder: Path) -> str:
    """Run a command that must succeed, away from this checkout, and return what it printed."""
    environment = {
        name: value for name, value in clean_environment().items() if not name.startswith("PYTHON")
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done
    return done.stdout
