"""Real bundles on sticks, and a device that imports from them and is repaired from them.

The repository, its log and the bundles are made by the publisher's own code; the device goes
through every gate, the health check's process included. The sticks lie beside its state directory,
so that they are on the disk whose power goes.
"""

import contextlib
import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import modelward
from modelward import offline, repair
from modelward.device import Device
from modelward.errors import Gate, Refused
from modelward.transfer.medium import open_medium
from modelward.transfer.sources import Sources
from modelward_repo import cli as repo_tools
from tests.install.site import MODEL, Site
from tests.simulator.ledger import LoggedWorld, Witnesses
from tests.simulator.weights import fine_tuned, onnx_of, trained
from tests.simulator.world import World, bundle_of

NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens
OLD, NEW = "1.0.0", "2.0.0"


class Silent:
    """Watches, and says nothing."""

    def passed(self, gate: Gate, detail: str) -> None:
        """Note that a gate was passed."""

    def fetching(self, received: int, total: int, source: str) -> None:
        """Note what arrives."""

    def hashing(self, done: int, total: int) -> None:
        """Note what is hashed."""


def before_import(site: Site, *options: str) -> None:
    """Make a stick of each of two versions, and let the device run the first.

    Args:
        site: The device.
        options: Further options of `modelward-repo export`.
    """
    first = trained()
    with TemporaryDirectory() as name, Witnesses() as witnesses:
        place = Path(name)
        world = LoggedWorld(place, place, witnesses=witnesses)
        world.found()
        for version, weights in ((OLD, first), (NEW, fine_tuned(first))):
            bundle = {**bundle_of(version), "model.onnx": onnx_of(weights)}
            world.publish(version, bundle=bundle, cheaply=True)
            export(world, stick(site, version), *options)
        root = (world.repository / "metadata/1.root.json").read_bytes()
    (site.state / "root.json").write_bytes(root)
    bring(site, OLD)


def export(world: World, target: Path, *options: str) -> None:
    """Write a bundle, as `modelward-repo export` does."""
    arguments = ["export", "--to", str(target), "--repository", str(world.repository)]
    with contextlib.redirect_stdout(io.StringIO()):
        assert repo_tools.run([*arguments, *options]) == 0


def stick(site: Site, version: str) -> Path:
    """Return the place of a bundle."""
    return site.state.parent / "sticks" / version


def device(site: Site) -> Device:
    """Return the device, at today's time: its repository has just been made."""
    config = replace(site.device.config, repository=NOWHERE)
    return replace(site.device, config=config, clock=lambda: datetime.now(UTC))


def bring(site: Site, version: str = NEW) -> None:
    """Import a stick, as `modelward import` does."""
    offline.bring(device(site), stick(site, version), (), Silent())


def after_import(site: Site, *, ended: bool) -> None:
    """Require that the stick can be imported again, and that an older one never can."""
    if ended:
        refuses_older(site)
    bring(site)
    assert site.versions() == (NEW, OLD)
    refuses_older(site)
    assert not [*(site.state / "tuf").rglob(".tmp*")]


def refuses_older(site: Site) -> None:
    """Require that what is older than what came here is refused (attack row 2)."""
    with pytest.raises(Refused) as refused:
        bring(site, OLD)
    assert refused.value.gate is Gate.METADATA


def damaged(site: Site) -> None:
    """Damage what runs, its proof and a copy of the floors, and let the alarm be raised."""
    before_import(site, "--no-patches")
    bring(site)
    model = site.file("model.onnx").resolve()
    model.chmod(0o644)
    model.write_bytes(b"not the weights")
    (model.parents[1] / "evidence.jsonl").unlink()
    (site.state / "floors.a").write_bytes(b"")
    with modelward.open_model(MODEL, site.state) as opened:
        assert opened.version == OLD
    assert site.device.alarms.pending()


def mend(site: Site) -> None:
    """Repair everything, as `modelward verify --repair` does: from the stick what is lost."""
    watch = Silent()
    with Sources([open_medium(stick(site, NEW))]) as sources:
        done = repair.repair(device(site), (), watch.hashing, watch, sources)
    assert not done.remaining, done.remaining
    assert not site.device.alarms.pending()
