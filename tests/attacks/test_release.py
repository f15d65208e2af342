"""Gates 5, 6 and 8: what is offered is honest, but not for this device, or not good enough."""

import pytest

from modelward.errors import Gate
from modelward.formats import channel as channels
from modelward.formats import release as releases
from modelward.formats.channel import Entry
from modelward.formats.release import Requirements
from modelward_repo.roles.policy import CHANNELS
from tests.attacks.scene import Scene
from tests.simulator.chain import digest
from tests.simulator.server import instead
from tests.simulator.thief import CHANNEL, PUBLISHER, SERVER
from tests.simulator.world import MODEL, TOKENIZER, World, bundle_of

TOKENIZER_RELEASE = "release-ci/model-tokenizer"
NEEDS_TOKENIZER = Requirements(components=((TOKENIZER, "1.0.0"),))


# --- 9: extraneous component


@pytest.mark.attack(9)
def test_component_nobody_vouches_for(scene: Scene) -> None:
    """A release of approved files demands a component that the thief made up."""
    chain = scene.world.chain("1.1.0")
    requires = Requirements(components=(("keylogger", "1.0.0"),))
    scene.thief(*PUBLISHER).publish("1.1.0", chain.content, chain.evidence, requires=requires)
    reason = "no role of the repository vouches for models/keylogger"
    scene.refused_at(Gate.METADATA, reason, tuf=False, checksums=False)


@pytest.mark.attack(9)
def test_component_that_the_device_does_not_want(scene: Scene) -> None:
    """A release of approved files demands an honest model that this device is not meant to run."""
    settings = scene.world.device / "modelward.toml"
    text = settings.read_text("utf-8")
    settings.write_text(text.replace("models = []", f'models = ["{MODEL}"]'), "utf-8")
    chain = scene.world.chain("1.1.0")
    requires = Requirements(components=((TOKENIZER, "1.0.0"),))
    scene.thief(*PUBLISHER).publish("1.1.0", chain.content, chain.evidence, requires=requires)
    reason = "needs the model tokenizer, which this device is not configured for"
    scene.refused_at(Gate.POLICY, reason, tuf=False, checksums=False)


# --- 10: wrong software


@pytest.mark.attack(10)
def test_release_of_another_model_signed(scene: Scene) -> None:
    """The tokenizer's honest release and evidence are published as the meter reader's."""
    thief = scene.thief(*PUBLISHER)
    path = releases.target_path(TOKENIZER, "1.0.0")
    document = thief.stage().target(f"model-{TOKENIZER}", path)
    content = thief.files_of("1.0.0", TOKENIZER)
    thief.publish("6.6.6", content, thief.evidence_of("1.0.0", TOKENIZER), document=document)
    scene.refused_at(Gate.RELEASE, "says that it is tokenizer 1.0.0")


@pytest.mark.attack(10)
def test_release_of_another_version_signed(scene: Scene) -> None:
    """The honest release of an older version is published under a new one's path."""
    thief = scene.thief(*PUBLISHER)
    path = releases.target_path(MODEL, "0.9.0")
    document = thief.stage().target(f"model-{MODEL}", path)
    content = thief.files_of("0.9.0")
    thief.publish("6.6.6", content, thief.evidence_of("0.9.0"), document=document)
    scene.refused_at(Gate.RELEASE, "says that it is meter-reader 0.9.0")


@pytest.mark.attack(10)
def test_release_of_another_model_served(scene: Scene) -> None:
    """A mirror serves the tokenizer's release where the meter reader's should be."""
    scene.world.publish("1.1.0")
    (other,) = scene.world.repository.glob(f"targets/models/{TOKENIZER}/1.0.0/*.release.json")
    scene.server.lie(
        r"/targets/models/meter-reader/1\.1\.0/.*\.release", instead(other.read_bytes())
    )
    scene.refused_at(Gate.METADATA, "does not match")


# --- 22: metrics

METRICS: dict[str, tuple[bytes, str]] = {
    "below the gate": (b'{"accuracy": 0.94}\n', "accuracy is 0.94, at least 0.95 is demanded"),
    "missing": (b'{"loss": 0.01}\n', "does not state 'accuracy'"),
    "NaN": (b'{"accuracy": NaN}\n', "NaN is not a number"),
    "infinite": (b'{"accuracy": 1e999}\n', "is out of range"),
    "a string": (b'{"accuracy": "0.99"}\n', "must be a number"),
    "given twice": (b'{"accuracy": 0.99, "accuracy": 0.5}\n', "appears twice"),
}


@pytest.mark.attack(22)
@pytest.mark.parametrize("metric", METRICS)
def test_metric(scene: Scene, metric: str) -> None:
    """Everybody signed and nobody looked at the accuracy"""
    data, reason = METRICS[metric]
    chain = scene.world.chain("1.1.0", bundle={**bundle_of("1.1.0"), "metrics.json": data})
    scene.thief(*PUBLISHER).publish("1.1.0", chain.content, chain.evidence)
    scene.refused_at(Gate.POLICY, reason, blobs=[digest(data)])


# --- 26: components


def pin_a_tokenizer(world: World) -> None:
    """Publish a meter reader that needs the tokenizer."""
    world.publish("1.1.0", requires=NEEDS_TOKENIZER)


@pytest.mark.attack(26)
def test_tokenizer_swapped_on_the_way(scene: Scene) -> None:
    """A mirror swaps the file of a tokenizer that the model pins."""
    pin_a_tokenizer(scene.world)
    honest = digest(bundle_of("1.0.0", TOKENIZER)["tokenizer.json"])
    scene.server.lie(rf"/blobs/sha256/{honest[:2]}/{honest}", instead(b'{"words": "6.6.6"}'))
    scene.refused_at(Gate.FETCH, "other content than its name says", tuf=False)


@pytest.mark.attack(26)
def test_tokenizer_exchanged_under_its_version(scene: Scene) -> None:
    """The tokenizer's release key is stolen: another one under the version that is pinned."""
    pin_a_tokenizer(scene.world)
    thief = scene.thief(*SERVER, TOKENIZER_RELEASE)
    chain = scene.world.chain("1.0.0", TOKENIZER)
    content = {**chain.content, "tokenizer.json": b'{"words": "6.6.6"}'}
    thief.publish("1.0.0", content, chain.evidence, model=TOKENIZER, offer=False)
    scene.refused_at(Gate.SUPPLY_CHAIN, "'tokenizer.json' is not the file", tuf=False)


@pytest.mark.attack(26)
def test_tokenizer_moved_from_under_the_model(scene: Scene) -> None:
    """The operator's key is stolen: the channel moves the tokenizer that the model pins."""
    pin_a_tokenizer(scene.world)
    scene.world.publish("2.0.0", TOKENIZER, offer=None)
    scene.everyone_updates()
    scene.thief(*SERVER, CHANNEL).offer({TOKENIZER: Entry("2.0.0")})
    scene.refused_at(Gate.RELEASE, "needs tokenizer 1.0.0, which would become", tuf=False)


# --- 28: for somebody else


@pytest.mark.attack(28)
def test_release_for_other_hardware(scene: Scene) -> None:
    """The operator's key is stolen: a release for other hardware is offered to all."""
    scene.world.publish("1.1.0", requires=Requirements(hardware=("riscv64-npu",)), offer=None)
    scene.thief(*SERVER, CHANNEL).offer({MODEL: Entry("1.1.0")})
    scene.refused_at(Gate.RELEASE, "it is made for riscv64-npu", tuf=False)


@pytest.mark.attack(28)
def test_document_of_another_channel(scene: Scene) -> None:
    """The operator's key is stolen: the beta channel's document stands in for stable."""
    scene.world.publish("1.1.0", offer="beta")
    thief = scene.thief(*SERVER, CHANNEL)
    staging = thief.stage()
    beta = staging.target(CHANNELS, channels.target_path("beta"))
    thief.put(staging, CHANNELS, {channels.target_path("stable"): beta})
    thief.commit(staging)
    scene.refused_at(Gate.CHANNEL, "the document of 'stable' is one of 'beta'", tuf=False)


@pytest.mark.attack(28)
def test_another_repository(scene: Scene) -> None:
    """The channel, and all else, of another repository is served."""
    place = scene.world.place / "other"
    place.mkdir()
    other = World(place, place)
    other.found()
    other.publish("6.6.6")
    scene.thief().replay(other.repository)
    scene.refused_at(Gate.METADATA, "timestamp was signed by 0/1 keys")
