"""Gate 7: somebody with stolen keys, or a liar in the team, makes or changes a release.

Every case publishes with stolen keys, and asks no gate. What is refused here is refused before a
single weight is asked for: `Scene` looks at the server's log.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from modelward.errors import Gate
from tests.attacks.scene import Scene
from tests.simulator.chain import Link, Tamper, digest
from tests.simulator.thief import (
    PUBLISHER,
    RELEASE,
    SERVER,
    poison,
    release_of,
    renamed,
)
from tests.simulator.world import World, bundle_of

FAKE = {"sha256": digest(b"what the thief wants")}
POISON = {"sha256": digest(poison({})["model.onnx"])}
Change = Callable[[dict[str, Any]], Any]


def at(step: str, change: Change, holder: str = "") -> Tamper:
    """Change the content of a step's links, or of one holder's."""

    def tamper(link: Link) -> Link:
        if link.step == step and holder in ("", link.holder):
            change(link.content)
        return link

    return tamper


def both(first: Tamper, second: Tamper) -> Tamper:
    """Do one after the other."""

    def tamper(link: Link) -> Link | None:
        changed = first(link)
        return second(changed) if changed else None

    return tamper


def swap(kind: str, path: str, files: Mapping[str, str] = FAKE) -> Change:
    """Return a change that claims another file under a path."""
    return lambda content: content[kind].update({path: dict(files)})


def without(step: str) -> Tamper:
    """Leave a step's evidence out."""
    return lambda link: None if link.step == step else link


# --- 13: the release role's key


@pytest.mark.attack(13)
def test_poisoned_files_with_honest_evidence(scene: Scene) -> None:
    """Release CI is broken into: poisoned weights, honest evidence of the approved ones."""
    chain = scene.world.chain("1.1.0")
    scene.thief(*PUBLISHER).publish("1.1.0", poison(chain.content), chain.evidence)
    scene.refused_at(Gate.SUPPLY_CHAIN, "'model.onnx' is not the file that was approved")


@pytest.mark.attack(13)
def test_running_release_exchanged(scene: Scene) -> None:
    """The release that runs is published once more, poisoned, under the same version."""
    thief = scene.thief(*SERVER, RELEASE)
    evidence = thief.evidence_of("1.0.0")
    content = poison(renamed(scene.world.offered, "1.0.0"))
    thief.publish("1.0.0", content, evidence, offer=False)
    scene.refused_at(Gate.SUPPLY_CHAIN, "'model.onnx' is not the file that was approved")


@pytest.mark.attack(13)
def test_old_release_relabelled(scene: Scene) -> None:
    """Honest old files and their honest evidence are published as a new version."""
    thief = scene.thief(*PUBLISHER)
    old = renamed(thief.files_of("0.9.0"), "6.6.6")
    thief.publish("6.6.6", old, thief.evidence_of("0.9.0"))
    scene.refused_at(Gate.SUPPLY_CHAIN, "'ticket.json' is not the file that was approved")


@pytest.mark.attack(13)
def test_old_release_renumbered(scene: Scene) -> None:
    """The honest old release is published once more with a higher counter."""
    thief = scene.thief(*PUBLISHER)
    old = thief.files_of("0.9.0")
    document = replace(release_of("0.9.0", old), counter=1000).to_bytes()
    thief.publish("0.9.0", old, thief.evidence_of("0.9.0"), document=document)
    scene.refused_at(Gate.RELEASE, "is 1000, but the ticket was issued for 1")


@pytest.mark.attack(13)
def test_old_release_offered(scene: Scene) -> None:
    """The honest old release is published once more, as it was."""
    thief = scene.thief(*PUBLISHER)
    thief.publish("0.9.0", thief.files_of("0.9.0"), thief.evidence_of("0.9.0"))
    scene.refused_at(Gate.RELEASE, "has the counter 1, but this device accepts only")


@pytest.mark.attack(13)
def test_file_added(scene: Scene) -> None:
    """A file that nobody approved is added to an honest release."""
    chain = scene.world.chain("1.1.0")
    content = {**chain.content, "preprocess.json": b"{}"}
    scene.thief(*PUBLISHER).publish("1.1.0", content, chain.evidence)
    scene.refused_at(Gate.SUPPLY_CHAIN, "a file 'preprocess.json' that nobody approved")


@pytest.mark.attack(13)
def test_no_evidence(scene: Scene) -> None:
    """Poisoned weights without any evidence."""
    chain = scene.world.chain("6.6.6")
    scene.thief(*PUBLISHER).publish("6.6.6", poison(chain.content), [])
    scene.refused_at(Gate.SUPPLY_CHAIN, "in-toto")


# --- 14: the release role's key and the packaging job

PACKAGED = at("package", swap("products", "bundle/model.onnx", POISON))
APPROVED = both(
    at("approve", swap("materials", "bundle/model.onnx", POISON)),
    at("approve", swap("products", "bundle/model.onnx", POISON)),
)


def by(holder: str) -> Tamper:
    """Have `approve` signed by somebody else."""

    def tamper(link: Link) -> Link:
        if link.step == "approve":
            link.holder = holder
        return link

    return tamper


def only(step: str, holder: str) -> Tamper:
    """Leave out the evidence of everybody else at a step."""
    return lambda link: link if link.step != step or link.holder == holder else None


@pytest.mark.attack(14)
@pytest.mark.parametrize(
    ("stolen", "tamper", "reason"),
    [
        pytest.param((), PACKAGED, "bundle/model.onnx", id="approvals are of other files"),
        pytest.param((), both(PACKAGED, without("approve")), "'approve'", id="no approvals"),
        pytest.param(
            (),
            both(both(PACKAGED, APPROVED), both(only("approve", "approver-a"), by("package-ci"))),
            "may not do that step",
            id="package CI approves, too",
        ),
        pytest.param(
            ("approver-a/functionary",),
            both(both(PACKAGED, APPROVED), only("approve", "approver-a")),
            "'approve'",
            id="one approver's key is stolen, too",
        ),
    ],
)
def test_release_and_package_keys_stolen(
    scene: Scene, stolen: tuple[str, ...], tamper: Tamper, reason: str
) -> None:
    """Release CI and the packaging job are broken into"""
    thief = scene.thief(*PUBLISHER, "package-ci/functionary", *stolen)
    chain = scene.world.chain("1.1.0")
    thief.publish("1.1.0", poison(chain.content), thief.links(chain, tamper))
    scene.refused_at(Gate.SUPPLY_CHAIN, reason)


@pytest.mark.attack(14)
def test_all_ci_stolen(scene: Scene) -> None:
    """The keys of every job are stolen, from training to release: two people must still approve."""
    jobs = ("train-ci", "eval-ci", "convert-ci", "package-ci")
    thief = scene.thief(*PUBLISHER, *(f"{job}/functionary" for job in jobs))
    honest = scene.world.chain("1.1.0")
    forged = scene.world.chain("1.1.0", bundle=poison(bundle_of("1.1.0")))
    evidence = [
        theirs if theirs.content["name"] == "approve" else ours
        for theirs, ours in zip(honest.evidence, forged.evidence, strict=True)
    ]
    thief.publish("1.1.0", forged.content, evidence)
    scene.refused_at(Gate.SUPPLY_CHAIN, "'approve'")


# --- 20: swapped on the way from data to package


HONEST = {"sha256": digest(bundle_of("1.1.0")["model.onnx"])}
EVALUATED_ANOTHER = both(
    at("convert", swap("products", "edge/model.onnx", HONEST)),
    both(
        at("evaluate-edge", swap("materials", "edge/model.onnx", HONEST)),
        at("package", swap("materials", "edge/model.onnx", HONEST)),
    ),
)


def test_what_everybody_attests_is_installed(world: World) -> None:
    """The control: take the lie away from the cases below, and the same weights pass."""
    world.publish("1.1.0", bundle=poison(bundle_of("1.1.0")))
    with world.serve() as server:
        done = world.client_here("update", server)
    assert done.json["running"] == {"meter-reader": "1.1.0"}


@pytest.mark.attack(20)
@pytest.mark.parametrize(
    ("liar", "tamper", "reason"),
    [
        pytest.param(
            "train-ci",
            at("train", swap("materials", "data/train.manifest")),
            "data/train.manifest",
            id="the data set is swapped before training",
        ),
        pytest.param(
            "train-ci",
            at("train", swap("materials", "code/train.py")),
            "code/train.py",
            id="training runs code that nobody reviewed",
        ),
        pytest.param(
            "package-ci",
            EVALUATED_ANOTHER,
            "bundle/model.onnx",
            id="the model is replaced between evaluation and packaging",
        ),
        pytest.param(
            "convert-ci",
            at("convert", swap("materials", "model/w0.npy")),
            "model/w0.npy",
            id="the quantised model is not derived from the evaluated one",
        ),
    ],
)
def test_swap_inside_the_pipeline(scene: Scene, liar: str, tamper: Tamper, reason: str) -> None:
    """All others attest in good faith"""
    chain = scene.poisoned()
    thief = scene.thief(*PUBLISHER, f"{liar}/functionary")
    others = {"convert-ci", "eval-ci"} - {liar}
    thief.publish("1.1.0", chain.content, thief.links(chain, tamper, deceived=others))
    scene.refused_at(Gate.SUPPLY_CHAIN, reason)


# --- 21: evidence that lies

LIES: dict[str, tuple[Tamper, str]] = {
    "link renamed to another step": (
        at("train", lambda link: link.update(name="evaluate")),
        "may not do that step",
    ),
    "failed command": (
        at("train", lambda link: link["byproducts"].update({"return-value": 1})),
        "reports a failed command",
    ),
    "empty hash": (
        at("train", swap("products", "model/w0.npy", {})),
        "must have exactly one digest",
    ),
    "made-up hash": (
        at("train", swap("products", "model/w0.npy", {"vibes": "00"})),
        "must have exactly one digest",
    ),
    "never saw the data set": (
        at("train", lambda link: link["materials"].pop("data/train.manifest")),
        "data/train.manifest",
    ),
}


@pytest.mark.attack(21)
@pytest.mark.parametrize("lie", LIES)
def test_lying_evidence(scene: Scene, lie: str) -> None:
    """Training CI lies"""
    tamper, reason = LIES[lie]
    chain = scene.poisoned()
    thief = scene.thief(*PUBLISHER, "train-ci/functionary")
    thief.publish("1.1.0", chain.content, thief.links(chain, tamper))
    scene.refused_at(Gate.SUPPLY_CHAIN, reason)


@pytest.mark.attack(21)
def test_links_that_disagree(scene: Scene) -> None:
    """One of two reviewers attests other code than the other did."""
    chain = scene.poisoned()
    thief = scene.thief(*PUBLISHER, "reviewer-b/functionary")
    tamper = at("review", swap("products", "code/backdoor.py"), "reviewer-b")
    thief.publish("1.1.0", chain.content, thief.links(chain, tamper))
    scene.refused_at(Gate.SUPPLY_CHAIN, "disagree")


@pytest.mark.attack(21)
def test_link_of_an_older_release(scene: Scene) -> None:
    """One honest link of an older release stands among those of the new one."""
    chain = scene.poisoned()
    thief = scene.thief(*PUBLISHER)
    new = [link for link in chain.evidence if link.content["name"] != "ingest"]
    old = [link for link in thief.evidence_of("1.0.0") if link.content["name"] == "ingest"]
    thief.publish("1.1.0", chain.content, [*new, *old])
    scene.refused_at(Gate.SUPPLY_CHAIN, "ticket.json")
