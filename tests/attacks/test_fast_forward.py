"""Row 5: stolen keys sign the highest version there is, and a new root lets devices forget it.

Until then a device refuses everything honest, because it is "older": that is the attack.
Recovery is the security team's, with the ceremony that the runbook of that name describes.
"""

import secrets
import shutil
from collections.abc import Callable, Sequence

import pytest
from tuf.api.metadata import Targets

from modelward.errors import ExitCode, Gate
from modelward.formats.strict import MAX_INT
from modelward_repo.roles.changes import BumpVersion, Change, ReplaceKey
from tests.attacks.scene import Scene
from tests.repo_tools.ceremonies import keyid, make_key, propose, publish, sign, view
from tests.repo_tools.site import Site
from tests.simulator.thief import PUBLISHER, RELEASE, SERVER, Thief

MODEL_ROLE = "model-meter-reader"
ONLINE = ("snapshot", "timestamp")
SIGNERS = ("alice/root", "bob/root", "alice/targets", "bob/targets")


def fast_forward(thief: Thief, *roles: str) -> None:
    """Sign roles at the highest version that a device accepts."""
    staging = thief.stage()
    for role in roles:
        staging.number(role, MAX_INT)
    for role in set(roles) - {*ONLINE, Targets.type}:
        staging.sign_again(role, thief.signers(role))
    thief.commit(staging)


def rotation(scene: Scene, roles: Sequence[str] = ONLINE) -> Callable[[], None]:
    """Return what the security team does: new keys for roles, and versions start anew."""

    def rotate() -> None:
        world = scene.world
        put_back(scene)
        held_hostage = world.client_here("update", scene.server)
        assert held_hostage.code == ExitCode.REFUSED, held_hostage
        replace(scene, roles)

    return rotate


def put_back(scene: Scene) -> None:
    """Serve the repository as it was before the thief came."""
    shutil.rmtree(scene.world.repository)
    shutil.copytree(scene.backup, scene.world.repository)


def replace(scene: Scene, roles: Sequence[str]) -> None:
    """Hold the ceremony that replaces the keys of roles."""
    site = Site(scene.world.repository, scene.world.keys)
    clean = f"clean-{secrets.token_hex(4)}"
    wish: list[Change] = []
    for role in roles:
        (old,) = view(site).keys(role)
        wish.append(ReplaceKey(role, old, make_key(site, clean, role)))
    wish += [BumpVersion(role, 100) for role in roles]
    request = propose(site, *wish)
    names = [name for name in SIGNERS if request.roles_of(keyid(site, *name.split("/")))]
    done = publish(site, sign(request, site, *names))
    assert {done.versions[role] for role in roles} == {100}


@pytest.mark.attack(5)
def test_fast_forward(scene: Scene) -> None:
    """Timestamp and snapshot get the highest version there is; a new root ends it."""
    fast_forward(scene.thief(*SERVER), *ONLINE)
    scene.recover = rotation(scene)
    scene.withheld()


@pytest.mark.attack(5)
def test_fast_forward_of_the_model_s_role(scene: Scene) -> None:
    """The model's role, too, from release CI; a new root ends it."""
    fast_forward(scene.thief(*SERVER, RELEASE), *ONLINE, MODEL_ROLE)
    scene.recover = rotation(scene, (*ONLINE, MODEL_ROLE))
    scene.withheld()


@pytest.mark.attack(5)
def test_fast_forward_with_keys_that_were_replaced(scene: Scene) -> None:
    """The server's keys are replaced; the thief serves what they signed before and after."""
    thief = scene.thief(*PUBLISHER)
    fast_forward(thief, *ONLINE)
    assert scene.world.client_here("update", scene.server).code == ExitCode.DONE
    rotation(scene)()
    assert scene.world.client_here("update", scene.server).code == ExitCode.DONE
    shutil.rmtree(scene.backup)
    shutil.copytree(scene.world.repository, scene.backup)
    fast_forward(thief, *ONLINE)
    scene.recover = lambda: put_back(scene)
    scene.refused_at(Gate.METADATA, "timestamp was signed by 0/1 keys")
