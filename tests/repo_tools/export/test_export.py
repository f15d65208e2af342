"""What the exporter chooses and writes; what devices make of it is in tests/test_offline.py."""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from modelward.config.transfer import TransferSettings
from modelward.errors import ExitCode, FormatError, UsageError
from modelward.formats.bundle import FILE, Bundle
from modelward.transfer.patch import METHODS
from modelward_repo.export import write
from modelward_repo.export.choose import Chosen, Wanted, choose
from modelward_repo.export.have import Having
from modelward_repo.export.write import write_archive, write_folder
from modelward_repo.storage.local import StorageError
from tests.simulator.world import TOKENIZER, World, now

STATUS: dict[str, Any] = {
    "channel": "stable",
    "models": {"meter-reader": {"version": "1.0.0", "previous": None, "anything": 1.5}},
    "log": {"size": 7},
}


def chosen(world: World, **wanted: Any) -> Chosen:
    return choose(world.storage, Wanted("stable", **wanted), now())


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- what a device has


def test_a_status_tells_what_a_device_has() -> None:
    assert Having.parse(json.dumps(STATUS).encode()) == Having(
        "stable", (("meter-reader", "1.0.0"),), 7
    )
    entry = {"version": "1.1.0", "previous": "1.0.0"}
    both = STATUS | {"models": {"meter-reader": entry}, "log": None}
    assert Having.parse(json.dumps(both).encode()) == Having(
        "stable", (("meter-reader", "1.1.0"), ("meter-reader", "1.0.0")), None
    )


@pytest.mark.parametrize(
    "change",
    [
        {"models": None},
        {"channel": 7},
        {"models": {"../x": {"version": "1"}}},
        {"models": {"x": {"version": "../1"}}},
        {"log": {"size": "7"}},
    ],
)
def test_a_status_that_makes_no_sense(change: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    file.write_text(json.dumps(STATUS | change))
    with pytest.raises(FormatError):
        Having.parse(file.read_bytes())
    with pytest.raises(UsageError, match="does not say what a device has"):
        Having.read(file)


def test_no_status_at_all(tmp_path: Path) -> None:
    for content in (None, b"", b"not json"):
        file = tmp_path / "status.json"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(UsageError, match="modelward status --json"):
            Having.read(file)


# --- what is chosen


def test_the_newest_of_everything_and_no_more(world: World) -> None:
    world.publish("1.1.0")
    bundle = chosen(world).bundle
    paths = [file.path for file in bundle.files]
    assert bundle.models == (("meter-reader", "1.1.0"),)
    assert not any("/1.0.0/" in path or "tokenizer" in path for path in paths)
    versions = [path for path in paths if path.startswith("metadata/")]
    assert len(versions) == 5  # timestamp, snapshot, targets, channels, model-meter-reader
    for file in bundle.files:
        data = (world.repository / file.path).read_bytes()
        assert len(data) == file.blob.length
    assert Bundle.parse(bundle.to_bytes()) == bundle


def test_a_cohort_needs_what_any_of_it_lacks(world: World) -> None:
    world.publish("1.1.0")
    new, old = (
        Having("stable", (("meter-reader", version),), None) for version in ("1.1.0", "1.0.0")
    )
    nothing = Having("stable", (), None)
    weights = [chosen(world, have=have).weights for have in ((new,), (old,), (new, old))]
    assert weights[0] == 0 < weights[1] == weights[2]
    assert chosen(world, have=(old, nothing)).weights == chosen(world).weights
    gone = Having("stable", (("meter-reader", "0.0.1"), ("stranger", "1")), None)
    assert chosen(world, have=(gone,)).weights == chosen(world).weights


def test_channels_and_models_that_are_not_there(world: World) -> None:
    with pytest.raises(UsageError, match="there is no channel 'gamma'"):
        choose(world.storage, Wanted("gamma"), now())
    with pytest.raises(UsageError, match="offers no model 'toaster'"):
        chosen(world, models=("toaster",))
    empty = choose(world.storage, Wanted("beta"), now())
    assert empty.bundle.models == ()


def publish_alike(world: World, version: str) -> bytes:
    """Publish a version with a file that differs little from that of every other; return that."""
    words = random.Random(1).randbytes(32 << 10).hex()
    table = json.dumps({"version": version, "words": words}).encode()
    world.publish(version, TOKENIZER, bundle={"tokenizer.json": table}, cheaply=True)
    return table


def with_patches(world: World, *have: Having) -> Chosen:
    able = {"methods": METHODS, "memory": TransferSettings.memory}
    return chosen(world, models=(TOKENIZER,), have=have, **able)


def test_patches_where_they_are_less_for_all_together(world: World) -> None:
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        publish_alike(world, version)
    first, second = (
        Having("stable", ((TOKENIZER, version),), None) for version in ("1.1.0", "1.2.0")
    )
    stranger = Having("stable", (), None)
    whole = chosen(world, models=(TOKENIZER,), have=(first,))
    assert not whole.patched
    for have in ((first,), (second,), (first, second)):
        made = with_patches(world, *have)
        assert len(made.patched) == 1
        assert made.weights < whole.weights / 10
        small = [f for f in made.bundle.files if f.path.startswith("blobs/")]
        assert all(file.blob.length < 10_000 for file in small)
    # A device that has none of it takes the compressed file: that one serves no patch's purpose.
    mixed = with_patches(world, first, second, stranger)
    assert mixed.weights > with_patches(world, stranger).weights - 1
    assert mixed.weights < whole.weights * 1.1


def test_a_patch_is_carried_to_a_device_and_applied(world: World, tmp_path: Path) -> None:
    publish_alike(world, "1.1.0")
    whole, stick = tmp_path / "whole", tmp_path / "stick"
    write_folder(world.storage, chosen(world).bundle, whole)
    assert world.client_here("import", None, str(whole)).json["outcome"] == "updated"
    table = publish_alike(world, "1.2.0")
    file = tmp_path / "status.json"
    file.write_text(world.client_here("status").out)
    made = with_patches(world, Having.read(file))
    assert made.patched
    write_folder(world.storage, made.bundle, stick)
    done = world.client_here("import", None, str(stick))
    assert done.json["running"][TOKENIZER] == "1.2.0", done
    assert done.json["how"]["patch"] == 1
    assert world.read_model(TOKENIZER)[1]["tokenizer.json"] == table


# --- what is written


def test_a_stick_is_brought_up_to_date(world: World, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / "holiday.jpg").write_bytes(b"somebody's")
    (stick / "metadata").mkdir()
    (stick / "metadata/notes.txt").write_bytes(b"somebody's, too")
    first = chosen(world).bundle
    write_folder(world.storage, first, stick)
    world.publish("1.1.0")
    second = chosen(world).bundle
    done = write_folder(world.storage, second, stick)
    kept = {file.path for file in first.files} & {file.path for file in second.files}
    assert done.removed == len({file.path for file in first.files} - kept)
    assert done.kept == len(kept) - 1  # the timestamp has changed
    own = {"holiday.jpg", "metadata/notes.txt"}
    assert files_in(stick) == {file.path for file in second.files} | own | {FILE}
    assert Bundle.parse((stick / FILE).read_bytes()) == second


def test_what_is_damaged_on_a_stick_is_written_anew(world: World, tmp_path: Path) -> None:
    stick, bundle = tmp_path / "stick", chosen(world).bundle
    write_folder(world.storage, bundle, stick)
    rotten, cut, linked = (stick / file.path for file in bundle.files[:3])
    rotten.write_bytes(b"!" + rotten.read_bytes()[1:])
    os.truncate(cut, 1)
    other = linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(other)
    done = write_folder(world.storage, bundle, stick)
    assert done.copied == 3
    assert not linked.is_symlink()
    for file in bundle.files:
        assert (stick / file.path).read_bytes() == (world.repository / file.path).read_bytes()


def test_a_repository_that_moves_on_meanwhile(world: World, tmp_path: Path) -> None:
    bundle = chosen(world).bundle
    world.publish("1.1.0")
    stick = tmp_path / "stick"
    with pytest.raises(Exception, match="changed in the repository while"):
        write_folder(world.storage, bundle, stick)
    assert not (stick / FILE).exists()
    with pytest.raises(Exception, match="changed in the repository while"):
        write_archive(world.storage, bundle, tmp_path / "stick.tar")
    assert not list(tmp_path.glob("*.tar*"))
    assert not list(tmp_path.glob(".*tar*"))


def test_a_stick_that_is_too_small(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        f_bavail = 10
        f_frsize = 1

    monkeypatch.setattr(write.os, "statvfs", lambda _: Full)
    with pytest.raises(UsageError, match="but only 10 are free"):
        write_folder(world.storage, chosen(world).bundle, tmp_path / "stick")


def test_the_same_archive_twice(world: World, tmp_path: Path) -> None:
    bundle = chosen(world).bundle
    for name in ("a.tar", "b.tar"):
        write_archive(world.storage, bundle, tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    unpacked = tmp_path / "unpacked"
    shutil.unpack_archive(tmp_path / "a.tar", unpacked, filter="data")
    assert files_in(unpacked) == {file.path for file in bundle.files} | {FILE}


def test_a_place_where_something_else_stands(world: World, tmp_path: Path) -> None:
    made = chosen(world).bundle
    file, folder = tmp_path / "photo.jpg", tmp_path / "bundle"
    file.write_bytes(b"not a bundle")
    for file_of_it in made.files:
        (folder / file_of_it.path).mkdir(parents=True)
    for place in (file, folder):
        with pytest.raises(StorageError, match="cannot be written") as refusal:
            write_folder(world.storage, made, place)
        assert "FILE.tar" in refusal.value.advice
    assert file.read_bytes() == b"not a bundle"


def test_a_place_that_cannot_be_written(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match="cannot be written") as error:
        write_archive(world.storage, chosen(world).bundle, tmp_path / "file/x.tar")
    assert error.value.exit_code == ExitCode.ERROR
