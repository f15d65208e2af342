"""Gate 7: layouts that prove nothing, that would run commands, or that their owners no longer want.

The owners' keys are stolen, or the owners were deceived: a layout in force says what is proof.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from modelward.errors import Gate
from modelward.formats import strict
from modelward_repo.roles import metadata as tuf
from tests.attacks.scene import Scene
from tests.simulator.chain import Link
from tests.simulator.server import instead
from tests.simulator.thief import OWNERS, PUBLISHER, SECURITY_TEAM, SERVER
from tests.simulator.world import now

Change = Callable[[dict[str, Any]], Any]


# --- 21: commands to run, layouts that prove nothing


def inspection(marker: Path) -> dict[str, Any]:
    """Return an inspection that leaves a mark if anybody runs it."""
    return {
        "_type": "inspection",
        "name": "look",
        "run": ["touch", str(marker)],
        "expected_materials": [],
        "expected_products": [],
    }


@pytest.mark.attack(21)
def test_sublayout(scene: Scene) -> None:
    """A sublayout stands in place of a link, and would run a command on the device."""
    marker = scene.world.place / "executed"
    chain = scene.poisoned()
    thief = scene.thief(*PUBLISHER, "train-ci/functionary")
    sublayout = {**chain.unsigned_layout.content, "inspect": [inspection(marker)]}

    def put_in_place(link: Link) -> Link:
        if link.step == "train":
            link.content = {**sublayout, "name": "train"}
        return link

    thief.publish("1.1.0", chain.content, thief.links(chain, put_in_place))
    scene.refused_at(Gate.SUPPLY_CHAIN, "_type")
    assert not marker.exists()


def step_of(layout: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a step of a layout."""
    return next(step for step in layout["steps"] if step["name"] == name)


def alias_a_key(layout: dict[str, Any]) -> None:
    """List one reviewer's key once more, under another id."""
    review = step_of(layout, "review")
    layout["keys"]["0" * 64] = layout["keys"][review["pubkeys"][0]]
    review["pubkeys"].append("0" * 64)


def let_anything_pass(layout: dict[str, Any]) -> None:
    """Take the final DISALLOW away from what packaging may make."""
    step_of(layout, "package")["expected_products"].pop()


def use_a_parameter(layout: dict[str, Any]) -> None:
    """Leave for later which files training may make."""
    step_of(layout, "train")["expected_products"][0] = ["CREATE", "{models}/*"]


WEAK: dict[str, tuple[Change, str]] = {
    "one key under two key ids": (alias_a_key, "key id is not the hash of the key"),
    "no steps": (lambda layout: layout.update(steps=[]), "without steps"),
    "no final DISALLOW": (let_anything_pass, "must end with DISALLOW"),
    "parameters": (use_a_parameter, "has a parameter"),
}
DECEIVED = (*PUBLISHER, *SECURITY_TEAM, *OWNERS)


@pytest.mark.attack(21)
@pytest.mark.parametrize("weakness", WEAK)
def test_weak_layout(scene: Scene, weakness: str) -> None:
    """The owners were made to sign a layout that proves nothing"""
    change, reason = WEAK[weakness]
    chain = scene.poisoned()
    thief = scene.thief(*DECEIVED)
    thief.replace_layout(change)
    thief.publish("1.1.0", chain.content, chain.evidence)
    scene.refused_at(Gate.SUPPLY_CHAIN, reason)


@pytest.mark.attack(21)
def test_inspection(scene: Scene) -> None:
    """The owners were made to sign a layout that has devices run a command."""
    marker = scene.world.place / "executed"
    chain = scene.poisoned()
    thief = scene.thief(*DECEIVED)
    thief.replace_layout(lambda layout: layout.update(inspect=[inspection(marker)]))
    thief.publish("1.1.0", chain.content, chain.evidence)
    scene.refused_at(Gate.SUPPLY_CHAIN, "has an inspection")
    assert not marker.exists()


# --- 23: the layout's own trust


@pytest.mark.attack(23)
def test_layout_expired(scene: Scene) -> None:
    """The layout has expired: its owners vouch for nothing any more."""
    chain = scene.poisoned()
    thief = scene.thief(*DECEIVED)
    yesterday = strict.rfc3339(now() - timedelta(days=1))
    thief.replace_layout(lambda layout: layout.update(expires=yesterday))
    thief.publish("1.1.0", chain.content, chain.evidence)
    scene.refused_at(Gate.SUPPLY_CHAIN, "the layout expired")


def stricter(layout: dict[str, Any]) -> None:
    """Take a reviewer out whose key was lost."""
    step_of(layout, "review")["pubkeys"].pop()


@pytest.mark.attack(23)
def test_old_layout_relisted(scene: Scene) -> None:
    """The owners replaced the layout; a stolen server lists the targets role of before."""
    scene.holder(*SERVER, *SECURITY_TEAM, *OWNERS).replace_layout(stricter)
    scene.everyone_updates()
    thief = scene.thief(*SERVER)
    old = tuf.meta_file(2, thief.read("metadata/2.targets.json"))
    version = thief.timestamp.snapshot_meta.version + 1
    thief.sign_snapshot(version, lambda snapshot: snapshot.meta.update({"targets.json": old}))
    scene.refused_at(Gate.METADATA, "targets.json version")


@pytest.mark.attack(23)
def test_old_layout_served(scene: Scene) -> None:
    """The owners replaced the layout; a mirror serves the old one in its place."""
    old = current_layout(scene)
    scene.holder(*SERVER, *SECURITY_TEAM, *OWNERS).replace_layout(stricter)
    scene.world.publish("1.1.0")
    scene.server.lie(r"/targets/layouts/.*\.meter-reader\.json", instead(old))
    scene.refused_at(Gate.METADATA, "the target layouts/meter-reader.json", tuf=False)


def current_layout(scene: Scene) -> bytes:
    """Return the layout's file."""
    (path,) = (scene.world.repository / "targets/layouts").glob("*.meter-reader.json")
    return path.read_bytes()


@pytest.mark.attack(23)
@pytest.mark.parametrize(
    "owners",
    [
        pytest.param(("lead-a",), id="one of three owners"),
        pytest.param(("lead-a", "stranger"), id="one owner and a stranger"),
        pytest.param(("stranger",), id="nobody who owns it"),
    ],
)
def test_owner_threshold(scene: Scene, owners: tuple[str, ...]) -> None:
    """A layout is published that too few owners signed"""
    chain = scene.poisoned()
    thief = scene.thief(*PUBLISHER, *SECURITY_TEAM, "lead-a/layout")
    thief.replace_layout(let_anything_pass, owners)
    thief.publish("1.1.0", chain.content, chain.evidence)
    scene.refused_at(Gate.SUPPLY_CHAIN, "2 of 3 must sign")
