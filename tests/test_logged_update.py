"""What a device does where the repository has a log, from end to end; see tests/test_update.py.

What is refused is in tests/attacks/test_log.py, what gate 4 does alone in tests/test_ledger.py.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tuf.api.metadata import Metadata, Timestamp

from modelward.errors import ExitCode
from modelward.formats.report import read_envelope
from modelward.formats.tlog_proof import TimestampProof, TlogProof
from modelward.trust.report import device_key
from modelward_repo.fleet.store import Fleet
from modelward_repo.publish.ledger import Waiting
from modelward_repo.publish.refresh import refresh, resume
from tests.simulator.ledger import WITNESSES, LoggedWorld, LogThief
from tests.simulator.log import NO_DATE, Log, also_cosigned, leaf
from tests.simulator.server import Server, status
from tests.simulator.world import MODEL, Client, Done, World, clean_environment, now


@pytest.fixture(scope="session")
def quiet_world(quiet_logged_world: LoggedWorld) -> LoggedWorld:
    return quiet_logged_world


@pytest.fixture
def world(world: LoggedWorld) -> Iterator[LoggedWorld]:
    """A world whose device runs 1.0.0 and has seen a log of 7 leaves."""
    yield world
    world.witnesses.be_honest()


def size(client: Client) -> int:
    return client("status").json["log"]["size"]


def publisher(*arguments: str) -> Done:
    """Run a command of whoever publishes or audits."""
    done = subprocess.run(
        [sys.executable, "-m", "modelward_repo", *arguments],
        env=clean_environment(),
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def served_proof(world: World) -> TlogProof:
    """Return the proof that rides in the timestamp."""
    data = (world.repository / "metadata/timestamp.json").read_bytes()
    timestamp = Metadata[Timestamp].from_bytes(data).signed
    return TimestampProof.parse(timestamp.unrecognized_fields["x-tlog"]).proof


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("behind", "tiles"), [(1, 0), (16, 0), (17, 1)])
def test_no_extra_request_for_a_device_at_most_16_leaves_behind(
    world, client, server, behind, tiles
):
    world.log_anew(behind)
    assert client("update").code == ExitCode.DONE
    assert size(client) == 7 + behind
    assert len(server.asked("/log/")) == tiles
    metadata = [path.rpartition("/")[2] for path in server.asked("/metadata/")]
    expected = ["2.root.json", "timestamp.json", f"{7 + behind}.snapshot.json"]  # as TUF has it
    assert metadata == expected
    assert len(server.requests) == len(expected) + tiles + 2  # fleet policy and channel


def test_nothing_new_is_still_one_request(client, server):
    assert client("update").json["outcome"] == "unchanged"
    server.requests.clear()
    assert client("update").json["outcome"] == "unchanged"
    assert server.requests == ["/metadata/timestamp.json"]


def test_every_gate_is_named_in_order(world, client):
    world.publish("1.1.0")
    lines = client("update", as_json=False).out.splitlines()
    gates = [int(line.split()[1]) for line in lines if line.startswith("gate ")]
    # 8 once more, when the files are here.
    assert gates == [*range(3, 11), 8, 11, 12, 13]
    (line,) = (line for line in lines if line.startswith("gate 4 (log): "))
    assert "leaf 9 of 9 in models.example/log, grown from the 7 seen before" in line


def test_check_remembers_what_it_saw(world, client):
    world.publish("1.1.0")
    assert client("check").json["outcome"] == "available"
    assert size(client) == 9
    assert client("update").json["outcome"] == "updated"


# --- witnesses ------------------------------------------------------------------------------------


def test_snapshot_waits_for_witnesses_and_the_old_one_stays_fresh(world, client, witnesses):
    witnesses.silent = frozenset(WITNESSES[:2])
    with pytest.raises(Waiting):
        world.publish("1.1.0")
    refresh(world.storage, world.online(), now())
    assert client("update").json["outcome"] == "unchanged"
    assert size(client) == 7
    witnesses.be_honest()
    resume(world.storage, world.online(), now())
    world.publish("1.2.0")
    assert client("update").json["running"] == {MODEL: "1.2.0"}


def test_one_witness_of_three_may_be_away(world, client, witnesses):
    witnesses.silent = frozenset(WITNESSES[:1])
    world.publish("1.1.0")
    assert client("update").json["running"] == {MODEL: "1.1.0"}
    assert set(client("status").json["log"]["cosigned"]) == set(WITNESSES[1:])


# --- a log begins ---------------------------------------------------------------------------------


def test_repository_that_had_no_log(tmp_path, witnesses):
    world = World.build(tmp_path)
    with world.serve() as server:
        assert world.client_here("status").json["log"] is None
        logged = LoggedWorld(world.place, world.home, world.offered, witnesses=witnesses)
        logged.name_new_log()
        done = world.client_here("update", server)
        assert (done.code, done.json["outcome"]) == (ExitCode.DONE, "unchanged")
        assert world.client_here("status").json["log"]["size"] == 1


# --- clock ----------------------------------------------------------------------------------------


def test_cosignatures_raise_the_clock_for_good(world, client, witnesses):
    later = now() + timedelta(hours=5)
    witnesses.at = later
    world.log_anew()
    assert client("update").code == ExitCode.DONE
    floor = client("status").json["floors"]["time"]
    assert floor == later.strftime("%Y-%m-%dT%H:%M:%SZ")
    witnesses.be_honest()
    world.log_anew()
    assert client("update").code == ExitCode.DONE
    assert client("status").json["floors"]["time"] >= floor


# --- power cuts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["floors", "slots"])
def test_cut_after_the_log_was_remembered(world, client, monkeypatch, where):
    """The log's state is written before anybody acts: then comes the cut."""
    world.publish("1.1.0")

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "floors":
            patch.setattr("modelward.install.trial.Trials.commit", cut)
        else:
            patch.setattr("modelward.install.slots.Slots.switch", cut)
        assert client("update").code == 130
    assert size(client) == 9
    assert client("verify").code == ExitCode.DONE
    assert client("update").json["running"] == {MODEL: "1.1.0"}
    world.publish("1.2.0")
    assert client("update").json["running"] == {MODEL: "1.2.0"}


# --- alarms ---------------------------------------------------------------------------------------


def forked(world: LoggedWorld) -> Log:
    """Return a fork as large as the log."""
    entries = world.log().entries
    fork = Log(entries[:-1])
    fork.append(leaf(999))
    return fork


def test_split_view_found_by_gossip_is_not_hidden_by_the_fast_path(world, client, server, tmp_path):
    assert client("update").json["outcome"] == "unchanged"  # at rest from here on
    neighbour = tmp_path / "checkpoint"
    neighbour.write_bytes(forked(world).signed().to_bytes())
    done = client("gossip", str(neighbour))
    assert done.code == ExitCode.REFUSED
    assert done.json["gate"] == "log"
    done = client("update")
    assert (done.code, done.json["gate"]) == (ExitCode.REFUSED, "log")
    assert "keeps evidence" in done.json["reason"]
    assert client("status").code == ExitCode.REFUSED
    assert client("status").json["last"]["gate"] == "log"
    assert world.read_model()[0] == "1.0.0"


def test_evidence(world, client, tmp_path):
    assert client("evidence", "list").json == {"evidence": []}
    assert client("evidence", "export").code == ExitCode.USAGE
    thief = LogThief(world, ("repository/timestamp",))
    thief.prove(forked(world))
    assert client("update").code == ExitCode.REFUSED
    listed = client("evidence", "list")
    assert listed.code == ExitCode.REFUSED
    (kept,) = listed.json["evidence"]
    assert kept["verdict"] == "split view"
    assert kept["name"] in client("evidence", "list", as_json=False).out
    printed = client("evidence", "export", kept["name"]).out
    path = tmp_path / "evidence.json"
    assert client("evidence", "export", "--to", str(path)).code == ExitCode.DONE
    assert path.read_text() == printed
    assert client("evidence", "export", "0" * 16).code == ExitCode.USAGE
    judged = publisher("log", "judge", str(path))
    assert judged.code == ExitCode.REFUSED
    assert "split view: the log models.example/log signed two different trees of 7" in judged.out


def test_gossip(world, client, server):
    url = f"{server.url}/log/checkpoint"
    assert client("gossip", url).json == {"outcome": "same", "own_size": 7, "other_size": 7}
    world.log_anew(2)
    assert client("gossip", url).json["outcome"] == "larger"
    assert "keeps newer states from this device" in client("gossip", url, as_json=False).out
    assert client("update").code == ExitCode.DONE
    assert client("gossip", url).json["outcome"] == "same"


@pytest.fixture
def frozen(world: LoggedWorld, tmp_path: Path) -> Iterator[Server]:
    """Somebody who shows the repository as it is now for ever. Elsewhere it has 9 leaves soon."""
    shutil.copytree(world.repository, tmp_path / "frozen")
    world.log_anew(2)
    with Server(tmp_path / "frozen") as server:
        yield server


def test_freeze_that_others_expose(world, client, server, frozen):
    alone = world.client_here("update", frozen)
    assert (alone.code, size(client)) == (ExitCode.DONE, 7)
    assert client("gossip", f"{server.url}/log/checkpoint").json["outcome"] == "larger"
    assert client("status").code == ExitCode.DONE  # it was not asked since
    for _ in range(2):  # the second one takes no fast path
        assert world.client_here("update", frozen).code == ExitCode.DONE
        told = client("status")
        assert told.code == ExitCode.REFUSED
        assert told.json["log"]["heard"] == 9
    text = client("status", as_json=False).out
    assert "ALARM: others have seen 9 leaves of the log, the repository shows this device 7" in text
    (alarm,) = client("report", "--dry-run").json["alarms"]
    assert (alarm["kind"], "others have seen 9 leaves" in alarm["reason"]) == ("freeze", True)

    assert client("update").code == ExitCode.DONE
    told = client("status")
    assert (told.code, told.json["log"]["heard"], size(client)) == (ExitCode.DONE, None, 9)


def test_larger_tree_that_only_the_log_signed_is_not_believed(world, client, tmp_path):
    longer = world.log()
    longer.append(leaf(500))
    checkpoint = tmp_path / "checkpoint"
    for by, heard in (((), None), (WITNESSES[:1], None), (WITNESSES[:2], 8)):
        checkpoint.write_bytes(longer.signed(by=by).to_bytes())
        assert client("gossip", str(checkpoint)).json["outcome"] == "larger"
        assert client("status").json["log"]["heard"] == heard


def test_what_others_have_seen_is_no_part_of_what_is_shown(world, client, tmp_path):
    """The repository goes on, but not from the tree that others have seen: a split view."""
    other = world.log()
    other.append(leaf(500))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(other.signed().to_bytes())
    client("gossip", str(checkpoint))
    world.log_anew(2)
    done = client("update")
    assert (done.code, done.json["gate"]) == (ExitCode.REFUSED, "log")
    assert "does not begin with the 8" in done.json["reason"]
    (kept,) = client("evidence", "list").json["evidence"]
    assert kept["verdict"] == "history rewritten"


def test_whoever_withholds_the_tiles_keeps_the_alarm(world, client, server, tmp_path):
    other = world.log()
    other.append(leaf(500))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(other.signed().to_bytes())
    client("gossip", str(checkpoint))
    world.log_anew(2)
    server.lie("/log/tile", status(404))
    assert client("update").code == ExitCode.DONE
    told = client("status")
    assert told.code == ExitCode.REFUSED
    assert "does not show that its 9 leaves" in told.json["log"]["freeze"]


def test_alarm_reaches_people(world, client, server):
    """Evidence that a device keeps is in its next report, and the server's own log judges it."""
    fleet = Fleet(world.place / "repository-fleet")
    fleet.create()
    with fleet.write() as turn:
        told = client("status").json
        key = device_key(bytes.fromhex(told["reports"]["device_key"]))
        turn.add_device(told["device_id"], key, 0)
    assert world.client_here("report", server).code == ExitCode.DONE
    thief = LogThief(world, ("repository/timestamp",))
    thief.prove(forked(world))
    assert client("update").code == ExitCode.REFUSED  # which sends the report by itself
    with fleet.read() as turn:
        kinds = {alarm.kind: alarm for alarm in turn.alarms()}
        newest = turn.newest_reports()[0]
    assert set(kinds) == {"device: evidence", "split view"}
    _, report = read_envelope(newest.envelope)
    assert report.refused is not None
    assert report.refused.gate == "log"
    exported = world.place / "evidence.json"
    exported.write_bytes(kinds["split view"].document or b"")
    assert publisher("log", "judge", str(exported)).code == ExitCode.REFUSED


def test_a_report_and_its_answer_compare_both_ways(world, client, server, frozen):
    """The server that takes reports need not be the one that serves: it shows a freeze as well."""
    with (world.device / "modelward.toml").open("a") as file:
        file.write(f'\n[reports]\nurl = "{server.url}"\n')
    fleet = Fleet(world.place / "repository-fleet")
    fleet.create()
    with fleet.write() as turn:
        told = client("status").json
        key = device_key(bytes.fromhex(told["reports"]["device_key"]))
        turn.add_device(told["device_id"], key, 0)
    assert world.client_here("report", None).code == ExitCode.DONE
    assert client("status").json["log"]["heard"] == 9
    assert world.client_here("update", frozen).code == ExitCode.DONE
    assert client("status").code == ExitCode.REFUSED
    with fleet.read() as turn:
        assert [alarm.kind for alarm in turn.alarms()] == ["device: freeze"]


def test_lost_state_is_a_first_use(world, client):
    for path in world.device.glob("log.state.*"):
        path.unlink()
    assert client("status").json["log"] is None
    world.publish("1.1.0")
    assert client("update").json["running"] == {MODEL: "1.1.0"}
    assert size(client) == 9


# --- what it tells --------------------------------------------------------------------------------


def test_explain(world, client, tmp_path):
    picture = tmp_path / "why.svg"
    told = client("explain", MODEL, "--svg", str(picture)).json
    assert told["log"]["size"] == 7
    assert "4. It was logged where everybody sees it" in client("explain", MODEL, as_json=False).out
    drawn = "".join(ET.parse(picture).getroot().itertext())
    assert "log models.example/log of size 7, cosigned by w1.example" in drawn


# --- proofs that stand alone ----------------------------------------------------------------------


@pytest.fixture
def proof(world: LoggedWorld, tmp_path: Path) -> Path:
    """A proof of what is current."""
    path = tmp_path / "current.tlog-proof"
    logged = served_proof(world)
    path.write_bytes(replace(logged, extra=world.log().entries[logged.index]).to_bytes())
    return path


def verify(world: World, *arguments: str | Path) -> Done:
    root = str(world.repository / "metadata/1.root.json")
    return world.client_here("verify-proof", None, *map(str, arguments), "--root", root)


def way(world: World) -> list[Path]:
    """Return the documents from the snapshot to the weights."""
    repository = world.repository
    release = next((repository / f"targets/models/{MODEL}/1.0.0").glob("*.release.json"))
    weights = world.offered["model.onnx"]
    (blob,) = (path for path in repository.glob("blobs/*/*/*") if path.read_bytes() == weights)
    return [
        repository / "metadata/7.snapshot.json",
        repository / f"metadata/3.model-{MODEL}.json",
        release,
        blob,
    ]


def test_verify_proof(world, proof):
    told = verify(world, proof).json
    assert (told["outcome"], told["index"], told["size"]) == ("proven", 6, 7)
    assert set(told["cosigned"]) == set(WITNESSES)
    assert set(verify(world, proof, *way(world)).json["documents"]) == set(map(str, way(world)))


def test_proof_that_the_publisher_made(world, tmp_path):
    path, folder = tmp_path / "release.tlog-proof", tmp_path / "proof"
    repository = str(world.repository)
    options = ("-r", repository, "-o", str(path), "--documents", str(folder))
    made = publisher("log", "prove", f"{MODEL}/1.0.0", *options)
    assert made.code == ExitCode.DONE, made
    documents = sorted(folder.iterdir())
    assert [each.name for each in documents] == [
        f"model-{MODEL}.json",
        "release.json",
        "root.json",
        "snapshot.json",
    ]
    done = verify(world, path, *documents, way(world)[-1])
    assert done.code == ExitCode.DONE, done


def test_verify_proof_needs_no_device(world, proof):
    shutil.rmtree(world.device)
    assert verify(world, proof).code == ExitCode.DONE


def test_document_that_nothing_vouches_for(world, proof):
    snapshot, role, release, weights = way(world)
    for given in ([weights], [snapshot, release], [snapshot, role, weights]):
        done = verify(world, proof, *given)
        assert done.code == ExitCode.REFUSED
        assert "nothing that was logged vouches for" in done.json["reason"]


def test_proof_that_a_witness_cosigned_at_a_time_without_a_date(world, proof):
    good = TlogProof.parse(proof.read_bytes())
    signed = world.log().signed(by=WITNESSES[:2])
    late = also_cosigned(signed, WITNESSES[2], NO_DATE)
    proof.write_bytes(replace(good, checkpoint=late).to_bytes())
    assert set(verify(world, proof).json["cosigned"]) == set(WITNESSES[:2])


def test_proofs_that_do_not_hold(world, proof, witnesses):
    good = TlogProof.parse(proof.read_bytes())
    signed = good.checkpoint
    lonely = replace(signed, note=replace(signed.note, signatures=signed.note.signatures[:2]))
    for bad, code, reason in (
        (replace(good, extra=None), ExitCode.REFUSED, "leaf"),
        (replace(good, extra=world.log().entries[0]), ExitCode.REFUSED, "is not in the log"),
        (replace(good, extra=leaf(1).to_bytes()), ExitCode.REFUSED, "of the repository"),
        (replace(good, checkpoint=lonely), ExitCode.UNAVAILABLE, "too few witnesses"),
    ):
        proof.write_bytes(bad.to_bytes())
        done = verify(world, proof)
        assert (done.code, done.json["gate"]) == (code, "log"), done
        assert reason in done.json["reason"]
