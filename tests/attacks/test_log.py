"""Gates 2 and 4: devices are shown what others are not, or kept in the past.

Whoever forks a log has its key. Where a case has no stolen witness, the quorum stands in the way as
well; the thief here may have all of them, and is found out by what the device remembers.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from modelward.errors import ExitCode, Gate
from modelward.formats.log_evidence import LogEvidence
from modelward.trust.split_view import Verdict, judge
from modelward_repo.publish.staging import Staging
from modelward_repo.roles.policy import CHANNELS
from tests.attacks.scene import Record, Scene
from tests.simulator.ledger import LOG, ORIGIN, LoggedWorld, LogThief
from tests.simulator.log import Log, leaf
from tests.simulator.server import Endless, Server, instead, status
from tests.simulator.thief import PUBLISHER, SERVER, TIMESTAMP, poison, restore
from tests.simulator.world import now

HOUR = timedelta(hours=1)


@pytest.fixture(scope="session")
def quiet_world(
    quiet_logged_world: LoggedWorld, tmp_path_factory: pytest.TempPathFactory
) -> LoggedWorld:
    """A world with a log, in which nothing bad has happened yet."""
    world = quiet_logged_world.copy(tmp_path_factory.mktemp("peers"))
    with world.serve() as server:
        Scene(world, server, server, lambda *_: None).everyone_updates()
    return world


class LogScene(Scene):
    """A scene in which the log takes part.

    Attributes:
        world: A world with a log.
        lied: Whether the log is proven to have lied, so that only a new one is believed.
    """

    world: LoggedWorld

    def __init__(self, world: LoggedWorld, server: Server, trap: Server, record: Record) -> None:
        super().__init__(world, server, trap, record)
        self.lied = False
        self._verdict = Verdict.NOTHING

    def thief(self, *stolen: str) -> LogThief:
        super().thief(*stolen)
        return LogThief(self.world, stolen)

    def split_view(self, reason: str, verdict: Verdict) -> None:
        """Require that the device refuses, keeps evidence and gives alarm."""
        self.lied = verdict is not Verdict.OPEN
        self._verdict = verdict
        self.refused_at(Gate.LOG, reason)

    def _conclude(self, outcome: str, gate: str) -> None:
        if self.lied:
            self._require_evidence()
            self.server.be_honest()
            self._hold_ceremony()
        super()._conclude(outcome, gate)

    def _require_evidence(self) -> None:
        """The device kept what anybody can judge, tells of it, and believes the log no more."""
        status = self.world.client_here("status")
        assert status.code == ExitCode.REFUSED
        (told,) = status.json["log"]["evidence"]
        assert (told["alarm"], told["verdict"]) == (True, self._verdict.value)
        assert "ALARM" in self.world.client_here("status", as_json=False).out
        exported = self.world.place / "evidence.json"
        done = self.world.client_here("evidence", None, "export", "--to", str(exported))
        assert done.code == ExitCode.DONE
        evidence = LogEvidence.parse(exported.read_bytes())
        assert judge(evidence, Log(origin=ORIGIN).policy).verdict is self._verdict

    def _hold_ceremony(self) -> None:
        """Put the repository right; the device holds out until root names a new log."""
        restore(self.world, self.backup)
        shutil.rmtree(self.backup)
        again = self.world.client_here("update", self.server)
        assert again.code == ExitCode.REFUSED, again
        assert "keeps evidence" in again.json["reason"]
        self.world.name_new_log()


@pytest.fixture
def scene(scene: Scene) -> Iterator[LogScene]:
    """The stage of an attack on the log."""
    assert isinstance(scene.world, LoggedWorld)
    yield LogScene(scene.world, scene.server, scene.trap, scene._record)
    scene.world.witnesses.be_honest()


def shows_poison(scene: LogScene, *stolen: str) -> LogThief:
    """Serve a poisoned release, signed with every key of the server's and the publisher's."""
    thief = scene.thief(*PUBLISHER, *stolen)
    chain = scene.world.chain("6.6.6")
    thief.publish("6.6.6", poison(chain.content), chain.evidence)
    return thief


def forked(scene: LogScene, thief: LogThief, common: int, size: int) -> Log:
    """Return a log that shares its first leaves with the honest one and ends in what is served."""
    log = Log(scene.world.log().entries[:common])
    log.append(*(leaf(5000 + number) for number in range(common, size - 1)), thief.leaf())
    return log


# --- 4: freeze


@pytest.mark.attack(4)
def test_clock_set_back(scene: LogScene) -> None:
    """Frozen, the clock set back: a timestamp that expired an hour ago looks fresh."""
    scene.world.witnesses.at = now() + 6 * HOUR
    scene.world.log_anew()
    scene.everyone_updates()
    scene.thief(TIMESTAMP).sign_again(lambda _: None, expires=now() + 5 * HOUR)
    scene.refused_at(Gate.CLOCK, "timestamp expired at")


@pytest.mark.attack(4)
def test_clock_set_back_and_a_role_withheld(scene: LogScene) -> None:
    """Frozen, the clock set back: fresh server roles, a channel that has expired."""
    scene.world.witnesses.at = now() + 6 * HOUR
    scene.world.log_anew()
    scene.everyone_updates()
    staging = Staging.of(scene.world.storage, now() - timedelta(days=30) + 5 * HOUR)
    staging.sign_again(CHANNELS, scene.world.signers(CHANNELS))
    staging.now = now()
    staging.finish(scene.world.online())
    staging.commit()
    scene.refused_at(Gate.CLOCK, "channels expired at")


# --- 7: endless data


@pytest.mark.attack(7)
def test_endless_tile(scene: LogScene) -> None:
    """The device is far behind, and a tile of the log never ends."""
    scene.world.log_anew(17)
    scene.server.lie("/log/", Endless())
    scene.unavailable_at(Gate.LOG, "sends more than")
    assert scene.poured < 64 << 20


# --- 17: split view


@pytest.mark.attack(17)
def test_fork_of_the_same_size(scene: LogScene) -> None:
    """The keys of log and witnesses are stolen: a fork of the same size."""
    thief = shows_poison(scene, LOG)
    size = len(scene.world.log().entries)
    thief.prove(forked(scene, thief, size - 1, size))
    scene.split_view("other than the one this device saw", Verdict.SPLIT_VIEW)


@pytest.mark.attack(17)
def test_larger_fork(scene: LogScene) -> None:
    """The keys of log and witnesses are stolen: a larger fork, with tiles that fit it."""
    thief = shows_poison(scene, LOG)
    thief.prove(forked(scene, thief, 4, len(scene.world.log().entries) + 3))
    scene.split_view("rewrote its history", Verdict.REWRITTEN)


@pytest.mark.attack(17)
def test_larger_fork_without_witnesses(scene: LogScene) -> None:
    """The key of the log is stolen: a fork that no witness cosigned."""
    thief = shows_poison(scene, LOG)
    size = len(scene.world.log().entries)
    thief.prove(forked(scene, thief, size - 1, size), by=())
    scene.split_view("other than the one this device saw", Verdict.SPLIT_VIEW)


@pytest.mark.attack(17)
def test_fork_without_its_tiles(scene: LogScene) -> None:
    """The keys of log and witnesses are stolen: a larger fork, its tiles withheld."""
    thief = shows_poison(scene, LOG)
    thief.prove(forked(scene, thief, 4, len(scene.world.log().entries) + 3))
    scene.server.lie("/log/", status(404))
    scene.split_view("does not show that", Verdict.OPEN)


def meets(scene: LogScene, neighbour: Server, checkpoint: bytes) -> None:
    """Let the device have a neighbour that has seen this of the log."""
    neighbour.lie("/gossip", instead(checkpoint))
    with (scene.world.device / "modelward.toml").open("a") as file:
        file.write(f'\n[neighbours]\nurls = ["{neighbour.url}"]\n')


@pytest.mark.attack(17)
def test_fork_shown_to_a_neighbour(scene: LogScene) -> None:
    """The keys of log and witnesses are stolen: a neighbour was shown a fork, and the two meet."""
    scene.thief()
    fork = Log(scene.world.log().entries[:-1])
    fork.append(leaf(999))
    with Server(scene.world.place) as neighbour:
        meets(scene, neighbour, fork.signed().to_bytes())
        scene.split_view("keeps evidence", Verdict.SPLIT_VIEW)


@pytest.mark.attack(4)
def test_freeze_that_a_neighbour_exposes(scene: LogScene) -> None:
    """Frozen, everything still fresh: a neighbour has seen more of the log"""
    timestamp = (scene.world.repository / "metadata/timestamp.json").read_bytes()
    scene.world.publish("1.1.0")
    scene.server.lie("/metadata/timestamp.json", instead(timestamp))
    with Server(scene.world.place) as neighbour:
        meets(scene, neighbour, scene.world.log().signed(at=int(now().timestamp())).to_bytes())
        scene._update_under_attack(ExitCode.DONE)
        scene._give_to_peers()
        status = scene.world.client_here("status")
        assert status.code == ExitCode.REFUSED
        assert "others have seen" in status.json["log"]["freeze"]
        scene.conclude("withheld", "4 log: alarm")
    assert scene.world.client_here("status").code == ExitCode.DONE


# --- 18: not logged


@pytest.mark.attack(18)
def test_release_that_was_not_logged(scene: LogScene) -> None:
    """A release is published with no proof: the log's key is not stolen."""
    shows_poison(scene)
    scene.unavailable_at(Gate.LOG, "no proof that this snapshot was logged")


@pytest.mark.attack(18)
def test_proof_of_another_snapshot(scene: LogScene) -> None:
    """A release is published with the honest proof of the snapshot before."""
    proof = scene.holder().timestamp.unrecognized_fields["x-tlog"]
    shows_poison(scene).put_proof(proof)
    scene.refused_at(Gate.LOG, "is not in the log")


@pytest.mark.attack(18)
def test_proof_of_another_log(scene: LogScene) -> None:
    """A release is logged in a log of the thief's own."""
    thief = shows_poison(scene)
    own = Log(origin="thief.example/log")
    own.append(thief.leaf())
    thief.prove(own)
    scene.refused_at(Gate.LOG, "the checkpoint is of the log 'thief.example/log'")


@pytest.mark.attack(18)
def test_proof_by_another_key(scene: LogScene) -> None:
    """A release is logged under the log's name, signed with another key."""
    thief = shows_poison(scene)
    log = scene.world.log()
    log.append(thief.leaf())
    proof = log.timestamp_proof(len(log.entries) - 1, at=int(now().timestamp())).to_dict()
    honest = str(log.signed().note.signatures[0])
    forged = str(replace(log.signed().note.signatures[0], signature=bytes(64)))
    thief.put_proof({**proof, "proof": proof["proof"].replace(honest, forged)})
    scene.refused_at(Gate.LOG, "is not valid")


@pytest.mark.attack(18)
@pytest.mark.parametrize(
    ("by", "hours", "reason"),
    [
        pytest.param((), 0, "nobody did", id="no witness"),
        pytest.param(("w1.example",), 0, "w1.example did", id="one witness of two"),
        pytest.param(("w1.example", "w9.example"), 0, "w1.example did", id="an unknown witness"),
        pytest.param(None, 99, "in the future", id="cosigned in the future"),
    ],
)
def test_quorum_is_missing(
    scene: LogScene, by: tuple[str, ...] | None, hours: int, reason: str
) -> None:
    """The log's key is stolen, and the log grows by a release"""
    thief = shows_poison(scene, LOG)
    log = scene.world.log()
    log.append(thief.leaf())
    thief.prove(log, by=by, at=now() + hours * HOUR)
    scene.unavailable_at(Gate.LOG, reason)


# --- 19: history rewritten


@pytest.mark.attack(19)
def test_history_rewritten(scene: LogScene) -> None:
    """The log's own operator takes the leaf of a release out of it."""
    team = scene.thief(*SERVER, LOG)
    team.commit(team.stage())
    entries = scene.world.log().entries
    rewritten = Log([*entries[:3], *entries[4:]])
    rewritten.append(leaf(1), team.leaf())
    team.prove(rewritten)
    scene.split_view("rewrote its history", Verdict.REWRITTEN)


@pytest.mark.attack(19)
def test_log_taken_back(scene: LogScene) -> None:
    """The log's own operator takes it back to what it was before."""
    team = scene.thief(*SERVER, LOG)
    team.commit(team.stage())
    team.prove(forked(scene, team, 4, 5))
    scene.split_view("shrank from", Verdict.OPEN)
