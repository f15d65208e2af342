"""Doing a step: nobody signs work that rests on unproven input."""

import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from modelward.errors import ExitCode, FormatError, ModelwardError, Refused, UsageError
from modelward.formats.dsse import Envelope
from modelward.trust.links import read_artifacts
from modelward_repo.supply_chain import attest as attesting
from modelward_repo.supply_chain.attest import StepError, attest, link_name, load_links
from modelward_repo.supply_chain.manifest import manifest
from tests.simulator.chain import NOW, HonestChain, Link

PYTHON = (sys.executable, "-c")
MAKE_MODEL = "import os; os.makedirs('model'); open('model/w.npy', 'w').write('weights')"


class Team:
    """The nine steps' people, working in one directory."""

    def __init__(self, workspace: Path) -> None:
        self.chain = HonestChain()
        self.workspace = workspace
        self.links: list[Envelope] = []

    def write(self, path: str, content: bytes) -> None:
        (self.workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (self.workspace / path).write_bytes(content)

    def attest(self, step: str, holder: str, **changes) -> Envelope:
        parameters = {
            "workspace": self.workspace,
            "materials": (),
            "products": (),
            "manifests": (),
            "command": (),
            "signer": self.chain.people.signer(holder),
            "layout": self.chain.layout,
            "policy": self.chain.policy,
            "links": self.links,
            "now": NOW,
        }
        return attest(step, **(parameters | changes))

    def do(self, step: str, holder: str, **changes) -> Envelope:
        self.links.append(self.attest(step, holder, **changes))
        return self.links[-1]

    def open_release(self) -> None:
        self.write("ticket.json", self.chain.ticket.to_bytes())
        self.do("open-release", "release-manager", products=["ticket.json"])

    def until_train(self) -> None:
        self.open_release()
        self.write("code/train.py", b"train")
        for name in ("train", "holdout"):
            self.write(f"data/{name}/images.npy", name.encode())
            self.write(f"data/{name}.manifest", manifest(self.workspace, f"data/{name}"))
        for holder in ("reviewer-a", "reviewer-b"):
            self.do("review", holder, materials=["ticket.json"], products=["code"])
        for holder in ("data-a", "data-b"):
            self.do("ingest", holder, **INGEST)

    def train(self, **changes) -> Envelope:
        return self.attest("train", "train-ci", **(TRAIN | changes))


INGEST = {
    "materials": ["ticket.json"],
    "products": ["data/train.manifest", "data/holdout.manifest"],
    "manifests": [("data/train", "data/train.manifest"), ("data/holdout", "data/holdout.manifest")],
}
TRAIN = {
    "materials": ["ticket.json", "code", "data/train.manifest"],
    "products": ["model"],
    "manifests": [("data/train", "data/train.manifest")],
    "command": [*PYTHON, MAKE_MODEL],
}


@pytest.fixture
def team(tmp_path):
    return Team(tmp_path)


def refusal(call, *arguments, **changes) -> ModelwardError:
    with pytest.raises(ModelwardError) as caught:
        call(*arguments, **changes)
    return caught.value


# --- the whole chain, as its people do it


def test_nine_steps_make_evidence_that_a_device_accepts(team):
    team.until_train()
    team.links.append(team.train())
    team.write("metrics/float/metrics.json", team.chain.bundle["float/metrics.json"])
    both = ["ticket.json", "code", "data/holdout.manifest"]
    team.do("evaluate", "eval-ci", materials=[*both, "model"], products=["metrics/float"])
    team.write("edge/model.onnx", team.chain.bundle["model.onnx"])
    team.do("convert", "convert-ci", materials=["ticket.json", "code", "model"], products=["edge"])
    team.write("metrics/edge/metrics.json", team.chain.bundle["metrics.json"])
    team.write("metrics/edge/golden.json", team.chain.bundle["golden.json"])
    team.do("evaluate-edge", "eval-ci", materials=[*both, "edge"], products=["metrics/edge"])
    for path, content in team.chain.content.items():
        team.write(f"bundle/{path}", content)
    team.do(
        "package",
        "package-ci",
        materials=["ticket.json", "edge", "metrics"],
        products=["bundle"],
    )
    for holder in ("approver-a", "approver-c"):
        team.do("approve", holder, materials=["ticket.json", "bundle"], products=["bundle"])
    team.chain.verify(evidence=team.links)


def test_link_says_what_was_done_and_nothing_else(team):
    team.until_train()
    link = team.train()
    assert set(link.content) == {
        *("_type", "name", "command", "materials", "products", "byproducts", "environment")
    }
    assert link.content["command"] == [*PYTHON, MAKE_MODEL]
    assert link.content["byproducts"] == {"return-value": 0}
    assert link.content["environment"] == {}
    taken, made = read_artifacts(link)
    assert list(taken) == ["code/train.py", "data/train.manifest", "ticket.json"]
    assert list(made) == ["model/w.npy"]
    assert link_name(link) == f"train.{team.chain.people.key('train-ci').keyid[:8]}.link"


# --- before the command


@pytest.fixture
def ran(team):
    """Return a runner that notes that it was called, and a list of its calls."""
    calls: list[object] = []

    def run(command, workspace):
        calls.append(command)
        (workspace / "model").mkdir(exist_ok=True)
        (workspace / "model/w.npy").write_bytes(b"weights")
        return 0

    return run, calls


@pytest.mark.parametrize("missing", ["open-release", "review", "ingest"])
def test_missing_evidence_stops_before_the_command(team, ran, missing):
    team.until_train()
    run, calls = ran
    team.links = [link for link in team.links if link.content["name"] != missing]
    error = refusal(team.train, run=run)
    assert isinstance(error, Refused)
    assert missing in error.reason
    assert not calls


@pytest.mark.parametrize("path", ["code/train.py", "data/train.manifest", "ticket.json"])
def test_unproven_material_stops_before_the_command(team, ran, path):
    team.until_train()
    run, calls = ran
    team.write(path, b"poison")
    assert isinstance(refusal(team.train, run=run, manifests=()), Refused)
    assert not calls


def test_extra_material_stops_before_the_command(team, ran):
    team.until_train()
    run, calls = ran
    team.write("code/backdoor.py", b"import os")
    assert "code/backdoor.py" in refusal(team.train, run=run).reason
    assert not calls


def test_undeclared_material_stops_before_the_command(team, ran):
    team.until_train()
    run, calls = ran
    error = refusal(team.train, run=run, materials=["ticket.json", "code"], manifests=())
    assert "REQUIRE data/train.manifest" in error.reason
    assert not calls


def test_data_that_is_not_what_its_manifest_says_stops_before_the_command(team, ran):
    team.until_train()
    run, calls = ran
    team.write("data/train/images.npy", b"poison")
    assert "is not what data/train.manifest says" in refusal(team.train, run=run).reason
    assert not calls


def test_forged_link_of_an_earlier_step_stops_before_the_command(team, ran):
    team.until_train()
    run, calls = ran
    link = Link("review", "stranger", dict(team.links[1].content))
    team.links[1] = team.chain.sign(link)
    assert "may not do that step" in refusal(team.train, run=run).reason
    assert not calls


def test_only_a_functionary_of_the_step_may_do_it(team, ran):
    team.until_train()
    run, calls = ran
    error = refusal(team.train, run=run, signer=team.chain.people.signer("eval-ci"))
    assert isinstance(error, Refused)
    assert "may not do the step 'train'" in error.reason
    assert not calls


def test_unknown_step_is_refused_with_those_there_are(team):
    error = refusal(team.attest, "bake", "train-ci")
    assert error.exit_code is ExitCode.USAGE
    assert "open-release, review" in error.advice


def test_layout_without_its_owners_is_refused(team):
    team.until_train()
    layout = team.chain.signed_layout(team.chain.unsigned_layout, ["lead-a"])
    assert "2 of 3 must sign" in refusal(team.train, layout=layout).reason


def test_expired_layout_is_refused(team):
    team.until_train()
    assert "expired" in refusal(team.train, now=NOW + timedelta(days=366)).reason


def test_evidence_of_later_steps_is_not_looked_at(team):
    team.until_train()
    junk = team.chain.sign(Link("approve", "stranger", {"_type": "link", "name": "approve"}))
    team.links.append(junk)
    team.train()


# --- the command


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("raise SystemExit(3)", "exit status 3"),
        (f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})", "signal 9 (Killed)"),
    ],
)
def test_failed_command_leaves_no_link(team, code, how):
    team.until_train()
    error = refusal(team.train, command=[*PYTHON, code])
    assert isinstance(error, StepError)
    assert error.exit_code is ExitCode.ERROR
    assert how in error.reason
    assert "no link was written" in error.reason


@pytest.mark.parametrize("command", [["no-such-command"], ["./ticket.json"], ["nul\0"], [""]])
def test_command_that_cannot_run_leaves_no_link(team, command):
    team.until_train()
    error = refusal(team.train, command=command)
    assert isinstance(error, StepError)
    assert "could not be run" in error.reason


def test_command_runs_in_the_workspace_without_a_shell(team):
    team.until_train()
    check = f"import os, sys; {MAKE_MODEL}; sys.exit(sys.argv[1:] != ['$HOME', 'a b'])"
    team.train(command=[*PYTHON, check, "$HOME", "a b"])


def test_output_and_environment_are_not_recorded(team, monkeypatch, capfd):
    team.until_train()
    monkeypatch.setenv("TOKEN", "s3cr3t-in-the-environment")
    link = team.train(command=[*PYTHON, f"import os; print(os.environ['TOKEN']); {MAKE_MODEL}"])
    assert "s3cr3t" in capfd.readouterr().out
    assert b"s3cr3t" not in link.payload


# --- after the command


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("open('code/train.py', 'a').write('x')", "'code/train.py'"),
        ("open('code/left.pyc', 'w')", "'code/left.pyc'"),
        ("os.remove('ticket.json')", "ticket.json"),
        ("open('data/train/images.npy', 'w').write('x')", "data/train"),
    ],
)
def test_command_that_changes_its_materials_is_refused(team, change, named):
    team.until_train()
    error = refusal(team.train, command=[*PYTHON, f"{MAKE_MODEL}; {change}"])
    assert named in error.reason


@pytest.mark.parametrize("products", [[], ["model", "ticket.json"], ["nothing"]])
def test_products_must_be_as_the_layout_demands(team, products):
    team.until_train()
    team.write("x", b"")
    if not products:  # CREATE lets a step make nothing; what needs the model finds none
        team.links.append(team.train(products=products))
        error = refusal(
            team.attest, "convert", "convert-ci", materials=["ticket.json", "code", "model"]
        )
    else:
        error = refusal(team.train, products=products)
    assert isinstance(error, Refused | UsageError)


def test_link_that_a_device_could_not_read_is_not_signed(team, monkeypatch):
    monkeypatch.setattr("modelward.formats.dsse.ENVELOPE_CAP", 3000)
    team.until_train()
    files = "import os; os.makedirs('model'); [open(f'model/{i}', 'w') for i in range(99)]"
    error = refusal(team.train, command=[*PYTHON, files])
    assert "--manifest DIR=FILE" in error.advice


# --- several people


def test_second_functionary_must_agree_with_the_first(team):
    team.open_release()
    team.write("code/train.py", b"train")
    review = {"materials": ["ticket.json"], "products": ["code"]}
    team.do("review", "reviewer-a", **review)
    team.write("code/train.py", b"train differently")
    assert "disagree" in refusal(team.attest, "review", "reviewer-b", **review).reason
    team.write("code/train.py", b"train")
    team.do("review", "reviewer-b", **review)
    team.do("review", "reviewer-c", **review)


def test_junk_beside_ones_own_link_is_refused(team):
    team.open_release()
    team.write("code/train.py", b"train")
    review = {"materials": ["ticket.json"], "products": ["code"]}
    link = team.attest("review", "reviewer-a", **review)
    forged = Envelope(link.payload, link.content, {next(iter(link.signatures)): b"x" * 64})
    team.links.append(forged)
    assert isinstance(refusal(team.attest, "review", "reviewer-b", **review), Refused)


def test_doing_a_step_again_does_not_compare_with_oneself(team):
    team.open_release()
    team.write("ticket.json", b"another")
    team.attest("open-release", "release-manager", products=["ticket.json"])


# --- manifests


def test_manifest_that_is_not_recorded_is_refused(team):
    team.until_train()
    with pytest.raises(UsageError, match="neither a material nor a product"):
        team.train(materials=["ticket.json", "code"])


def test_manifest_in_a_recorded_directory_counts_as_recorded(team):
    team.open_release()
    team.write("data/train/a", b"1")
    team.write("sets/train.manifest", manifest(team.workspace, "data/train"))
    pairs = [("data/train", "sets/train.manifest")]
    error = refusal(
        team.attest,
        "ingest",
        "data-a",
        materials=["ticket.json"],
        products=["sets"],
        manifests=pairs,
    )
    assert "REQUIRE data/train.manifest" in error.reason
    team.write("data/train/a", b"2")
    error = refusal(
        team.attest,
        "ingest",
        "data-a",
        materials=["ticket.json"],
        products=["sets"],
        manifests=pairs,
    )
    assert "is not what" in error.reason


# --- files of links


def test_links_are_read_from_a_directory(team, tmp_path):
    folder = tmp_path / "links"
    assert load_links(folder) == ()
    folder.mkdir()
    for link in team.chain.evidence:
        (folder / link_name(link)).write_bytes(link.to_bytes())
    (folder / "notes.txt").write_text("not a link")
    assert len(load_links(folder)) == 12
    (folder / "junk.link").write_text("junk")
    with pytest.raises(FormatError, match=r"junk\.link"):
        load_links(folder)
    (folder / "junk.link").unlink()
    (folder / "gone.link").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"gone\.link"):
        load_links(folder)


def test_too_many_links_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(attesting, "MAX_LINKS", 1)
    for name in "ab":
        (tmp_path / f"{name}.link").touch()
    with pytest.raises(UsageError, match="more than 1 links"):
        load_links(tmp_path)
