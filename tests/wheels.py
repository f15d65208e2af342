"""Wheels of this project, installed where nothing else is: no index is asked."""

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.simulator.world import clean_environment


def build_wheel(folder: Path, to: Path) -> Path:
    """Build the wheel of a distribution."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    run([*command, "--outdir", to / folder.name, folder], to)
    return next((to / folder.name).glob("*.whl"))


def copy_dependencies(wheel: Path, packages: Path) -> None:
    """Copy what a wheel demands to a folder of packages.

    It is copied from the environment that runs this test, where it is as requirements.lock has it:
    so no index is needed, and no version is another one.
    """
    copy_distributions(closure(requirements_of(wheel)), packages)


def copy_distributions(names: Iterable[str], packages: Path) -> None:
    """Copy distributions from the environment that runs this test to a folder of packages."""
    for name in names:
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(distribution.locate_file(file), target)


def install(wheel: Path, python: Path) -> None:
    """Install a wheel alone for a Python."""
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    run([*pip, "--no-deps", "--disable-pip-version-check", wheel], wheel.parent)


def requirements_of(wheel: Path) -> list[str]:
    """Return what a wheel demands."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    return metadata.get_all("Requires-Dist", [])


def closure(requirements: list[str]) -> set[str]:
    """Return what is demanded, and what that demands, as pip would find it out."""
    found: set[str] = set()
    waiting = list(wanted(requirements))
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
