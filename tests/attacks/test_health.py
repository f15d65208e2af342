"""Files that are not what they say; models that do not work; a fleet that is told to stop."""

import pickle
import platform
import struct
from datetime import UTC, datetime, timedelta

import pytest

from modelward.errors import Gate
from modelward.formats import channel as channels
from modelward.formats.channel import Channel, Entry, Rollout, Stage
from modelward_repo.publish.staging import Staging
from modelward_repo.roles.policy import CHANNELS
from tests.attacks import hostile_models
from tests.attacks.scene import Scene
from tests.simulator.chain import digest
from tests.simulator.model_files import gguf_file, message, onnx_file, safetensors_file
from tests.simulator.thief import CHANNEL, PUBLISHER, SERVER
from tests.simulator.world import MODEL, TOKENIZER, bundle_of

TOKENIZER_RELEASE = "release-ci/model-tokenizer"


class Bomb:
    """Unpickled, it runs a program."""

    def __reduce__(self):
        return print, ("boom",)


def offer(scene: Scene, weights: bytes) -> list[str]:
    """Publish and offer a meter reader with these weights, which everybody attests.

    Returns the digests of its files: what is in them can be refused only once they are here.
    """
    chain = scene.world.chain("1.1.0", bundle={**bundle_of("1.1.0"), "model.onnx": weights})
    scene.thief(*PUBLISHER).publish("1.1.0", chain.content, chain.evidence)
    return [digest(data) for data in chain.content.values()]


# --- 24: files that are not what their suffix says, headers that lie

EXTERNAL = message((1, 1), (2, 1), (13, message((1, b"location"), (2, b"/etc/shadow"))))
ONNX = {
    "a pickle": (pickle.dumps(Bomb(), 4), "is a pickle, which runs code when it is loaded"),
    "a PyTorch file": (b"PK\x03\x04archive/data.pkl", "is a zip archive"),
    "a program": (b"\x7fELF" + bytes(60), "is a program (ELF)"),
    "a header of 34 GB": (b"\x3a\xff\xff\xff\xff\x7f", "claims 34359738367 bytes"),
    "weights cut off": (onnx_file(b"weights")[:-9], "claims"),
    "weights in another file": (
        message((1, 8), (7, message((5, EXTERNAL))), (8, message((2, 17)))),
        "says that its weights are in another file",
    ),
}


@pytest.mark.attack(24)
@pytest.mark.parametrize("what", ONNX)
def test_disguised_onnx(scene: Scene, what: str) -> None:
    """Everybody signed a model.onnx that is none"""
    data, reason = ONNX[what]
    scene.refused_at(Gate.POLICY, reason, blobs=offer(scene, data))


def _lying_safetensors() -> bytes:
    honest = safetensors_file(b"weights")
    return honest.replace(b"[0, 7]", b"[0, 9]")


HEADERS = {
    "safetensors: offsets beyond the end": ("model.safetensors", _lying_safetensors(), "data_off"),
    "safetensors: a header of 2 EB": (
        "model.safetensors",
        struct.pack("<Q", 1 << 61) + b"{}",
        "at most 8388608 is allowed",
    ),
    "GGUF: countless tensors": (
        "model.gguf",
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
        "at most 131072 are allowed",
    ),
    "GGUF: a tensor beyond the end": ("model.gguf", gguf_file(b"weights")[:-33], "claims bytes"),
    "JSON: a pickle": ("words.json", pickle.dumps(Bomb(), 2), "is a pickle"),
    "text: a pickle of protocol 0": ("words.txt", pickle.dumps(Bomb(), 0), "is a pickle"),
}


@pytest.mark.attack(24)
@pytest.mark.parametrize("what", HEADERS)
def test_header_that_lies(scene: Scene, what: str) -> None:
    """Everybody signed a file that lies"""
    path, data, reason = HEADERS[what]
    chain = scene.world.chain("6.0.0", TOKENIZER, bundle={path: data})
    thief = scene.thief(*SERVER, TOKENIZER_RELEASE, CHANNEL)
    thief.publish("6.0.0", chain.content, chain.evidence, model=TOKENIZER)
    blobs = [digest(content) for content in chain.content.values()]
    scene.refused_at(Gate.POLICY, reason, tuf=False, checksums=False, blobs=blobs)


# --- 30: models that do not work

CRASH = (
    "killed by SIGFPE"
    if platform.machine() == "x86_64"
    else "differs from the golden one"  # other processors divide on
)
UNFIT = {
    "answers otherwise": (hostile_models.adder, "at [0] it is 1.0, not 0.5"),
    "crashes its runtime": (hostile_models.crasher, CRASH),
    "wants 64 GiB of memory": (hostile_models.glutton, "golden case 1 of 1 failed"),
    "needs a foreign operator": (hostile_models.unknown_operator, "loading model.onnx failed"),
}


@pytest.mark.attack(30)
@pytest.mark.parametrize("what", UNFIT)
def test_unfit(scene: Scene, what: str) -> None:
    """Everybody signed a model that does not work"""
    make, reason = UNFIT[what]
    offer(scene, make())
    scene.rolled_back(reason)


@pytest.mark.attack(30)
def test_hangs(scene: Scene) -> None:
    """Everybody signed a model that never answers."""
    with (scene.world.device / "modelward.toml").open("a") as settings:
        settings.write('\n[health]\ntimeout = "10s"\n')
    offer(scene, hostile_models.hang())
    scene.rolled_back("running golden case 1 of 1 took longer than 10 seconds")


# --- 31: a fleet that is told to stop


NOW = datetime.now(UTC).replace(microsecond=0)
EVERYBODY = (Stage(1_000_000),)


@pytest.mark.attack(31)
def test_everything_halted_and_revoked(scene: Scene) -> None:
    """The operator's key is stolen: all that runs is revoked, what would replace it is halted."""
    scene.world.publish("1.1.0", offer=None)
    halted = Rollout(b"x" * 16, NOW - timedelta(days=1), urgent=True, halted=True, stages=EVERYBODY)
    entry = Entry("1.1.0", "0.9.0", revoked=("0.9.0", "1.0.0"), rollout=halted)
    scene.thief(*SERVER, CHANNEL).offer({MODEL: entry})
    scene.withheld()


@pytest.mark.attack(31)
def test_everything_taken_away(scene: Scene) -> None:
    """Everything that publishes is stolen: all releases and the model's place on the channel go."""
    thief = scene.thief(*PUBLISHER)
    staging = thief.stage()
    empty = Channel("stable", {})
    thief.put(staging, CHANNELS, {channels.target_path("stable"): empty.to_bytes()})
    thief.commit(staging)
    for blob in scene.world.repository.glob("blobs/sha256/*/*"):
        blob.unlink()
    scene.withheld()


@pytest.mark.attack(31)
def test_everything_expired(scene: Scene) -> None:
    """Nobody signs any more, and everything expires: the model runs on."""
    thief = scene.thief(*SERVER)
    year_ago = Staging.of(scene.world.storage, thief.stage().now - timedelta(days=366))
    year_ago.sign_again(CHANNELS, scene.world.signers(CHANNELS))
    thief.commit(year_ago)
    scene.refused_at(Gate.METADATA, "is expired", checksums=False)
