"""A drill: each online key is stolen in turn, and replaced as the runbooks show.

Run it with `make drill`. Everything is real: keys, signatures, thefts, servers, one device that
lives through all of it. What people need to meet and to read comes on top of the times shown.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "meter-reader")]

from attacker import Attacker
from stage import BIN, ROOT, DemoError, Stage, environment, served

from modelward.errors import ExitCode
from modelward.formats import channel as channels
from modelward.formats.channel import Channel, Entry
from modelward.formats.strict import MAX_INT
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.storage.local import LocalStorage

MODEL = "my-model"
ROLE = f"model-{MODEL}"
SERVER = ("repository/snapshot", "repository/timestamp")
CHANNEL = "operator/channels"
RELEASE = f"release-ci/{ROLE}"
PACKAGER = "packager/functionary"
OWNERS = ("lead-a", "lead-b", "lead-c")
YEARS = timedelta(days=3650)
DAY = timedelta(days=1)
WITHHELD = "learns nothing new"


class Thief(Attacker):
    """Somebody with stolen keys and a mirror that devices ask.

    Args:
        mirror: The directory that the mirror serves.
        loot: A folder with what was stolen, and nothing else.
    """

    def __init__(self, mirror: Path, loot: Path) -> None:
        super().__init__(mirror, loot, MODEL)

    def stage(self) -> Staging:
        """Return what the mirror serves, to be changed."""
        return Staging.of(LocalStorage(self.mirror), datetime.now(UTC).replace(microsecond=0))

    def withhold(self, *, snapshot: bool) -> None:
        """Vouch for an old state, for ten years."""
        staging = self.stage()
        staging.now += YEARS
        self._number(staging, staging.timestamp.signed.version + 5 if staging.timestamp else 5)
        keys = [self.steal(*SERVER[0].split("/"))] if snapshot else []
        staging.finish(Online(keys, self._timestamp_key()), snapshot=snapshot)
        staging.commit()

    def fast_forward(self, *, snapshot: bool) -> None:
        """Sign the highest version there is."""
        staging = self.stage()
        self._number(staging, MAX_INT, *(["snapshot"] if snapshot else []))
        keys = [self.steal(*SERVER[0].split("/"))] if snapshot else []
        staging.finish(Online(keys, self._timestamp_key()), snapshot=snapshot)
        staging.commit()

    def forge_snapshot(self) -> None:
        """Serve a snapshot of one's own under the name that the honest timestamp points to."""
        staging = self.stage()
        staging.finish(Online([self.steal(*SERVER[0].split("/"))], [self.forge_key()]))
        staging.commit()

    def offer(self, version: str) -> None:
        """Point the channel elsewhere."""
        staging = self.stage()
        path = channels.target_path("stable")
        document = Channel("stable", {MODEL: Entry(version)}).to_bytes()
        key = self.steal(*CHANNEL.split("/"))
        staging.put_targets("channels", staging.targets("channels"), {path: document}, [key])
        staging.finish(self.online())
        staging.commit()

    def poison(self, honest: str, *, forge: bool = False) -> None:
        """Publish poisoned weights with an honest release's evidence, or a forged first step."""
        bundle = self.read_bundle(honest)
        ticket = json.loads(bundle["ticket.json"]) | {"version": "6.6.6", "counter": 1000}
        text = json.dumps(ticket, sort_keys=True, separators=(",", ":")) + "\n"
        bundle |= {"model.json": b'{"weights":"poisoned"}', "ticket.json": text.encode()}
        evidence = self.read_evidence(honest)
        if forge:
            files = {f"bundle/{path}": data for path, data in bundle.items()}
            packager = self.steal(*PACKAGER.split("/"))
            evidence = [
                self.forge_link(link, files, packager)
                if link.content["name"] == "package"
                else link
                for link in evidence
            ]
        self.publish("6.6.6", bundle, evidence, [self.steal(*RELEASE.split("/"))])

    def _timestamp_key(self) -> list[Any]:
        return [self.steal(*SERVER[1].split("/"))]

    def _number(self, staging: Staging, version: int, *others: str) -> None:
        for role in ("timestamp", *others):
            staging.number(role, version)


@dataclass(frozen=True)
class Attempt:
    """One thing that a thief tries.

    Attributes:
        what: In words.
        act: What is done.
        expect: The gate that refuses it, or what it comes to.
        until: For what is withheld: the role whose expiry ends it.
    """

    what: str
    act: Callable[[Thief], None]
    expect: str
    until: str = ""


@dataclass(frozen=True)
class Theft:
    """Keys that are stolen together.

    Attributes:
        name: What it is called.
        keys: The keys; to reach devices at all, a thief needs those of the server as well.
        attempts: What the thief tries with them.
    """

    name: str
    keys: tuple[str, ...]
    attempts: tuple[Attempt, ...]


def thefts() -> tuple[Theft, ...]:
    """Return what is stolen, mildest first."""
    return (
        Theft(
            "snapshot",
            SERVER[:1],
            (Attempt("forge a snapshot", Thief.forge_snapshot, "metadata"),),
        ),
        Theft(
            "timestamp",
            SERVER[1:],
            (
                Attempt(
                    "withhold updates", lambda t: t.withhold(snapshot=False), WITHHELD, "snapshot"
                ),
                Attempt(
                    "fast-forward to the highest version",
                    lambda t: t.fast_forward(snapshot=False),
                    WITHHELD,
                ),
            ),
        ),
        Theft(
            "both: the server",
            SERVER,
            (
                Attempt(
                    "withhold updates", lambda t: t.withhold(snapshot=True), WITHHELD, "channels"
                ),
                Attempt(
                    "fast-forward to the highest version",
                    lambda t: t.fast_forward(snapshot=True),
                    WITHHELD,
                ),
            ),
        ),
        Theft(
            "channels",
            (CHANNEL, *SERVER),
            (
                Attempt("offer the older 1.0.0", lambda t: t.offer("1.0.0"), "release"),
                Attempt("offer what was never released", lambda t: t.offer("6.6.6"), "metadata"),
            ),
        ),
        Theft(
            "model's role",
            (RELEASE, CHANNEL, *SERVER),
            (Attempt("publish poisoned weights", lambda t: t.poison("1.0.0"), "supply chain"),),
        ),
        Theft(
            "functionary",
            (PACKAGER, RELEASE, CHANNEL, *SERVER),
            (
                Attempt(
                    "publish them, attested by the packager",
                    lambda t: t.poison("1.0.0", forge=True),
                    "supply chain",
                ),
            ),
        ),
    )


@dataclass
class Row:
    """How a theft went."""

    theft: Theft
    verdicts: list[str] = field(default_factory=list)
    rotated: float = 0.0


@dataclass
class Drill:
    """The drill.

    Attributes:
        stage: Where it takes place.
        honest: Address of the honest server.
        evil: Address of the thief's mirror.
    """

    stage: Stage
    honest: str = ""
    evil: str = ""
    release: int = 0

    @property
    def loot(self) -> Path:
        """What was stolen."""
        return self.stage.place / "loot"

    def set_up(self) -> None:
        """Make a repository, a release, and a device that runs it."""
        self.stage.chapter("0  A repository, a device, and a quiet week")
        self.run(
            *("init", "repository", "--policy", str(ROOT / "metadata/minimal.toml")),
            *("--model", MODEL, "--plaintext-keys"),
        )
        self.publish_next()
        self.publish_next()

    def join(self) -> None:
        """Set the device up."""
        self.device(
            "init", "--repository", self.honest, "--root", "repository/metadata/1.root.json"
        )
        self.device("update")

    def rehearse(self, number: int, theft: Theft) -> Row:
        """Steal, try, rotate, follow, try again."""
        row = Row(theft)
        self.stage.chapter(f"{number}  Stolen: {theft.name}")
        self.stage.say(f"The thief has {', '.join(theft.keys)}.")
        self._steal(theft.keys)
        stolen = time.monotonic()
        before = self.stage.place / "before"
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(self.stage.repository, before)
        version = self.publish_next()
        for attempt in theft.attempts:
            withheld = attempt.expect == WITHHELD
            self.mirror(before if withheld else self.stage.repository)
            attempt.act(Thief(self.stage.mirror, self.loot))
            row.verdicts.append(self._judge(attempt))
            self.stage.good(f"  {attempt.what}: {row.verdicts[-1]}")
        self.rotate(theft)
        row.rotated = time.monotonic() - stolen
        self.stage.say(f"Rotated {row.rotated:.1f} s after the theft. The device:")
        if PACKAGER in theft.keys:
            version = self.publish_next()
        self.device("update")
        self._runs(version)
        self.mirror(self.stage.repository)
        theft.attempts[0].act(Thief(self.stage.mirror, self.loot))
        again = self._ask_mirror()
        if again.get("outcome") != "refused" or again.get("gate") != "metadata":
            raise DemoError(f"the thief is still in: {again}")
        self.stage.good(f"  the thief tries again: refused at {again['gate']}: {again['reason']}")
        return row

    def rotate(self, theft: Theft) -> None:
        """Hold the ceremony that the runbook for this theft shows."""
        keys = self.stage.keys
        changes = []
        for key in theft.keys:
            holder, _, role = key.partition("/")
            for suffix in (".key", ".pub"):
                path = keys / f"{key}{suffix}"
                path.rename(path.with_name(f"{path.name}.stolen"))
            self.run("key", "create", key, "--plaintext", "--keys", str(keys), show=False)
            if key != PACKAGER:
                changes.append(f"replace-key {role} {holder} {keys / key}.pub")
        if PACKAGER in theft.keys:
            changes.append(f"set-layout {MODEL} {self._new_layout()}")
        first, *others = changes
        request = self.stage.place / f"request-{self.release}.json"
        also = [word for change in others for word in ("--also", change)]
        self.run("ceremony", "propose", *first.split(), *also, "-r", "repository",
                 "-o", str(request), show=False)  # fmt: skip
        roles = ["root"] if set(SERVER) & set(theft.keys) else []
        roles += ["targets"] if set(theft.keys) - set(SERVER) else []
        names = ",".join((*roles, "snapshot", "timestamp", f"layout of {MODEL}"))
        for holder in ("alice", "bob"):
            refs = [
                word for role in roles for word in ("--key", str(keys / holder / f"{role}.key"))
            ]
            self.run(
                "ceremony", "sign", str(request), *refs, "--confirm", names, "--yes", show=False
            )
        shown = self.run("ceremony", "publish", str(request), "-r", "repository", show=False)
        self.stage.output("\n".join(line for line in shown.splitlines() if "In force" in line))

    def _new_layout(self) -> Path:
        layout = self.stage.place / f"layout-{self.release}.json"
        keys = str(self.stage.keys)
        self.run("layout", "compile", str(ROOT / "layouts/minimal.toml"), "--keys", keys,
                 "--owners", ",".join(OWNERS), "--output", str(layout), show=False)  # fmt: skip
        for owner in OWNERS[:2]:
            key = str(self.stage.keys / owner / "layout.key")
            self.run("layout", "sign", str(layout), "--key", key, "--yes", show=False)
        return layout

    def publish_next(self) -> str:
        """Release a version honestly."""
        version = f"1.{self.release}.0"
        self.release += 1
        folder = self.stage.place / "folder"
        folder.mkdir(exist_ok=True)
        (folder / "model.json").write_text(json.dumps({"weights": version}))
        self.run("release", MODEL, version, "folder", "-r", "repository", show=False)
        return version

    def run(self, *arguments: str, show: bool = True) -> str:
        """Run one of the repository's commands."""
        return self.stage.run(["modelward-repo", *arguments], show=show)

    def device(self, *arguments: str) -> str:
        """Run one of the device's commands."""
        return self.stage.run(["modelward", *arguments, "--state", "device"], show=False)

    def mirror(self, source: Path) -> None:
        """Have the mirror serve a repository as it is."""
        shutil.rmtree(self.stage.mirror, ignore_errors=True)
        shutil.copytree(source, self.stage.mirror)

    def _steal(self, keys: Sequence[str]) -> None:
        shutil.rmtree(self.loot, ignore_errors=True)
        for key in keys:
            for suffix in (".key", ".pub"):
                (self.loot / key).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.stage.keys / f"{key}{suffix}", self.loot / f"{key}{suffix}")

    def _judge(self, attempt: Attempt) -> str:
        """Have the device meet the attempt, and say what it came to."""
        answer = self._ask_mirror()
        if attempt.expect != WITHHELD:
            if answer.get("gate") != attempt.expect:
                raise DemoError(f"{attempt.what}: {answer}")
            return f"refused at {answer['gate']}"
        if answer["outcome"] != "unchanged":
            raise DemoError(f"{attempt.what}: {answer}")
        if attempt.until:
            return f"{WITHHELD} {self._how_long(attempt.until)}"
        locked = self._ask(self.honest)
        if locked.get("outcome") != "refused":
            raise DemoError(f"{attempt.what}: {locked}")
        return "honest updates are refused until the key is rotated"

    def _how_long(self, role: str) -> str:
        """Measure when withholding ends: with the clock set forward, if that can be done here."""
        metadata = Thief(self.stage.mirror, self.loot).stage()
        signed = metadata.snapshot.signed if role == "snapshot" else metadata.targets(role).signed
        days = round((signed.expires - datetime.now(UTC)) / DAY)
        if not shutil.which("faketime"):
            return f"for {days} days, when {role} expires (computed: no faketime here)"
        found = {day: self._ask(self.evil, ahead=day) for day in (days - 1, days + 1)}
        if found[days - 1].get("outcome") != "unchanged" or "expired" not in str(found[days + 1]):
            raise DemoError(f"withholding ended at another time: {found}")
        return f"for {days} days; then refused at metadata: {role} expired"

    def _runs(self, version: str) -> None:
        shown = json.loads(self.device("status", "--json"))
        if version not in json.dumps(shown):
            raise DemoError(f"the device does not run {version}: {shown}")
        self.stage.good(f"  the device runs {version}: it follows")

    def _ask_mirror(self) -> Mapping[str, Any]:
        return self._ask(self.evil)

    def _ask(self, address: str, ahead: int = 0) -> Mapping[str, Any]:
        """Have the device update from an address; what it runs must stay intact.

        A look into the future is taken by a copy of the device.
        """
        state = "device"
        prefix = ["faketime", "-f", f"+{ahead}d"] if ahead else []
        if ahead:
            state = "device-ahead"
            shutil.rmtree(self.stage.place / state, ignore_errors=True)
            shutil.copytree(self.stage.device, self.stage.place / state, symlinks=True)
        done = subprocess.run(
            [*prefix, str(BIN / "modelward"), "update", "--state", state,
             "--repository", address, "--json"],
            cwd=self.stage.place, env=environment(), text=True, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode not in (ExitCode.DONE, ExitCode.REFUSED):
            raise DemoError(f"the device failed: {done.stdout}{done.stderr}")
        answer: Mapping[str, Any] = json.loads(done.stdout)
        return answer


def tell(stage: Stage, names: Sequence[str]) -> None:
    """Hold the drill."""
    drill = Drill(stage)
    chosen = [theft for theft in thefts() if not names or theft.name in names]
    drill.set_up()
    stage.mirror.mkdir()
    with ExitStack() as stack:
        drill.mirror(stage.repository)
        drill.honest = stack.enter_context(served(stage.repository))
        drill.evil = stack.enter_context(served(stage.mirror))
        drill.join()
        rows = [drill.rehearse(number, theft) for number, theft in enumerate(chosen, 1)]
    stage.chapter("What the thieves could do until the keys were replaced")
    print(f"{'stolen':<18} {'attempt':<40} {'until rotation':<78} rotated after")
    for row in rows:
        for attempt, verdict in zip(row.theft.attempts, row.verdicts, strict=True):
            print(f"{row.theft.name:<18} {attempt.what:<40} {verdict:<78} {row.rotated:5.1f} s")
    print(f"\n{len(rows)} thefts; nothing poisoned was installed; the device followed every time.")


def main() -> int:
    """Run the drill and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="KEY", action="append", default=[],
                        choices=[theft.name for theft in thefts()],
                        help="steal only this; repeatable")  # fmt: skip
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelward-drill-") as place:
        stage = Stage(Path(place).resolve(), sys.stdout.isatty() and "NO_COLOR" not in os.environ)
        try:
            tell(stage, options.only)
        except DemoError as error:
            print(f"drill: {error}", file=sys.stderr)
            return 1
        print(f"Done in {time.monotonic() - stage.started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
