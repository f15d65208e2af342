"""Sticks and servers, mixed: the real exporter and the real command lines of both sides."""

import contextlib
import io
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from modelward.errors import ExitCode
from modelward.formats.tlog_proof import MAX_TAIL
from modelward.transfer.sources import blob_path
from modelward_repo import cli as repo_tools
from modelward_repo.publish.refresh import refresh
from modelward_repo.publish.staging import Staging
from tests.simulator.chain import digest
from tests.simulator.ledger import LoggedWorld, Witnesses
from tests.simulator.thief import PUBLISHER, Thief, poison
from tests.simulator.world import Done, World, now

NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens


def export(world: World, *options: str, to: str = "stick") -> tuple[Path, Any]:
    """Run the exporter; return where the bundle is, and what it said."""
    target = world.place / to
    code, told = run_export(world, target, *options)
    assert code == 0, told
    return target, told


def export_fails(world: World) -> int:
    """Run the exporter; return its exit code, once it was seen to write nothing."""
    target = world.place / "never"
    code, _ = run_export(world, target)
    assert not target.exists()
    return code


def run_export(world: World, target: Path, *options: str) -> tuple[int, Any]:
    """Run the exporter's command line in this process."""
    arguments = ["export", "--json", "--to", str(target), "--repository", str(world.repository)]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = repo_tools.run([*arguments, *options])
    return code, json.loads(out.getvalue())


def have(world: World) -> str:
    """Write down what the device has."""
    file = world.place / "status.json"
    file.write_text(world.client_here("status").out)
    return str(file)


def bring(world: World, stick: Path, *options: str) -> Done:
    """Import on the device, whose repository is nowhere."""
    return world.client_here("import", None, str(stick), *options)


def set_up(world: World, name: str, value: object) -> None:
    """Change a setting of the device."""
    file = world.device / "modelward.toml"
    lines = file.read_text().splitlines()
    changed = f"{name} = {json.dumps(value)}"
    kept = [changed if line.startswith(f"{name} =") else line for line in lines]
    file.write_text("\n".join(kept) + "\n")


def cut_off(world: World) -> None:
    """Let the device's repository be where nobody answers."""
    set_up(world, "repository", NOWHERE)


def runs(world: World, version: str) -> None:
    """Require that a version runs, whole and verified."""
    assert world.read_model()[0] == version
    verified = world.client_here("verify")
    assert verified.json["outcome"] == "intact", verified


@pytest.mark.parametrize("name", ["stick", "stick.tar"])
def test_a_stick_brings_an_update_without_any_network(world: World, name: str) -> None:
    cut_off(world)
    world.publish("1.1.0")
    stick, told = export(world, to=name)
    assert told["models"] == {"meter-reader": "1.1.0"}
    planned = bring(world, stick, "--dry-run")
    assert planned.json["outcome"] == "available"
    assert world.read_model()[0] == "1.0.0"
    done = bring(world, stick)
    assert done.json["changes"] == [{"model": "meter-reader", "before": "1.0.0", "after": "1.1.0"}]
    runs(world, "1.1.0")
    assert world.read_model() == ("1.1.0", world.offered)
    assert bring(world, stick).json["outcome"] == "unchanged"
    assert world.client_here("status").json["last"]["outcome"] == "unchanged"


def test_a_new_device_is_set_up_from_a_stick_alone(world: World) -> None:
    stick, _ = export(world)
    shutil.rmtree(world.device)
    root = world.repository / "metadata/1.root.json"
    done = world.client("init", None, "--root", str(root), "--repository", NOWHERE)
    assert done.code == ExitCode.DONE, done
    assert bring(world, stick).json["running"] == {"meter-reader": "1.0.0"}
    runs(world, "1.0.0")


def test_a_plain_copy_of_a_repository_will_do(world: World) -> None:
    world.publish("1.1.0")
    assert bring(world, world.repository).json["running"] == {"meter-reader": "1.1.0"}


def test_stick_then_network_then_stick(world: World) -> None:
    world.publish("1.1.0")
    first, _ = export(world, to="first")
    assert bring(world, first).json["running"] == {"meter-reader": "1.1.0"}
    world.publish("1.2.0")
    with world.serve() as server:
        assert world.client_here("update", server).json["running"] == {"meter-reader": "1.2.0"}
    world.publish("1.3.0")
    second, _ = export(world, to="second")
    assert bring(world, second).json["running"] == {"meter-reader": "1.3.0"}
    # Attack row 2: what is older than what came since, from wherever, is refused.
    done = bring(world, first)
    assert done.code == ExitCode.REFUSED
    assert done.json["gate"] == "metadata"
    assert "is older than what came here since" in done.json["advice"]
    runs(world, "1.3.0")
    with world.serve() as server:
        world.publish("1.4.0")
        assert world.client_here("update", server).json["running"] == {"meter-reader": "1.4.0"}
        # The older stick is refused by the floors, too, when TUF's cache is lost (row 3).
        shutil.rmtree(world.device / "tuf")
        (world.device / "tuf").mkdir()
        refused = bring(world, second)
        assert refused.code == ExitCode.REFUSED
        assert "is older than version" in refused.json["reason"]
    runs(world, "1.4.0")


def test_only_what_a_device_lacks(world: World) -> None:
    world.publish("1.1.0")
    everything = export(world, "--dry-run")[1]
    stick, told = export(world, "--have", have(world), "--no-patches")
    assert told["weights"] < everything["weights"] == told["weights_of_all"]
    assert bring(world, stick).json["running"] == {"meter-reader": "1.1.0"}
    runs(world, "1.1.0")


def test_a_stick_that_lacks_what_this_device_needs_says_what(world: World) -> None:
    status = have(world)
    world.publish("1.1.0")
    stick, _ = export(world, "--have", status)
    shutil.rmtree(world.device)
    root = world.repository / "metadata/1.root.json"
    world.client("init", None, "--root", str(root), "--repository", NOWHERE)
    done = bring(world, stick)
    assert done.code == ExitCode.UNAVAILABLE
    assert done.json["gate"] in ("policy", "fetch")
    assert "has no blobs/sha256/" in done.json["reason"]
    assert "--have" in done.json["advice"]
    whole, _ = export(world)
    assert bring(world, whole).json["running"] == {"meter-reader": "1.1.0"}


def test_a_stick_that_was_not_copied_whole_says_so(world: World) -> None:
    published = world.publish("1.1.0")
    stick, _ = export(world)
    (model,) = (file for file in published.release.files if file.path == "model.onnx")
    (stick / blob_path(model.blob.sha256)).unlink()
    done = bring(world, stick)
    assert done.code == ExitCode.UNAVAILABLE
    assert f"lacks {blob_path(model.blob.sha256)}" in done.json["reason"]
    assert "copy the bundle again" in done.json["advice"]
    runs(world, "1.0.0")
    # The export goes on where it was cut short: what is missing is all that is written.
    again, told = export(world)
    assert (told["written"], told["kept"]) == (1, told["files"] - 1)
    assert bring(world, again).json["running"] == {"meter-reader": "1.1.0"}


def test_a_stick_with_metadata_only_partly_there(world: World) -> None:
    world.publish("1.1.0")
    stick, _ = export(world)
    (snapshot,) = stick.glob("metadata/*.snapshot.json")
    snapshot.unlink()
    done = bring(world, stick)
    assert done.code == ExitCode.UNAVAILABLE
    assert "copy the bundle again" in done.json["advice"]
    (stick / "metadata/timestamp.json").unlink()
    (stick / "bundle.json").unlink()
    assert bring(world, stick).code == ExitCode.USAGE
    runs(world, "1.0.0")


@pytest.mark.attack(4)
def test_an_expired_stick_says_what_to_do(world: World) -> None:
    world.publish("1.1.0")
    stick, _ = export(world)
    staging = Staging.of(world.storage, now() - timedelta(days=2))
    staging.finish(world.online(), snapshot=False)
    staging.commit()
    assert export_fails(world) == ExitCode.REFUSED  # what would be refused is not exported
    shutil.copy(world.repository / "metadata/timestamp.json", stick / "metadata")
    done = bring(world, stick)
    assert done.code == ExitCode.REFUSED
    assert done.json["gate"] == "metadata"
    assert "could be imported until" in done.json["advice"]
    assert "modelward-repo refresh" in done.json["advice"]
    runs(world, "1.0.0")
    refresh(world.storage, world.online(), now())
    assert bring(world, export(world)[0]).json["running"] == {"meter-reader": "1.1.0"}


@pytest.mark.attack(13)
def test_a_stick_made_with_stolen_keys_is_refused_as_a_server_is(world: World) -> None:
    chain = world.chain("1.1.0")
    Thief(world, PUBLISHER).publish("1.1.0", poison(chain.content), chain.evidence)
    done = bring(world, export(world)[0])
    assert done.code == ExitCode.REFUSED
    assert done.json["gate"] == "supply chain"
    runs(world, "1.0.0")


def test_a_stick_for_another_model_leaves_this_one_alone(world: World) -> None:
    world.publish("2.0.0", "tokenizer", offer="stable")
    world.publish("1.1.0")
    stick, told = export(world, "--model", "tokenizer")
    assert told["models"] == {"tokenizer": "2.0.0"}
    done = bring(world, stick)
    assert done.json["running"] == {"meter-reader": "1.0.0", "tokenizer": "2.0.0"}


def test_a_stick_for_another_channel_says_so(world: World) -> None:
    stick, _ = export(world)
    set_up(world, "channel", "beta")
    done = bring(world, stick)
    assert (done.code, done.json["gate"]) == (ExitCode.UNAVAILABLE, "metadata")
    assert done.json["advice"] == (
        "this bundle is for channel stable, and this device follows beta: "
        "export with `--channel beta`"
    )
    assert bring(world, export(world, "--channel", "beta", to="beta")[0]).code == ExitCode.DONE


def test_a_stick_without_the_models_that_are_asked_for_says_so(world: World) -> None:
    world.publish("2.0.0", "tokenizer", offer="stable")
    world.publish("1.1.0")
    stick, _ = export(world, "--model", "tokenizer")
    advice = (
        "this bundle has tokenizer, and not meter-reader: "
        "export with `--model meter-reader`, or all models"
    )
    assert bring(world, stick, "meter-reader").json["advice"] == advice
    set_up(world, "models", ["meter-reader"])
    assert bring(world, stick).json["advice"] == advice
    assert bring(world, export(world)[0]).json["running"] == {"meter-reader": "1.1.0"}


def test_a_copy_of_a_repository_that_is_not_whole_says_so(world: World) -> None:
    world.publish("1.1.0")
    copy = world.place / "copy"
    shutil.copytree(world.repository, copy)
    for snapshot in copy.glob("metadata/*.snapshot.json"):
        snapshot.unlink()
    assert bring(world, copy).json["advice"].startswith("the copy of the repository is not whole")


def test_a_logged_repository(tmp_path: Path) -> None:
    with Witnesses() as witnesses:
        world = LoggedWorld(tmp_path, tmp_path, witnesses=witnesses).populate()
        cut_off(world)
        status = have(world)
        near, _ = export(world, "--have", status, to="near")
        assert not any(near.glob("log/tile/**/*"))  # what the proof brings along is enough
        world.log_anew(MAX_TAIL)
        world.publish("1.1.0")
        stick, _ = export(world, to="far")
        narrow, _ = export(world, "--have", status, to="narrow")
    tiles = {path.relative_to(stick) for path in stick.glob("log/tile/**/*") if path.is_file()}
    assert tiles == {path.relative_to(narrow) for path in narrow.glob("log/tile/**/*.p/*")} != set()
    done = bring(world, narrow)
    assert done.json["running"] == {"meter-reader": "1.1.0"}, done
    runs(world, "1.1.0")


def test_a_device_is_mended_from_a_stick(world):
    """The file is damaged wherever it is here; the proof, too, which comes through the gates."""
    stick, _ = export(world)
    slot = (world.device / "current/meter-reader").resolve().parent
    weights = slot / "files/model.onnx"
    good = weights.read_bytes()
    weights.chmod(0o644)
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (world.device / "store" / digest(good)).unlink()
    for name in ("evidence.jsonl", "policy.json"):
        (slot / name).unlink()
    alone = world.client_here("verify", None, "--from", str(stick))
    assert alone.code == ExitCode.USAGE
    done = world.client_here("verify", None, "--repair", "--from", str(stick))
    assert (done.code, done.json["outcome"]) == (ExitCode.DONE, "repaired"), done
    assert done.json["fetched"] >= len(good)
    assert world.client_here("verify").json["outcome"] == "intact"
    assert world.read_model()[0] == "1.0.0"


def test_a_poisoned_stick_mends_nothing(world):
    stick, _ = export(world)
    weights = (world.device / "current/meter-reader/model.onnx").resolve()
    good = weights.read_bytes()
    weights.chmod(0o644)
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (world.device / "store" / digest(good)).unlink()
    (stick / blob_path(digest(good))).write_bytes(b"x" * len(good))
    done = world.client_here("verify", None, "--repair", "--from", str(stick))
    assert done.code == ExitCode.REFUSED
    assert all(problem["why"] for problem in done.json["problems"])
