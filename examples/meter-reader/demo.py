"""The whole of modelward in one story: a real model goes from data to a device, thieves do not.

Run it with `make demo`. Everything is real: keys, signatures, training, an HTTP server, a device
in a directory of its own. Nothing leaves this machine.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import pipeline
from attacker import Attacker
from stage import BIN, ROOT, DemoError, Stage, environment, served

from modelward.errors import ExitCode
from modelward.formats import dsse
from modelward_repo.publish.staging import Online

MODEL = "meter-reader"
REFUSED = int(ExitCode.REFUSED)
NONE = "none"


def set_up(stage: Stage) -> None:
    """Chapter 1: the security team."""
    stage.chapter("1  The security team sets up trust")
    stage.say(
        """Alice, Bob and Carol hold the offline keys: two of three must sign. They delegate: the
        model's release CI may say what a release is, the operator which release is current, the
        server only that it is fresh. Three ML leads own the layout: who must do which step of
        making the model. (Keys stay readable here only so that nobody has to type passphrases.)"""
    )
    stage.run(
        ["modelward-repo", "init", "repository", "--policy",
         str(ROOT / "metadata" / "meter-reader.toml"), "--plaintext-keys"]
    )  # fmt: skip


def make_release(stage: Stage, version: str, change: Callable[[Path], None] | None = None) -> Path:
    """Take a version through all nine steps; return the team's folder."""
    work = stage.place / "team" / version
    layout, policy = stage.place / "team" / "layout.json", stage.place / "team" / "policy.json"
    get_target(stage, f"layouts/{MODEL}.json", layout)
    get_target(stage, f"policies/{MODEL}.json", policy)
    team = pipeline.Team(
        work=work,
        keys=stage.keys,
        layout=layout,
        policy=policy,
        repository=stage.repository,
        run=lambda arguments, folder: stage.output(_last(stage.run(arguments, folder, show=False))),
    )
    team.open_release(version)
    for step in pipeline.STEPS:
        team.do(step, change if step.name == "review" else None)
    return work


def _last(text: str) -> str:
    """Return what a step's command and its attestation each said last."""
    return "\n".join(text.strip().splitlines()[-2:])


def get_target(stage: Stage, path: str, to: Path) -> None:
    """Get what steps are held against out of the repository, verified."""
    stage.run(
        ["modelward-repo", "target", path, "--output", str(to), "--repository", "repository"],
        show=False,
    )


def publish(stage: Stage, version: str, work: Path, expect: int = 0) -> None:
    """Publish what the team approved."""
    stage.run(
        ["modelward-repo", "publish", MODEL, version, str(work / "approver-a" / "bundle"),
         "--evidence", str(work / "links"), "--repository", "repository"],
        expect=expect,
    )  # fmt: skip


def offer(stage: Stage, version: str) -> None:
    """Offer a version on the channel."""
    stage.run(
        ["modelward-repo", "channel", "set", "stable", MODEL, version, "--repository", "repository"]
    )


def improve(workspace: Path) -> None:
    """Change the training code for 1.1.0: another seed finds better weights."""
    _edit(workspace / "code" / "train.py", "SEED = 0", "SEED = 7")


def spoil(workspace: Path) -> None:
    """Change the training code for 1.2.0: stop after one epoch, and everybody signs it."""
    _edit(workspace / "code" / "train.py", "EPOCHS = 200", "EPOCHS = 1")


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    if old not in text:
        raise DemoError(f"{path.name} has no {old!r} to change")
    path.write_text(text.replace(old, new), "utf-8")


@dataclass(frozen=True)
class Attack:
    """One attack: what is done, and which gate must refuse it."""

    name: str
    stolen: str
    gate: str
    act: Callable[[Attacker], None]


def attacks(bad: Path) -> list[Attack]:
    """Return what is tried while 1.0.0 runs, mildest theft first.

    Args:
        bad: The folder of the team that made the bad 1.2.0.
    """

    def poison(attacker: Attacker) -> dict[str, bytes]:
        bundle = attacker.read_bundle("1.0.0")
        weights = bytearray(bundle["model.onnx"])
        weights[len(weights) // 2 :: 7] = bytes(len(weights[len(weights) // 2 :: 7]))
        return bundle | {"model.onnx": bytes(weights)}

    def renamed(attacker: Attacker, bundle: dict[str, bytes], version: str) -> dict[str, bytes]:
        ticket = json.loads(attacker.read_bundle("1.0.0")["ticket.json"])
        ticket |= {"version": version, "counter": 1000}
        text = json.dumps(ticket, sort_keys=True, separators=(",", ":"))
        return bundle | {"ticket.json": text.encode() + b"\n"}

    def swapped_weights(attacker: Attacker) -> None:
        honest = attacker.read_bundle("1.1.0")["model.onnx"]
        attacker.swap_file("1.1.0", "model.onnx", honest[:-1] + b"!")

    def strangers(attacker: Attacker) -> None:
        bundle = renamed(attacker, poison(attacker), "6.6.6")
        key = [attacker.forge_key()]
        evidence = attacker.read_evidence("1.0.0")
        attacker.publish("6.6.6", bundle, evidence, key, Online(key, key))

    def release_key(attacker: Attacker) -> None:
        bundle = renamed(attacker, poison(attacker), "6.6.6")
        key = attacker.steal("release-ci", f"model-{MODEL}")
        attacker.publish("6.6.6", bundle, attacker.read_evidence("1.0.0"), [key])

    def relabelled(attacker: Attacker) -> None:
        key = attacker.steal("release-ci", f"model-{MODEL}")
        bundle = renamed(attacker, attacker.read_bundle("1.0.0"), "6.6.6")
        attacker.publish("6.6.6", bundle, attacker.read_evidence("1.0.0"), [key])

    def package_ci(attacker: Attacker) -> None:
        bundle = renamed(attacker, poison(attacker), "6.6.6")
        products = {f"bundle/{path}": data for path, data in bundle.items()}
        thief = attacker.steal("package-ci", "functionary")
        evidence = [
            attacker.forge_link(link, products, thief)
            if link.content["name"] == "package"
            else link
            for link in attacker.read_evidence("1.0.0")
        ]
        key = attacker.steal("release-ci", f"model-{MODEL}")
        attacker.publish("6.6.6", bundle, evidence, [key])

    def bad_model(attacker: Attacker) -> None:
        folder = bad / "approver-a" / "bundle"
        bundle = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        evidence = [
            dsse.Envelope.parse("link", path.read_bytes())
            for path in sorted((bad / "links").glob("*.link"))
        ]
        key = attacker.steal("release-ci", f"model-{MODEL}")
        attacker.publish("1.2.0", bundle, evidence, [key])

    return [
        Attack("A mirror swaps the weights", NONE, "fetch", swapped_weights),
        Attack("A stranger signs poisoned weights", NONE, "metadata", strangers),
        Attack(
            "Release CI is broken into: poisoned weights, honest evidence",
            "server, release, channel",
            "supply chain",
            release_key,
        ),
        Attack(
            "... and honest old files under a new version",
            "server, release, channel",
            "supply chain",
            relabelled,
        ),
        Attack(
            "... and the package job too: its evidence is forged",
            "server, release, channel, package",
            "supply chain",
            package_ci,
        ),
        Attack(
            "... and the bad 1.2.0 is published without asking",
            "server, release, channel",
            "policy",
            bad_model,
        ),
    ]


@dataclass(frozen=True)
class Result:
    """How an attack went."""

    attack: Attack
    gate: str
    intact: bool
    reason: str


def try_attack(stage: Stage, attack: Attack, address: str) -> Result:
    """Let somebody attack the device, and see what the device does.

    Who has no keys has a mirror of their own; who has keys publishes on the real server. The
    operator then offers the honest release again, as one would.
    """
    stage.say(f"{attack.name} (stolen keys: {attack.stolen})")
    shutil.rmtree(stage.mirror, ignore_errors=True)
    if attack.stolen != NONE:
        attack.act(Attacker(stage.repository, stage.keys))
    shutil.copytree(stage.repository, stage.mirror)
    if attack.stolen == NONE:
        attack.act(Attacker(stage.mirror, stage.keys))
    result = _judge(stage, attack, address)
    stage.good(f"  refused at {result.gate}: {result.reason}")
    if attack.stolen != NONE:
        offer(stage, "1.1.0")
    return result


def _judge(stage: Stage, attack: Attack, address: str) -> Result:
    arguments = ["modelward", "update", "--state", "device", "--repository", address, "--json"]
    done = subprocess.run(
        [str(BIN / arguments[0]), *arguments[1:]],
        cwd=stage.place,
        env=environment(),
        text=True,
        capture_output=True,
        check=False,
    )
    answer = json.loads(done.stdout)
    verified = subprocess.run(
        [str(BIN / "modelward"), "verify", "--state", "device"],
        cwd=stage.place,
        capture_output=True,
        check=False,
    )
    result = Result(
        attack,
        gate=answer.get("gate") or "INSTALLED",
        intact=verified.returncode == 0,
        reason=answer.get("reason", "the device took it"),
    )
    if done.returncode != REFUSED or result.gate != attack.gate or not result.intact:
        raise DemoError(f"{attack.name}: {done.stdout}{done.stderr}{verified.stdout!r}")
    return result


def table(stage: Stage, results: Sequence[Result]) -> None:
    """Print how all attacks went."""
    stage.say("")
    header = f"{'attack':<62} {'stolen keys':<34} refused at"
    print(header)
    print("-" * (len(header) + 8))
    for result in results:
        print(f"{result.attack.name:<62} {result.attack.stolen:<34} {result.gate}")
    print(
        f"\n{len(results)} attacks, {len(results)} refused; the model that ran before still ran "
        "after each, and verified."
    )


def tell(stage: Stage) -> None:
    """Tell the whole story."""
    set_up(stage)

    stage.chapter("2  The team makes meter-reader 1.0.0")
    stage.say(
        """Nine steps, twelve signatures. Whoever signs a step first verifies the evidence of the
        steps before it. Two people review the code, two export the data independently and must
        get the same bytes, and whoever trains is not who evaluates. The options that name each
        step's files are left out here; pipeline.py has them."""
    )
    work = make_release(stage, "1.0.0")

    stage.chapter("3  Release CI publishes it; the operator offers it")
    stage.say(
        """publish takes the release through the device's own gates first: what a device would
        refuse cannot be published. It reads three online keys, and no other."""
    )
    publish(stage, "1.0.0", work)
    offer(stage, "1.0.0")
    before = stage.place / "last-week"
    shutil.copytree(stage.repository, before)

    stage.chapter("4  A device in the field")
    stage.say("It trusts one file it was given on the way: version 1 of root. All else follows.")
    with served(stage.repository) as address:
        stage.run(["modelward", "init", "--repository", address, "--root",
                   "repository/metadata/1.root.json", "--state", "device",
                   "--label", "site=plant-7"])  # fmt: skip
        stage.run(["modelward", "update", "--state", "device"])
        stage.say("The model is used: onnxruntime reads four digits of a meter's display.")
        stage.run(["python", str(HERE / "read_meter.py"), "--state", "device"])
        stage.say("Why does the device trust it? (explain.svg is the same as a picture.)")
        stage.run(["modelward", "explain", MODEL, "--state", "device", "--svg", "explain.svg"])

        stage.chapter("5  meter-reader 1.1.0: other code, the same nine steps")
        stage.say("Two reviewers sign a change of the training code; everything is made anew.")
        publish(stage, "1.1.0", make_release(stage, "1.1.0", improve))
        offer(stage, "1.1.0")

    stage.chapter("6  meter-reader 1.2.0: an honest chain, a bad model")
    stage.say(
        """Somebody stops training after one epoch; everybody signs without looking at the figures.
        Every step is proven, but policy demands an accuracy of 0.95, attested by who evaluated."""
    )
    bad = make_release(stage, "1.2.0", spoil)
    publish(stage, "1.2.0", bad, expect=REFUSED)

    stage.chapter("7  Now the same device, and somebody who owns its mirror")
    results = []
    shutil.copytree(stage.repository, stage.mirror)
    with served(stage.mirror) as address:
        results += [try_attack(stage, attack, address) for attack in attacks(bad)]

    stage.chapter("8  The honest update goes through")
    with served(stage.repository) as address:
        stage.run(["modelward", "update", "--state", "device", "--repository", address])
    with served(stage.mirror) as address:
        replayed = Attack(
            "The whole repository of last week is served again",
            NONE,
            "metadata",
            lambda attacker: attacker.replay(before),
        )
        results.append(try_attack(stage, replayed, address))
        stage.say("A power cut empties what TUF remembers. The device keeps floors of its own:")
        for path in (stage.device / "tuf").glob("*.json"):
            path.unlink()
        forgetful = Attack(
            "... and the device has lost TUF's cache", NONE, "metadata", replayed.act
        )
        results.append(try_attack(stage, forgetful, address))

    stage.chapter("9  What was tried")
    table(stage, results)


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", metavar="DIR", type=Path, help="leave everything in DIR")
    options = parser.parse_args()
    temporary = None
    if options.keep:
        if options.keep.exists() and any(options.keep.iterdir()):
            print(f"{options.keep} is not empty: name another directory", file=sys.stderr)
            return 2
        options.keep.mkdir(parents=True, exist_ok=True)
        place = options.keep.resolve()
    else:
        temporary = tempfile.TemporaryDirectory(prefix="modelward-demo-")
        place = Path(temporary.name).resolve()
    stage = Stage(place, colours=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    try:
        tell(stage)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        if temporary:
            temporary.cleanup()
    seconds = time.monotonic() - stage.started
    print(f"Done in {seconds:.0f} s.", end=" ")
    if options.keep:
        print(f"The repository, the keys and the device are in {options.keep}; open explain.svg.")
    else:
        print("Run `make demo KEEP=dir` to keep the repository and the device to look at.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
