"""What a device does from end to end: its own command line, over HTTP, against a real repository.

What is refused, and why, is in tests/attacks/; what each module does alone, in its own tests.
"""

import errno
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from modelward import fastpath, update
from modelward.errors import ExitCode, Gate
from modelward.formats.release import Requirements
from modelward.install import fsops
from modelward.install.store import Store
from modelward_repo.publish.refresh import refresh
from modelward_repo.publish.staging import Staging
from tests.simulator import server as answers
from tests.simulator.chain import digest
from tests.simulator.server import Server
from tests.simulator.world import MODEL, TOKENIZER, Done, World, bundle_of, now

BLOBS = "/blobs/"
NEEDS_TOKENIZER = Requirements(components=((TOKENIZER, "1.0.0"),))


@pytest.fixture
def new_device(world: World, server: Server) -> Callable[..., None]:
    """Replaces the device by one on which nothing was ever installed."""

    def make(*options: str) -> None:
        shutil.rmtree(world.device)
        world.init(server, *options)

    return make


def generation(world: World) -> int:
    return int((world.device / "current").readlink().name)


def refused_at(done: Done, gate: Gate) -> str:
    """Require a refusal and return its reason."""
    assert done.code == ExitCode.REFUSED, done
    assert done.json["gate"] == gate.label, done
    assert done.json["advice"]
    return done.json["reason"]


# --- installing and updating


def test_first_install(world, client, new_device):
    new_device()
    done = client("update")
    assert done.code == ExitCode.DONE
    assert done.json["changes"] == [{"model": MODEL, "before": None, "after": "1.0.0"}]
    assert done.json["fetched"] == sum(map(len, world.offered.values()))
    assert world.read_model() == ("1.0.0", world.offered)
    folder = world.device / "current" / MODEL
    assert {path: (folder / path).read_bytes() for path in world.offered} == world.offered


def test_update_in_a_process_of_its_own(world, server):
    world.publish("1.1.0")
    done = world.client("update", server)
    assert (done.code, done.err) == (ExitCode.DONE, "")
    assert done.json["changes"] == [{"model": MODEL, "before": "1.0.0", "after": "1.1.0"}]
    assert world.read_model() == ("1.1.0", world.offered)


def test_every_gate_is_named_in_order(world, client):
    world.publish("1.1.0")
    lines = client("update", as_json=False).out.splitlines()
    gates = [int(line.split()[1]) for line in lines if line.startswith("gate ")]
    # 8 once more, when the files are here.
    assert gates == [3, 5, 6, 7, 8, 9, 10, 8, 11, 12, 13]
    assert lines[-1] == "meter-reader is now 1.1.0 (was 1.0.0)"


def test_nothing_to_do(world, client):
    before = generation(world)
    for _ in range(2):  # the second time, the fast path finds out
        done = client("update")
        assert (done.code, done.json["outcome"]) == (ExitCode.DONE, "unchanged")
        assert done.json["running"] == {MODEL: "1.0.0"}
    assert "nothing to do; running: meter-reader 1.0.0" in client("update", as_json=False).out
    assert generation(world) == before


def test_check_changes_nothing(world, client, server):
    world.publish("1.1.0")
    kept = ("store", "slots", "generations", "floors.a", "floors.b", "last.json")

    def state() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for name in kept
            for path in [world.device / name, *(world.device / name).rglob("*")]
            if path.is_file()
        }

    before, current = state(), (world.device / "current").readlink()
    done = client("check")
    assert (done.code, done.json["outcome"]) == (ExitCode.DONE, "available")
    assert done.json["changes"] == [{"model": MODEL, "before": "1.0.0", "after": "1.1.0"}]
    assert "meter-reader would become 1.1.0" in client("check", as_json=False).out
    assert (state(), (world.device / "current").readlink()) == (before, current)
    assert not server.asked(BLOBS)
    assert client("update").json["outcome"] == "updated"


def test_supply_chain_is_verified_before_any_blob_is_requested(world, client, server, new_device):
    new_device()
    world.publish("1.1.0")
    assert client("update").code == ExitCode.DONE
    asked = server.requests
    first_blob = asked.index(server.asked(BLOBS)[0])
    small = {digest(world.offered[name]) for name in ("metrics.json", "golden.json")}
    proofs = [
        index
        for index, path in enumerate(asked)
        if path.startswith("/targets/") and path.endswith(("evidence.jsonl", "meter-reader.json"))
    ]
    assert len(proofs) == 3  # evidence, policy, layout
    assert max(proofs) < first_blob
    # The two small files that gate 8 reads come before all others.
    assert {path.rpartition("/")[2] for path in asked[first_blob : first_blob + 2]} == small
    assert all(path.startswith(BLOBS) for path in asked[first_blob:])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_a_model_that_cannot_be_tried_is_not_installed_and_not_given_up(world, client):
    """That says nothing of the model: once it can be tried, it is taken."""
    world.publish("1.1.0")
    settings = world.device / "modelward.toml"
    before = settings.read_text()
    settings.write_text(before + '\n[health]\nuser = "nobody-at-all"\n')
    done = client("update")
    assert done.code == ExitCode.UNAVAILABLE
    assert (done.json["gate"], world.read_model()[0]) == ("health", "1.0.0")
    settings.write_text(before)
    assert client("update").json["running"]["meter-reader"] == "1.1.0"


def test_blobs_that_are_here_are_not_fetched_again(world, client, server):
    world.publish("1.1.0")
    assert client("update").code == ExitCode.DONE
    new = {digest(world.offered[path]) for path in ("model.onnx", "ticket.json")}
    assert {path.rpartition("/")[2] for path in server.asked(BLOBS)} == new
    server.requests.clear()
    assert client("update").code == ExitCode.DONE
    assert not server.asked(BLOBS)


def test_previous_version_is_kept(world, client):
    for version in ("1.1.0", "1.2.0"):
        world.publish(version)
        assert client("update").code == ExitCode.DONE
    status = client("status").json
    assert status["models"][MODEL]["version"] == "1.2.0"
    assert status["models"][MODEL]["previous"] == "1.1.0"
    checked = [(item["version"], item["intact"]) for item in client("verify").json["checked"]]
    assert checked == [("1.2.0", True), ("1.1.0", True)]


def test_going_back_is_refused(world, client):
    """A channel may name an older release; a device that ran a newer one does not go back."""
    world.offer("0.9.0")
    assert "counter" in refused_at(client("update"), Gate.RELEASE)
    assert world.read_model()[0] == "1.0.0"


def test_a_note_that_cannot_be_written_is_no_failure(world, client):
    """What it is for is done, and what frees room comes after it."""
    world.publish("1.1.0")
    (world.device / fastpath.FILE).unlink()
    (world.device / fastpath.FILE).mkdir()
    (world.device / "store" / ("0" * 64)).write_bytes(b"garbage")
    assert client("update").json["running"] == {"meter-reader": "1.1.0"}
    assert not (world.device / "store" / ("0" * 64)).exists()


def test_reader_that_goes_away_does_not_stop_the_update(world, server):
    world.publish("1.1.0")
    arguments = [sys.executable, "-m", "modelward", "update", "--state", str(world.device)]
    arguments += ["--repository", server.url]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(60) == ExitCode.DONE, process.stderr.read()
    process.stderr.close()
    assert world.read_model()[0] == "1.1.0"


# --- several models


def test_reader_of_events_that_goes_away_does_not_hide_the_result(world, client):
    world.publish("1.1.0")
    pipe = world.place / "events"
    os.mkfifo(pipe)

    def read_one() -> None:
        with pipe.open() as events:
            events.readline()

    reader = threading.Thread(target=read_one)
    reader.start()
    done = client("update", "--events", str(pipe))
    reader.join()
    assert (done.code, done.json["outcome"]) == (ExitCode.DONE, "updated")


def test_model_and_pinned_component_switch_together(world, client):
    before = generation(world)
    world.publish("1.1.0", requires=NEEDS_TOKENIZER)
    done = client("update")
    assert done.code == ExitCode.DONE
    assert done.json["running"] == {MODEL: "1.1.0", TOKENIZER: "1.0.0"}
    assert generation(world) == before + 1  # one switch
    assert world.read_model(TOKENIZER)[1]["tokenizer.json"] == b'{"words": "1.0.0"}'

    world.publish("2.0.0", TOKENIZER, offer=None)
    requires = Requirements(components=((TOKENIZER, "2.0.0"),))
    world.publish("1.2.0", requires=requires)
    assert client("update").json["running"] == {MODEL: "1.2.0", TOKENIZER: "2.0.0"}
    assert generation(world) == before + 2


def test_component_that_cannot_be_had_leaves_the_model_alone(world, client, server):
    world.publish("1.1.0", requires=NEEDS_TOKENIZER)
    words = digest(bundle_of("1.0.0", TOKENIZER)["tokenizer.json"])
    server.lie(f"{BLOBS}sha256/{words[:2]}/{words}", answers.status(404))
    assert client("update").code == ExitCode.UNAVAILABLE
    assert client("status").json["models"].keys() == {MODEL}
    assert world.read_model()[0] == "1.0.0"
    server.be_honest()
    assert client("update").json["running"] == {MODEL: "1.1.0", TOKENIZER: "1.0.0"}


def test_conflict_about_a_component_is_refused(world, client):
    world.publish("2.0.0", TOKENIZER)
    world.publish("1.1.0", requires=NEEDS_TOKENIZER)
    reason = refused_at(client("update"), Gate.RELEASE)
    assert "needs tokenizer 1.0.0" in reason
    assert "2.0.0 is meant for this device" in reason
    assert client("status").json["models"].keys() == {MODEL}


def test_only_the_models_that_are_asked_for(world, client, new_device):
    world.offer("1.0.0", TOKENIZER)
    new_device("--model", TOKENIZER)
    assert client("update").json["running"] == {TOKENIZER: "1.0.0"}
    assert client("update", MODEL).json["running"] == {TOKENIZER: "1.0.0", MODEL: "1.0.0"}


# --- channels and requirements


def test_channels(world, client, new_device):
    world.publish("1.1.0", offer="beta")
    assert client("update").json["outcome"] == "unchanged"
    assert client("update", "--channel", "beta").json["running"] == {MODEL: "1.1.0"}
    new_device("--channel", "beta")
    assert client("update").json["running"] == {MODEL: "1.1.0"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--channel", "nightly"), "there is no channel 'nightly'"),
        (("face-reader",), "does not offer a model 'face-reader'"),
    ],
)
def test_what_the_channel_does_not_offer(client, arguments, reason):
    assert reason in refused_at(client("update", *arguments), Gate.CHANNEL)


@pytest.mark.parametrize(
    ("requires", "reason"),
    [
        (Requirements(hardware=(platform.machine(), "other")), None),
        (Requirements(hardware=("riscv64-npu",)), "made for riscv64-npu"),
        (Requirements(runtime=(("tuf", ">=1, <1000"),)), None),
        (Requirements(runtime=(("tuf", ">=1000"),)), "needs tuf >=1000"),
        (Requirements(runtime=(("no-such-runtime", ">=1"),)), "which is not installed"),
    ],
)
def test_requirements(world, client, requires, reason):
    world.publish("1.1.0", requires=requires)
    done = client("update")
    if reason is None:
        assert done.json["running"] == {MODEL: "1.1.0"}
    else:
        assert reason in refused_at(done, Gate.RELEASE)
        assert world.read_model()[0] == "1.0.0"


# --- when things go wrong


def test_unreachable_repository(world):
    with world.serve() as gone:
        pass
    done = world.client("update", gone)
    assert done.code == ExitCode.UNAVAILABLE
    assert (done.json["outcome"], done.json["gate"]) == ("unavailable", "metadata")
    assert "modelward: unavailable at gate 3 (metadata)" in done.err
    assert world.read_model()[0] == "1.0.0"
    assert world.client_here("verify").code == ExitCode.DONE
    assert world.client_here("status").json["last"]["outcome"] == "unavailable"


def test_interrupted_fetch_is_taken_up_again(world, client, server):
    world.publish("1.1.0")
    weights = digest(world.offered["model.onnx"])
    server.lie(f"{BLOBS}sha256/{weights[:2]}/{weights}", answers.cut)
    done = client("update")
    assert done.code == ExitCode.UNAVAILABLE
    assert done.json["gate"] == "fetch"
    assert world.read_model()[0] == "1.0.0"
    assert client("verify").code == ExitCode.DONE

    server.be_honest()
    arrived = {path for path in server.asked(BLOBS) if not path.endswith(weights)}
    server.requests.clear()
    assert client("update").json["running"] == {MODEL: "1.1.0"}
    assert not arrived & set(server.asked(BLOBS))


def test_repository_that_was_not_kept_fresh(world, client):
    """The timestamp has expired: refused, until the operator signs a new one."""
    staging = Staging.of(world.storage, now() - timedelta(days=2))
    staging.finish(world.online(), snapshot=False)
    staging.commit()
    assert "expired" in refused_at(client("update"), Gate.METADATA)
    assert world.read_model()[0] == "1.0.0"

    refresh(world.storage, world.online(), now())
    assert client("update").json["outcome"] == "unchanged"
    world.publish("1.1.0")
    assert client("update").json["running"] == {MODEL: "1.1.0"}


def test_another_update_is_running(world, client):
    world.publish("1.1.0")
    with fsops.lock(world.device / "lock"):
        done = client("update")
    assert done.code == ExitCode.UNAVAILABLE
    assert done.json["gate"] == "recover"
    assert client("update").json["running"] == {MODEL: "1.1.0"}


def test_model_that_was_tampered_with_is_found_and_replaced(world, client):
    path = world.device / "current" / MODEL / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"tampered weights")
    done = client("verify")
    assert done.code == ExitCode.REFUSED
    assert [problem["path"] for problem in done.json["problems"]] == ["model.onnx"]
    world.publish("1.1.0")
    assert client("update").code == ExitCode.DONE
    assert world.read_model() == ("1.1.0", world.offered)


# --- what it tells


def test_explain(world, client, tmp_path):
    picture = tmp_path / "why.svg"
    told = client("explain", MODEL, "--svg", str(picture)).json
    assert (told["model"], told["version"]) == (MODEL, "1.0.0")
    assert len(told["steps"]) == 9
    assert {role["name"] for role in told["roles"]} >= {"root", "timestamp", f"model-{MODEL}"}
    text = client("explain", MODEL, as_json=False).out
    for step in told["steps"]:
        assert step["name"] in text
        for functionary in step["functionaries"]:
            assert functionary[:8] in text
    svg = ET.parse(picture)
    drawn = "".join(svg.getroot().itertext())
    assert all(step["name"] in drawn for step in told["steps"])
    assert "meter-reader 1.0.0" in drawn


def test_status(world, client):
    world.publish("1.1.0")
    client("update")
    status = client("status").json
    assert status["models"][MODEL]["version"] == "1.1.0"
    assert status["floors"]["releases"] == {MODEL: status["models"][MODEL]["counter"]}
    assert status["last"]["outcome"] == "updated"
    assert "meter-reader 1.1.0 runs; 1.0.0 is kept" in client("status", as_json=False).out


def test_exit_code_of_wrong_usage(world, tmp_path):
    elsewhere = World(tmp_path, world.home)
    assert elsewhere.client("update").code == ExitCode.USAGE
    assert world.client("explain", None, "no-such-model").code == ExitCode.USAGE


@pytest.mark.parametrize(
    "name",
    ["tuf/timestamp.json", "tuf/snapshot.json", "tuf/root_history/2.root.json", "device.pub"],
)
def test_a_pipe_keeps_nobody_waiting(world, server, name):
    """It would never be written to: in processes of their own, which can be ended."""
    world.publish("1.1.0")
    (world.device / name).unlink(missing_ok=True)
    os.mkfifo(world.device / name)
    assert world.client("status").code in (ExitCode.DONE, ExitCode.UNAVAILABLE)
    assert world.client("update", server).json["running"] == {MODEL: "1.1.0"}
    assert world.client("status").code == ExitCode.DONE
    assert world.client("verify").code == ExitCode.DONE


def test_a_file_that_was_changed_after_it_was_fetched_is_not_installed(world, monkeypatch):
    """Attack row 29: its times are set back, so that nobody seems to have touched it."""
    real = update._look_inside

    def tamper(examined, store, watch):
        real(examined, store, watch)
        for item in examined.values():
            for file in (each for each in item.release.files if each.path == "model.onnx"):
                path = store.path(file.blob.sha256)
                status = path.stat()
                path.chmod(0o644)
                path.write_bytes(bytes(status.st_size))
                path.chmod(0o444)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    monkeypatch.setattr(update, "_look_inside", tamper)
    world.publish("1.1.0")
    with world.serve() as server:
        refused = world.client_here("update", server)
    assert refused.code == ExitCode.REFUSED
    assert refused.json["gate"] == Gate.INSTALL.label
    assert "is not the file that was approved" in refused.json["reason"]
    assert world.read_model()[0] == "1.0.0"
    monkeypatch.undo()
    with world.serve() as server:
        assert world.client_here("update", server).code == ExitCode.DONE
    assert world.read_model() == ("1.1.0", world.offered)


def test_what_waits_in_the_store_and_has_rotted_is_fetched_anew(world, client, monkeypatch):
    """The walk of gate 8 sees it first, and must not take it for what somebody published so."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    world.publish("1.1.0")
    with monkeypatch.context() as patch:
        patch.setattr(update, "_look_inside", interrupt)
        client("update")
    rot(world.device / "store" / digest(world.offered["model.onnx"]))
    assert "model.onnx: is not the file that was" in refused_at(client("update"), Gate.INSTALL)
    assert client("update").json["running"] == {MODEL: "1.1.0"}
    assert world.read_model() == ("1.1.0", world.offered)


def test_what_is_shared_with_what_runs_and_has_rotted_is_fetched_anew(world, client, server):
    world.publish("1.1.0")
    assert client("update").code == ExitCode.DONE
    world.publish("1.2.0")
    shared = world.device / "store" / digest(world.offered["golden.json"])
    assert shared.samefile(world.device / "current" / MODEL / "golden.json")
    rot(shared)
    assert "golden.json: is not the file that was" in refused_at(client("update"), Gate.INSTALL)
    server.requests.clear()
    assert client("update").json["running"] == {MODEL: "1.2.0"}
    assert server.asked(f"{BLOBS}.*{shared.name}")
    assert world.read_model() == ("1.2.0", world.offered)


def test_a_file_that_cannot_be_read_now_is_not_taken_for_rotten(world, client, monkeypatch):
    """A device that is short of descriptors has nothing to fetch anew."""

    def short(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    world.publish("1.1.0")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "reader", short)
        assert client("update").code == ExitCode.UNAVAILABLE
    assert (world.device / "store" / digest(world.offered["model.onnx"])).exists()
    assert client("update").json["running"] == {MODEL: "1.1.0"}


def rot(path: Path) -> None:
    """Change the first byte of a file, as a bad sector or a hand may."""
    content = bytearray(path.read_bytes())
    content[0] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
