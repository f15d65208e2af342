"""An update fetches what is not here, by the cheapest way; seen in what the server sent.

Real weights, small: a megabyte of floats, fine-tuned or with another head.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from werkzeug.wrappers import Response

from modelward.formats.release import Blob, Release
from modelward_repo.publish.blobs import blob_path
from modelward_repo.publish.prepare.choice import Margins
from tests.simulator import server as answers
from tests.simulator.server import Server
from tests.simulator.weights import fine_tuned, onnx_of, retrained_head, trained
from tests.simulator.world import MODEL, TOKENIZER, Done, World, bundle_of

FIRST = trained()
NO_PATCHES = Margins(patch=0.95)


def bundle(version: str, weights: bytes) -> dict[str, bytes]:
    return {**bundle_of(version), "model.onnx": weights}


@pytest.fixture(scope="module")
def quiet_world(quiet_world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world whose device runs 1.1.0, a megabyte of weights."""
    world = quiet_world.copy(tmp_path_factory.mktemp("cheap"))
    world.publish("1.1.0", bundle=bundle("1.1.0", onnx_of(FIRST)), cheaply=True)
    with world.serve() as server:
        done = world.client_here("update", server)
        assert done.json["how"] == {"compressed": 1, "whole": 1}, done
    return world


def publish(world: World, version: str, weights: bytes) -> Release:
    return world.publish(version, bundle=bundle(version, weights), cheaply=True).release


def update(world: World, server: Server) -> Done:
    """Update; what is installed must be what was offered, and what was sent what is said."""
    server.sent.clear()
    done = world.client_here("update", server)
    assert done.code == 0, done
    sent = sum(count for path, count in server.sent.items() if path.startswith("/blobs/"))
    small = sum(len(data) for data in world.offered.values() if len(data) < 3000)
    assert done.json["fetched"] <= sent <= done.json["fetched"] + small  # gate 8 reads some
    assert world.read_model()[1] == world.offered
    assert world.client_here("verify").json["outcome"] == "intact"
    return done


def weights_of(release: Release) -> Blob:
    found = release.file("model.onnx")
    assert found
    return found.blob


def patch_blob(release: Release) -> Blob:
    """Return the patch that is not only a compressed copy."""
    return next(patch.blob for patch in release.patches if patch.base)


def test_a_fine_tune_comes_as_a_patch(world: World, server: Server):
    release = publish(world, "1.2.0", onnx_of(fine_tuned(FIRST)))
    done = update(world, server)
    assert done.json["how"] == {"patch": 1, "whole": 1}
    assert done.json["fetched"] < 0.6 * weights_of(release).length
    assert done.json["saved"] + done.json["fetched"] == sum(
        file.blob.length for file in release.files if file.path in ("model.onnx", "ticket.json")
    )
    assert not server.asked(f"/{blob_path(weights_of(release))}")
    again = world.client_here("update", server).json
    assert (again["outcome"], again["fetched"]) == ("unchanged", 0)


def test_what_an_update_would_fetch_is_known_before(world: World, server: Server):
    publish(world, "1.2.0", onnx_of(fine_tuned(FIRST)))
    before = world.read_model()
    check = world.client_here("check", server)
    assert (check.json["outcome"], check.json["fetched"]) == ("available", 0)
    assert world.read_model() == before
    told = world.client_here("check", server, as_json=False).out
    assert "gate 9 (plan): 2 files to fetch (" in told
    assert "1 by patch, 1 whole)" in told
    assert update(world, server).json["fetched"] == check.json["to_fetch"]


def test_another_head_comes_as_chunks(world: World, server: Server):
    world.margins = NO_PATCHES
    release = publish(world, "1.2.0", onnx_of(retrained_head(FIRST)))
    done = update(world, server)
    assert done.json["how"] == {"chunks": 1, "whole": 1}
    assert done.json["fetched"] < 0.35 * weights_of(release).length
    sent = server.sent[f"/{blob_path(weights_of(release))}"]
    assert 0 < sent < 0.32 * weights_of(release).length


def test_a_chunk_of_another_model_is_not_fetched(world: World, server: Server):
    """A tokenizer comes with an embedding of which the meter reader has all but the last layer."""
    embedding = onnx_of(retrained_head(FIRST))
    found = publish_tokenizer(world, embedding).file("embedding.onnx")
    assert found
    done = world.client_here("update", server)
    assert done.json["how"] == {"chunks": 1, "whole": 2}, done
    assert world.read_model(TOKENIZER)[1]["embedding.onnx"] == embedding
    assert 0 < server.sent[f"/{blob_path(found.blob)}"] < 0.32 * len(embedding)


def test_a_file_of_another_model_is_not_fetched(world: World, server: Server):
    publish_tokenizer(world, onnx_of(FIRST))
    done = world.client_here("update", server)
    assert done.json["how"] == {"whole": 2}  # the ticket, and the words
    assert done.json["fetched"] < 1000
    assert world.read_model(TOKENIZER)[1]["embedding.onnx"] == onnx_of(FIRST)


def publish_tokenizer(world: World, embedding: bytes) -> Release:
    content = {"tokenizer.json": b'{"words": "new"}', "embedding.onnx": embedding}
    return world.publish("2.0.0", TOKENIZER, bundle=content, cheaply=True).release


def test_indexes_are_kept_for_as_long_as_their_files(world: World, server: Server):
    """So that the next update need not fetch them."""
    world.margins = NO_PATCHES
    old = publish(world, "1.2.0", onnx_of(retrained_head(FIRST)))
    update(world, server)
    new = publish(world, "1.3.0", onnx_of(retrained_head(FIRST, 9)))
    update(world, server)
    store = world.device / "store"
    names = {path.name for path in store.iterdir()}
    for release in (old, new):
        index = next(file.chunks for file in release.files if file.path == "model.onnx")
        assert index
        assert index.sha256 in names
        assert server.requests.count(f"/{blob_path(index)}") == 1
    publish(world, "1.4.0", onnx_of(retrained_head(FIRST, 10)))
    update(world, server)
    index = next(file.chunks for file in old.files if file.path == "model.onnx")
    assert index
    assert not (store / index.sha256).exists()


@pytest.mark.parametrize("memory", ['"64 MiB"', "1000"])
def test_a_small_device_takes_ways_that_fit(world: World, server: Server, memory: str):
    settings = world.device / "modelward.toml"
    settings.write_text(settings.read_text() + f"\n[transfer]\nmemory = {memory}\n")
    publish(world, "1.2.0", onnx_of(fine_tuned(FIRST)))
    how = {"patch": 1, "whole": 1} if "MiB" in memory else {"whole": 2}
    assert update(world, server).json["how"] == how


Spoil = Callable[[Server, Release], None]


def damaged(honest: bytes) -> Response:
    return answers.instead(b"!" + honest[1:])(honest)


def spoil_patch(server: Server, release: Release) -> None:
    server.lie(
        f"/{blob_path(patch_blob(release))}",
        lambda honest: answers.instead(b"!" + honest[1:])(honest),
    )


def lose_patch(server: Server, release: Release) -> None:
    server.lie(f"/{blob_path(patch_blob(release))}", answers.status(404))


def spoil_indexes(server: Server, release: Release) -> None:
    index = next(file.chunks for file in release.files if file.path == "model.onnx")
    assert index
    server.lie(f"/{blob_path(index)}", damaged)


@pytest.mark.parametrize(
    ("spoil", "margins", "how"),
    [
        pytest.param(lose_patch, Margins(), "compressed", id="no patch"),
        pytest.param(spoil_patch, Margins(), "patch", id="a wrong patch"),
        pytest.param(spoil_indexes, NO_PATCHES, "chunks", id="a wrong index"),
    ],
)
def test_whatever_one_source_spoils(world: World, spoil: Spoil, margins: Margins, how: str):
    """A second source has it, or another way leads there."""
    world.margins = margins
    tensors = fine_tuned(FIRST) if how != "chunks" else retrained_head(FIRST)
    release = publish(world, "1.2.0", onnx_of(tensors))
    with world.serve() as bad, world.serve() as good:
        spoil(bad, release)
        if how == "compressed":
            spoil(good, release)
        settings = world.device / "modelward.toml"
        settings.write_text(settings.read_text() + f'\n[transfer]\nmirrors = ["{good.url}"]\n')
        done = world.client_here("update", bad)
        assert done.code == 0, done
        assert done.json["how"] == {how: 1, "whole": 1}
        assert world.read_model()[1] == world.offered


def test_a_mirror_with_rotten_bytes_in_a_long_copy_costs_a_piece_of_it(
    world: World, tmp_path: Path
):
    """The mirror is found by the copy's own index: nothing begins anew, no other way is taken."""
    world.margins = NO_PATCHES
    release = publish(world, "1.2.0", onnx_of(fine_tuned(trained(1, 1024))))
    [copy] = (patch for patch in release.patches if patch.base is None)
    assert copy.blob.length > 3 << 20
    shutil.copytree(world.repository, tmp_path / "mirror")
    place = tmp_path / "mirror" / blob_path(copy.blob)
    data = bytearray(place.read_bytes())
    for at in range(1000, len(data), 1 << 20):  # whichever piece it delivers
        data[at] ^= 1
    place.unlink()
    place.write_bytes(data)
    with Server(tmp_path / "mirror") as bad, world.serve() as good:
        settings = world.device / "modelward.toml"
        settings.write_text(settings.read_text() + f'\n[transfer]\nmirrors = ["{bad.url}"]\n')
        done = world.client_here("update", good)
        assert done.code == 0, done
        assert done.json["how"] == {"compressed": 1, "whole": 1}
        assert world.read_model()[1] == world.offered
        path = f"/{blob_path(copy.blob)}"
        assert bad.asked(path)
        assert copy.blob.length < done.json["fetched"] < copy.blob.length + (2 << 20)
        assert not good.asked(f"/{blob_path(weights_of(release))}")
    assert copy.chunks
    names = {file.name for file in (world.device / "store").iterdir()}
    assert not names & {copy.blob.sha256, copy.chunks.sha256}


def test_a_model_that_comes_back_is_patched_too(world: World, server: Server):
    """Two releases on: the patch starts from what is kept to fall back to."""
    publish(world, "1.2.0", onnx_of(retrained_head(FIRST)))
    update(world, server)
    publish(world, "1.3.0", onnx_of(fine_tuned(FIRST)))
    assert update(world, server).json["how"] == {"patch": 1, "whole": 1}


def test_a_release_without_any_of_it_is_fetched_whole(world: World, server: Server):
    world.publish("1.2.0", bundle=bundle("1.2.0", onnx_of(fine_tuned(FIRST))))
    assert update(world, server).json["how"] == {"whole": 2}


def test_a_device_that_knows_no_patches_takes_the_release(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
):
    """As one of before did: it never looked at them."""
    publish(world, "1.2.0", onnx_of(fine_tuned(FIRST)))
    monkeypatch.setattr("modelward.bring.METHODS", frozenset())
    monkeypatch.setattr("modelward.transfer.plan.worth_a_look", lambda *_: ())
    assert update(world, server).json["how"] == {"whole": 2}


def test_the_same_world_again(quiet_world: World):
    """What these tests share was not changed by any of them."""
    assert replace(quiet_world).read_model(MODEL)[0] == "1.1.0"
