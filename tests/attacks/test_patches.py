"""Somebody with the release key signs ways to honest files that lead elsewhere, or nowhere.

The files themselves are what was approved: so the device can have them all the same.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace

import pytest

from modelward.errors import Gate
from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob, Patch
from modelward.transfer.patch import TENSOR_DELTA, ZSTD
from modelward.transfer.plan import TRIES
from modelward_repo.publish.blobs import blob_path
from modelward_repo.publish.prepare.routes import read_index
from tests.attacks.scene import Scene
from tests.simulator import server
from tests.simulator.chain import HonestChain
from tests.simulator.model_files import onnx_file
from tests.simulator.thief import PUBLISHER, Thief, _blob, poison, release_of
from tests.simulator.world import bundle_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VERSION = "1.1.0"
BOMB = zstd.compress(bytes(1 << 30))  # a gigabyte of nothing, in some 30 kB
MEMORY = 8 << 20


@pytest.fixture
def chain(scene: Scene) -> HonestChain:
    """An honest run for 1.1.0 whose weights are long enough for a way around them to pay."""
    weights = onnx_file(os.urandom(200_000))
    return scene.world.chain(VERSION, bundle={**bundle_of(VERSION), "model.onnx": weights})


def publish(thief: Thief, chain: HonestChain, *patches: Patch, index: bytes | None = None) -> None:
    """Publish honest files with their honest evidence, and these ways to them."""
    release = release_of(VERSION, chain.content)
    if index is not None:
        thief.write(blob_path(_blob(index)), index)
        release = replace(
            release,
            files=tuple(
                replace(file, chunks=_blob(index)) if file.path == "model.onnx" else file
                for file in release.files
            ),
        )
    document = replace(release, patches=patches).to_bytes()
    thief.publish(VERSION, chain.content, chain.evidence, document=document)


def way(  # noqa: PLR0917 - what release.json says of a patch
    thief: Thief,
    content: Mapping[str, bytes],
    data: bytes,
    method: str = ZSTD,
    base: bytes | None = None,
    memory: int = MEMORY,
) -> Patch:
    """Upload what is to be taken for a way to the weights."""
    thief.write(blob_path(_blob(data)), data)
    to = _blob(content["model.onnx"]).sha256
    return Patch(to, _blob(base).sha256 if base else None, method, _blob(data), memory)


@pytest.mark.attack(27)
def test_bomb(scene: Scene, chain: HonestChain) -> None:
    """A compressed copy unpacks to a gigabyte."""
    thief = scene.thief(*PUBLISHER)
    publish(thief, chain, way(thief, chain.content, BOMB))
    scene.harmless(VERSION, chain.content, "(zstd/1) did not do, another way is taken")


@pytest.mark.attack(27)
def test_bomb_from_a_base(scene: Scene, chain: HonestChain) -> None:
    """A patch of what the device runs unpacks to a gigabyte."""
    _, running = scene.world.read_model()
    thief = scene.thief(*PUBLISHER)
    patch = way(thief, chain.content, BOMB, "zstd-patch/1", running["model.onnx"])
    publish(thief, chain, patch)
    scene.harmless(VERSION, chain.content, "(zstd-patch/1) did not do, another way is taken")


@pytest.mark.attack(27)
def test_lie_about_memory(scene: Scene, chain: HonestChain) -> None:
    """A compressed copy needs more memory than it says."""
    data = zstd.compress(bytes(len(chain.content["model.onnx"])))
    thief = scene.thief(*PUBLISHER)
    publish(thief, chain, way(thief, chain.content, data, memory=1 << 10))
    scene.harmless(VERSION, chain.content, "memory")


@pytest.mark.attack(27)
def test_noise(scene: Scene, chain: HonestChain) -> None:
    """A tensor delta is noise."""
    thief = scene.thief(*PUBLISHER)
    data = b"MWDELTA1" + os.urandom(5000)
    publish(thief, chain, way(thief, chain.content, data, TENSOR_DELTA))
    scene.harmless(VERSION, chain.content, "(tensor-delta/1) did not do, another way is taken")


@pytest.mark.attack(27)
def test_poison(scene: Scene, chain: HonestChain) -> None:
    """A compressed copy is that of poisoned weights."""
    poisoned = poison(chain.content)["model.onnx"]
    thief = scene.thief(*PUBLISHER)
    publish(thief, chain, way(thief, chain.content, zstd.compress(poisoned)))
    scene.harmless(VERSION, chain.content, "did not do, another way is taken")


@pytest.mark.attack(27)
def test_a_thousand_patches(scene: Scene, chain: HonestChain) -> None:
    """A thousand patches, none of which leads anywhere, are to keep the device busy."""
    thief = scene.thief(*PUBLISHER)
    patches = [way(thief, chain.content, os.urandom(1000 + n)) for n in range(1000)]
    publish(thief, chain, *patches)
    scene.harmless(VERSION, chain.content, "did not do, another way is taken")
    tried = {blob_path(patch.blob) for patch in patches}
    assert len({path for path in scene.server.requests if path[1:] in tried}) == TRIES


@pytest.mark.attack(27)
def test_index_that_lies(scene: Scene, chain: HonestChain) -> None:
    """A chunk index says that the new weights are what the device has."""
    world = scene.world
    before = {**bundle_of("1.0.1"), "model.onnx": onnx_file(os.urandom(200_000))}
    [old] = [
        read_index(world.storage, file.chunks)
        for file in world.publish("1.0.1", bundle=before, cheaply=True).release.files
        if file.chunks
    ]
    assert old
    scene.everyone_updates()
    chain = world.chain(VERSION, bundle=dict(chain.bundle))
    weights = _blob(chain.content["model.onnx"])
    index = ChunkIndex(weights.sha256, weights.length, old.table)
    publish(scene.thief(*PUBLISHER), chain, index=index.to_bytes())
    scene.harmless(VERSION, chain.content, "by changed chunks")


@pytest.mark.attack(27)
def test_bomb_and_nothing_else(scene: Scene, chain: HonestChain) -> None:
    """A compressed copy unpacks to a gigabyte, and the file itself is withheld."""
    thief = scene.thief(*PUBLISHER)
    publish(thief, chain, way(thief, chain.content, BOMB))
    weights: Blob = _blob(chain.content["model.onnx"])
    scene.server.lie(f"/{blob_path(weights)}", server.status(404))
    scene.unavailable_at(Gate.FETCH, "answered 404")
