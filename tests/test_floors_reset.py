"""The only way down for a floor: a reset that root's threshold signs, applied once."""

import shutil
from dataclasses import replace

import pytest

from modelward.errors import ExitCode, Gate
from modelward.formats.floors_reset import FIELD
from modelward.formats.strict import MAX_INT
from modelward_repo.roles.changes import Renew, ResetFloors
from tests.repo_tools.ceremonies import propose, publish, sign
from tests.repo_tools.site import Site
from tests.simulator.thief import PUBLISHER, Thief, restore
from tests.simulator.world import MODEL, World

SIGNERS = ("alice/root", "bob/root")


@pytest.fixture
def world(world: World) -> World:
    """A world in which a thief of every online key and of CI burned the model's counters."""
    shutil.copytree(world.repository, world.place / "backup")
    chain = replace(world.chain("1.1.0"), counter=MAX_INT)
    Thief(world, PUBLISHER).publish("1.1.0", chain.content, chain.evidence)
    return world


def ceremony(world: World, *changes) -> None:
    site = Site(world.repository, world.keys)
    publish(site, sign(propose(site, *changes), site, *SIGNERS))


def test_burned_counters(world):
    with world.serve() as server:

        def run(command: str, code: ExitCode = ExitCode.DONE):
            done = world.client_here(command, server if command == "update" else None)
            assert done.code == code, done
            return done.json

        assert run("update")["running"] == {MODEL: "1.1.0"}  # nothing told it from honest
        assert run("status")["floors"]["releases"] == {MODEL: MAX_INT}

        restore(world, world.place / "backup")
        world.publish("1.2.0")
        refused = run("update", ExitCode.REFUSED)
        assert refused["gate"] == Gate.RELEASE.label
        assert "accepts only" in refused["reason"]

        ceremony(world, ResetFloors(MODEL, 2))
        assert run("update")["running"] == {MODEL: "1.2.0"}
        assert run("status")["floors"]["releases"] == {MODEL: 3}

        ceremony(world, Renew("root"))  # root still carries the reset, which was applied
        world.offer("1.0.0")
        refused = run("update", ExitCode.REFUSED)
        assert "accepts only 4 and above" in refused["reason"]
        world.publish("1.3.0")
        assert run("update")["running"] == {MODEL: "1.3.0"}
        assert run("verify")["outcome"] == "intact"


def test_reset_that_is_ill_formed_is_refused(world):
    def spoil(root) -> None:
        root.unrecognized_fields[FIELD] = {"id": "", "releases": {}}

    thief = Thief(world, ())
    thief.sign_root(2, world.signers("root"), spoil)
    with world.serve() as server:
        done = world.client_here("update", server)
    assert done.code == ExitCode.REFUSED
    assert f"{FIELD}.id: is empty" in done.json["reason"]
    assert world.read_model()[0] == "1.0.0"
