"""The stage of one attack: a world of its own, its server, the device, its peers.

A case sets an attack up and ends with one call, such as `Scene.refused_at`, which runs the real
command line and asserts the four things that every case asserts:

1. the outcome and exit code, and which gate refused;
2. nothing was installed, and no weight was asked for before a decision was made;
3. the model that ran before still runs, byte for byte, and still verifies;
4. the next honest update succeeds.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import modelward
from modelward.errors import ExitCode, Gate
from tests.attacks.peers import REFUSALS, ChecksumFile, NoLimitError, Peer, PythonTuf
from tests.simulator.chain import HonestChain
from tests.simulator.server import Server
from tests.simulator.thief import Thief, poison, restore
from tests.simulator.world import PLAIN, SUMS, Done, World, bundle_of

NEXT = "2.0.0"  # the next honest release
BLOBS = "/blobs/"
NOT_APPLICABLE = "-"

Record = Callable[[str, Sequence[str]], None]


class Scene:
    """See the module.

    Args:
        world: A world of this case's own.
        server: Its server.
        trap: A server that nobody should ever ask.
        record: Told how the case ended, for the table.

    Attributes:
        backup: The repository as it was before a thief came.
        poured: Bytes that the device had an endless answer send.
        recover: What the security team does when the attack is over, to the repository as it was
            before; None if its operator can put it right alone.
    """

    def __init__(self, world: World, server: Server, trap: Server, record: Record) -> None:
        self.world = world
        self.server = server
        self.trap = trap
        self.tuf, self.checksums = peers(world)
        self.backup = world.place / "backup"
        self.poured = 0
        self.recover: Callable[[], None] | None = None
        self._record = record
        self._verdicts = (NOT_APPLICABLE, NOT_APPLICABLE)

    def thief(self, *stolen: str) -> Thief:
        """Return somebody who runs the server from now on, with these stolen keys."""
        if not self.backup.exists():
            shutil.copytree(self.world.repository, self.backup)
        return Thief(self.world, stolen)

    def holder(self, *keys: str) -> Thief:
        """Return somebody who holds these keys by right, and asks no gate either."""
        return Thief(self.world, keys)

    def poisoned(self) -> HonestChain:
        """Return a run for 1.1.0 in which everybody attests poisoned weights, in good faith."""
        return self.world.chain("1.1.0", bundle=poison(bundle_of("1.1.0")))

    def everyone_updates(self) -> None:
        """Let the device and its peers see, and install, what is served now."""
        done = self.world.client_here("update", self.server)
        assert done.code == ExitCode.DONE, done
        for peer in (self.tuf, self.checksums):
            peer.update(self.server.url)

    def lose_metadata(self) -> None:
        """Cut the power: what TUF's client remembers is zeros (it does not sync its files)."""
        for name in ("timestamp.json", "snapshot.json"):
            path = self.world.device / "tuf" / name
            path.write_bytes(bytes(path.stat().st_size))
        self.tuf.forget()

    def refused_at(
        self,
        gate: Gate,
        reason: str,
        *,
        tuf: bool = True,
        checksums: bool = True,
        blobs: Sequence[str] = (),
    ) -> None:
        """Require that the device refuses.

        Args:
            gate: The gate that must.
            reason: A part of the reason it must give.
            tuf: Whether python-tuf alone can be given the attack.
            checksums: Whether a file of checksums can, if the attack reaches it.
            blobs: Digests of the small files that may be read before the decision.
        """
        done = self._update_under_attack(ExitCode.REFUSED, blobs)
        answer = done.json
        assert answer["outcome"] == "refused", done
        assert (answer["gate_number"], answer["gate"]) == gate.value, done
        assert reason in answer["reason"], done
        self._give_to_peers(tuf=tuf, checksums=checksums)
        part = f" ({answer['part']})" if "part" in answer else ""
        self._conclude("refused", f"{gate.number} {gate.label}{part}")

    def rolled_back(self, reason: str) -> None:
        """Require that the device tries the model, and goes on with the one before.

        Args:
            reason: A part of the reason it must give.
        """
        done = self._update_under_attack(ExitCode.ROLLED_BACK)
        answer = done.json
        assert answer["outcome"] == "rolled back", done
        assert (answer["gate_number"], answer["gate"]) == Gate.HEALTH.value, done
        assert reason in answer["reason"], done
        self._give_to_peers()
        self._conclude("rolled back", f"{Gate.HEALTH.number} {Gate.HEALTH.label}")

    def overcome(self, version: str = "1.1.0") -> None:
        """Require that the honest update succeeds all the same, from another source."""
        done = self.world.client("update", self.server)
        assert done.code == ExitCode.DONE, done
        assert done.json["running"]["meter-reader"] == version, done
        assert not self.trap.requests
        assert self.world.read_model() == (version, self.world.offered)
        self._conclude("overcome", NOT_APPLICABLE)

    def unavailable_at(self, gate: Gate, reason: str, *, peers: bool = True) -> None:
        """Require that the device gives up for now: it may well be an accident.

        Args:
            gate: The gate at which it must.
            reason: A part of the reason it must give.
            peers: Whether its peers are given the attack: some would wait for ever.
        """
        done = self._update_under_attack(ExitCode.UNAVAILABLE)
        answer = done.json
        assert answer["outcome"] == "unavailable", done
        assert (answer["gate_number"], answer["gate"]) == gate.value, done
        assert reason in answer["reason"], done
        self._give_to_peers(tuf=peers, checksums=peers)
        self._conclude("unavailable", f"{gate.number} {gate.label}")

    def withheld(self) -> None:
        """Require that the device learns of nothing new, and installs nothing."""
        done = self._update_under_attack(ExitCode.DONE)
        assert done.json["outcome"] == "unchanged", done
        self._give_to_peers()
        self._conclude("withheld", NOT_APPLICABLE)

    def falls_back_when(self, tamper: Callable[[Path], object], reason: str) -> None:
        """Require that tampering with what runs is found when it is opened.

        Args:
            tamper: Does it; is given the folder of the files that run.
            reason: A part of what the alarm must say.
        """
        before = self.world.read_model()
        self.world.publish("1.1.0")
        self.everyone_updates()
        assert self.world.read_model() == ("1.1.0", self.world.offered)
        slots = self.world.device / "slots/meter-reader"

        tamper((self.world.device / "current/meter-reader").resolve())

        with modelward.open_model("meter-reader", self.world.device) as model:
            assert model.fallback
            assert (model.version, {path: model.read(path) for path in model}) == before
        status = self.world.client("status")
        assert status.code == ExitCode.REFUSED, status
        (alarm,) = status.json["alarms"]
        assert (alarm["version"], alarm["served"]) == ("1.1.0", before[0])
        assert reason in alarm["problem"], alarm
        verified = self.world.client_here("verify")
        assert verified.code == ExitCode.REFUSED, verified
        assert slots.is_dir()
        self._conclude("fell back", f"{Gate.INSTALL.number} {Gate.INSTALL.label}")

    def conclude(self, outcome: str, gate: str) -> None:
        """End a case that has asserted itself what must hold until here.

        Args:
            outcome: How it ended, for the table.
            gate: Where.
        """
        self._conclude(outcome, gate)

    def harmless(self, version: str, approved: Mapping[str, bytes], told: str) -> None:
        """Require that the device says what is wrong, and installs what was approved all the same.

        Args:
            version: The version that it then runs.
            approved: Its files, byte for byte.
            told: A part of what it must say.
        """
        done = self.world.client_here("update", self.server, as_json=False)
        assert done.code == ExitCode.DONE, done
        assert told in done.out, done
        assert self.world.read_model() == (version, approved)
        assert self.world.client_here("verify").json["outcome"] == "intact"
        self.recover = self.recover or (lambda: None)  # the release stays: it does no harm
        self._conclude("no harm", f"{Gate.FETCH.number} {Gate.FETCH.label}")

    def _update_under_attack(self, code: ExitCode, blobs: Sequence[str] = ()) -> Done:
        before = self.world.read_model()
        generation = (self.world.device / "current").readlink()
        already = len(self.server.requests)

        done = self.world.client("update", self.server)

        assert done.code == code, done
        asked = [path for path in self.server.requests[already:] if path.startswith(BLOBS)]
        if code != ExitCode.DONE and done.json["gate_number"] < Gate.FETCH.number:
            assert {path.rpartition("/")[2] for path in asked} <= set(blobs), asked
        assert not self.trap.requests
        self.poured = self.server.poured()

        assert self.world.read_model() == before
        verified = self.world.client_here("verify")
        assert verified.code == ExitCode.DONE, verified
        assert verified.json["outcome"] == "intact"
        assert (self.world.device / "current").readlink() == generation
        return done

    def _give_to_peers(self, *, tuf: bool = True, checksums: bool = True) -> None:
        checksums = checksums and self._concerns_checksums()
        self._verdicts = (
            self._attempt(self.tuf) if tuf else NOT_APPLICABLE,
            self._attempt(self.checksums) if checksums else NOT_APPLICABLE,
        )

    def _concerns_checksums(self) -> bool:
        """Tell whether the attack reaches a folder of files with checksums at all."""
        if any(self.server.lies_about(f"/{PLAIN}/{name}") for name in (SUMS, "model.onnx")):
            return True
        now = self.world.repository / PLAIN
        return self.backup.exists() and _bytes(now) != _bytes(self.backup / PLAIN)

    def _attempt(self, peer: Peer) -> str:
        """Give the same attack to a peer and say what it did."""
        before = peer.installed()
        try:
            peer.update(self.server.url)
        except NoLimitError:
            return "no limit"
        except REFUSALS:
            assert peer.installed() == before
            verdict = "refused"
        else:
            verdict = "no notice" if peer.installed() == before else "ACCEPTED"
            assert peer.installed() != self.world.offered or verdict == "no notice", (
                "the honest release was installed: this attack does not concern this peer"
            )
        if self.trap.requests:
            self.trap.requests.clear()
            return "followed"
        return verdict

    def _conclude(self, outcome: str, gate: str) -> None:
        """The attack is over: the next honest update succeeds."""
        self.server.be_honest()
        if self.recover:
            self.recover()
        elif self.backup.exists():
            restore(self.world, self.backup)
        self.world.publish(NEXT)
        done = self.world.client_here("update", self.server)
        assert done.code == ExitCode.DONE, done
        assert done.json["running"]["meter-reader"] == NEXT
        assert self.world.read_model() == (NEXT, self.world.offered)
        self._record("verdict", [outcome, gate, *self._verdicts])


def peers(world: World) -> tuple[PythonTuf, ChecksumFile]:
    """Return the peers that live in a world."""
    root = world.repository / "metadata/1.root.json"
    return (
        PythonTuf(world.place / "peers/tuf", root),
        ChecksumFile(world.place / "peers/checksums"),
    )


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
