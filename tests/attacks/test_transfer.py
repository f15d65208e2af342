"""Somebody on the way, or a mirror, sends too much, too little, something else, or elsewhere."""

import pytest

from modelward.errors import Gate
from tests.attacks.scene import Scene
from tests.simulator import server
from tests.simulator.server import Endless
from tests.simulator.thief import PUBLISHER, poison, release_of
from tests.simulator.world import PLAIN, SUMS, write_plain

BUFFERS = 16 << 20  # bytes that the two ends of a loopback connection may hold between them
WEIGHTS = rf"(?:/blobs/|/{PLAIN}/model\.onnx)"
METADATA: dict[str, str] = {
    "timestamp": rf"/metadata/timestamp\.json|/{PLAIN}/{SUMS}",
    "snapshot": r"/metadata/[0-9]+\.snapshot\.json",
    "root": r"/metadata/2\.root\.json",
    "the model's role": r"/metadata/[0-9]+\.model-meter-reader\.json",
    "release": r"/targets/models/meter-reader/1\.1\.0/.*release\.json",
    "evidence": r"/targets/models/meter-reader/1\.1\.0/.*evidence\.jsonl",
    "policy": r"/targets/.*\.policy\.json",
}


# --- 7: endless data


@pytest.mark.attack(7)
@pytest.mark.parametrize("what", METADATA)
def test_endless_document(scene: Scene, what: str) -> None:
    """A server sends without end"""
    scene.world.publish("1.1.0")
    scene.server.lie(METADATA[what], Endless())
    scene.refused_at(Gate.METADATA, "more than", tuf=what not in ("evidence", "policy"))
    assert scene.poured < BUFFERS


@pytest.mark.attack(7)
def test_endless_blob(scene: Scene) -> None:
    """A server sends weights without end."""
    scene.world.publish("1.1.0")
    scene.server.lie(WEIGHTS, Endless())
    scene.refused_at(Gate.FETCH, "delivered more than")
    assert scene.poured < BUFFERS


@pytest.mark.attack(7)
def test_blob_announced_too_long(scene: Scene) -> None:
    """A server announces a terabyte of weights."""
    scene.world.publish("1.1.0")
    scene.server.lie(WEIGHTS, server.announce_too_much)
    scene.refused_at(Gate.FETCH, "delivered more than")


@pytest.mark.attack(7)
def test_oversize_release_signed(scene: Scene) -> None:
    """A thief with the release key signs a release.json of 2 MiB."""
    chain = scene.world.chain("1.1.0")
    document = release_of("1.1.0", chain.content).to_bytes() + b" " * (2 << 20)
    scene.thief(*PUBLISHER).publish("1.1.0", chain.content, chain.evidence, document=document)
    scene.refused_at(Gate.METADATA, "at most 1048576 may be", tuf=False, checksums=False)
    assert not scene.server.asked(r"/targets/models/meter-reader/1\.1\.0/.*release\.json")


@pytest.mark.attack(7)
def test_oversize_evidence_signed(scene: Scene) -> None:
    """A thief with the release key signs 17 MiB of evidence."""
    chain = scene.world.chain("1.1.0")
    evidence = chain.evidence_bytes() + b" " * (17 << 20)
    scene.thief(*PUBLISHER).publish("1.1.0", chain.content, evidence)
    scene.refused_at(Gate.METADATA, "at most 16777216 may be", tuf=False, checksums=False)
    assert not scene.server.asked(r"/targets/models/meter-reader/1\.1\.0/.*evidence")


# --- 11: a mirror that lies


@pytest.mark.attack(11)
def test_wrong_bytes(scene: Scene) -> None:
    """A mirror swaps the weights, length and all."""
    scene.world.publish("1.1.0")
    scene.server.lie(WEIGHTS, lambda honest: server.instead(honest[:-1] + b"!")(honest))
    scene.refused_at(Gate.FETCH, "other content than its name says")


@pytest.mark.attack(11)
def test_wrong_bytes_and_checksums(scene: Scene) -> None:
    """A mirror swaps the weights and whatever stands beside them."""
    chain = scene.world.chain("1.1.0")
    scene.world.publish("1.1.0")
    scene.thief()
    for path in scene.world.repository.glob("blobs/sha256/*/*"):
        if path.read_bytes() == chain.content["model.onnx"]:
            path.write_bytes(poison({})["model.onnx"])
    write_plain(scene.world.repository, poison(chain.content))
    scene.refused_at(Gate.FETCH, "delivered")


@pytest.mark.attack(11)
def test_truncated_blob(scene: Scene) -> None:
    """A mirror sends half of the weights and hangs up."""
    scene.world.publish("1.1.0")
    scene.server.lie(WEIGHTS, server.cut)
    scene.unavailable_at(Gate.FETCH, "bytes short")


@pytest.mark.attack(11)
def test_truncated_metadata(scene: Scene) -> None:
    """A mirror sends half of the timestamp and hangs up."""
    scene.world.publish("1.1.0")
    scene.server.lie(METADATA["timestamp"], server.cut)
    scene.unavailable_at(Gate.METADATA, "bytes short")


@pytest.mark.attack(11)
def test_redirect_loop(scene: Scene) -> None:
    """A mirror redirects in a circle."""
    scene.world.publish("1.1.0")
    scene.server.lie(WEIGHTS, server.redirect(f"{scene.server.url}/{PLAIN}/model.onnx"))
    scene.unavailable_at(Gate.FETCH, "answered 302")


@pytest.mark.attack(11)
@pytest.mark.parametrize(
    "target",
    [
        pytest.param("trap", id="an inner service"),
        pytest.param("file:///etc/hostname", id="a local file"),
    ],
)
def test_redirect(scene: Scene, target: str) -> None:
    """A mirror redirects to what only the device can reach"""
    url = f"{scene.trap.url}/latest/meta-data/" if target == "trap" else target
    scene.world.publish("1.1.0")
    scene.server.lie(WEIGHTS, server.redirect(url))
    scene.unavailable_at(Gate.FETCH, "answered 302")


@pytest.mark.attack(11)
def test_redirected_metadata(scene: Scene) -> None:
    """A mirror redirects requests for metadata to what only the device can reach."""
    answer = server.redirect(f"{scene.trap.url}/latest/meta-data/")
    scene.world.publish("1.1.0")
    scene.server.lie(METADATA["timestamp"], answer)
    scene.unavailable_at(Gate.METADATA, "answered 302")


@pytest.mark.attack(11)
def test_gzip_bomb(scene: Scene) -> None:
    """A mirror sends weights that unpack to 64 MiB."""
    scene.world.publish("1.1.0")
    scene.server.lie(WEIGHTS, server.gzip_bomb)
    scene.unavailable_at(Gate.FETCH, "'gzip', which is refused")
