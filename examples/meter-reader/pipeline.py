"""The meter reader's supply chain, as its people and CI jobs run it.

Every actor has a workspace of its own, as if on a machine of its own, takes only the files that
its step needs from the actors before it, and signs with its own key. The one thing they share is
the folder in which links are collected.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

Run = Callable[[Sequence[str], Path], None]
"""Runs a command line in a directory; raises if it fails."""


@dataclass(frozen=True)
class Step:
    """One step of layouts/meter-reader.toml.

    Attributes:
        name: The step.
        actors: Who does it, each with a key of that name.
        takes: Files and directories, and the actor they come from.
        materials: What is recorded as going in.
        products: What is recorded as coming out.
        command: What is run; empty where people look and sign.
        manifests: Directories recorded through their manifests.
    """

    name: str
    actors: tuple[str, ...]
    takes: tuple[tuple[str, str], ...]
    materials: tuple[str, ...]
    products: tuple[str, ...]
    command: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()


TICKET = ("ticket.json", "release-manager")
CODE = ("code", "reviewer-a")
TRAIN = ("data/train", "data-a"), ("data/train.manifest", "data-a")
HOLDOUT = ("data/holdout", "data-a"), ("data/holdout.manifest", "data-a")

STEPS = (
    Step("open-release", ("release-manager",), (), (), ("ticket.json",)),
    Step("review", ("reviewer-a", "reviewer-b"), (TICKET,), ("ticket.json",), ("code",)),
    Step(
        "ingest",
        ("data-a", "data-b"),
        (TICKET,),
        ("ticket.json",),
        ("data/train.manifest", "data/holdout.manifest"),
        ("sh", "code/ingest.sh"),
        ("data/train", "data/holdout"),
    ),
    Step(
        "train",
        ("train-ci",),
        (TICKET, CODE, *TRAIN),
        ("ticket.json", "code", "data/train.manifest"),
        ("model",),
        ("python", "code/train.py", "data/train", "model"),
        ("data/train",),
    ),
    Step(
        "evaluate",
        ("eval-ci",),
        (TICKET, CODE, *HOLDOUT, ("model", "train-ci")),
        ("ticket.json", "code", "data/holdout.manifest", "model"),
        ("metrics/float",),
        ("python", "code/evaluate.py", "model", "data/holdout", "metrics/float/metrics.json"),
        ("data/holdout",),
    ),
    Step(
        "convert",
        ("convert-ci",),
        (TICKET, CODE, ("model", "eval-ci")),
        ("ticket.json", "code", "model"),
        ("edge",),
        ("python", "code/convert.py", "model", "edge"),
    ),
    Step(
        "evaluate-edge",
        ("eval-ci",),
        (TICKET, CODE, *HOLDOUT, ("edge", "convert-ci")),
        ("ticket.json", "code", "data/holdout.manifest", "edge"),
        ("metrics/edge",),
        (
            *("python", "code/evaluate_edge.py", "edge", "data/holdout"),
            *("metrics/edge/metrics.json", "metrics/edge/golden.json"),
        ),
        ("data/holdout",),
    ),
    Step(
        "package",
        ("package-ci",),
        (TICKET, CODE, ("edge", "eval-ci"), ("metrics", "eval-ci")),
        ("ticket.json", "edge", "metrics"),
        ("bundle",),
        (
            *("python", "code/package.py", "--edge", "edge", "--ticket", "ticket.json"),
            *("--metrics", "metrics/edge/metrics.json", "--golden", "metrics/edge/golden.json"),
            *("--float-metrics", "metrics/float/metrics.json", "bundle"),
        ),
    ),
    Step(
        "approve",
        ("approver-a", "approver-b"),
        (TICKET, ("bundle", "package-ci")),
        ("ticket.json", "bundle"),
        ("bundle",),
    ),
)


@dataclass(frozen=True)
class Team:
    """The people and machines that make releases.

    Attributes:
        work: Folder of their workspaces.
        keys: Folder of their keys, one folder each.
        layout: The signed layout.
        policy: The model's policy.
        repository: The repository, to learn which release comes next.
        run: Runs a command line.
    """

    work: Path
    keys: Path
    layout: Path
    policy: Path
    repository: Path
    run: Run

    @property
    def links(self) -> Path:
        """Where links are collected."""
        return self.work / "links"

    @property
    def bundle(self) -> Path:
        """What was approved."""
        return self.work / "approver-a" / "bundle"

    def open_release(self, version: str) -> None:
        """Write the ticket that all evidence of this version will carry."""
        workspace = self._workspace("release-manager")
        arguments = ["modelward-repo", "ticket", "meter-reader", version]
        arguments += ["--commit", f"v{version}", "--repository", str(self.repository)]
        self.run(arguments, workspace)

    def do(self, step: Step, before_signing: Callable[[Path], None] | None = None) -> None:
        """Do a step with everyone it needs.

        Args:
            step: The step.
            before_signing: Changes the workspace first; how the demo plays a dishonest actor.
        """
        for actor in step.actors:
            workspace = self._workspace(actor)
            for path, giver in step.takes:
                _carry(self.work / giver / path, workspace / path)
            if before_signing:
                before_signing(workspace)
            self.run(self._attest(step, actor), workspace)

    def _attest(self, step: Step, actor: str) -> list[str]:
        arguments = ["modelward-repo", "attest", step.name]
        arguments += ["--layout", str(self.layout), "--policy", str(self.policy)]
        arguments += ["--links", str(self.links)]
        arguments += ["--key", str(self.keys / actor / "functionary.key")]
        for path in step.materials:
            arguments += ["--materials", path]
        for path in step.products:
            arguments += ["--products", path]
        for path in step.manifests:
            arguments += ["--manifest", f"{path}={path}.manifest"]
        return [*arguments, *(("--", *step.command) if step.command else ())]

    def _workspace(self, actor: str) -> Path:
        """Return an actor's workspace; people who write or run code start from a checkout."""
        workspace = self.work / actor
        if not workspace.exists():
            workspace.mkdir(parents=True)
            if actor.startswith(("reviewer", "data")):
                _carry(HERE / "code", workspace / "code")
        return workspace


def _carry(source: Path, target: Path) -> None:
    if source == target:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignore)
    else:
        shutil.copy2(source, target)
