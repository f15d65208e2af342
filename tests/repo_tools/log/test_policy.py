"""The table [log] of a trust policy."""

from pathlib import Path

import pytest

from modelward.errors import UsageError
from modelward_repo.roles.policy import LogTrust, TrustPolicy
from tests.repo_tools.log.site import NAMES, cosigning_key
from tests.repo_tools.site import ROOT

WITNESSED = (ROOT / "metadata/witnessed.toml").read_text()


def load(place: Path, text: str) -> LogTrust:
    for name in NAMES:
        (place / f"{name}.vkey").write_text(f"{cosigning_key(name).vkey}\n")
    (place / "policy.toml").write_text(text)
    log = TrustPolicy.load(place / "policy.toml").log
    assert log
    return log


def test_the_example_is_read(tmp_path: Path) -> None:
    log = load(tmp_path, WITNESSED)
    assert log.origin == "models.example.com/log"
    assert log.witnesses == {name: cosigning_key(name).vkey for name in NAMES}
    assert log.urls["w1"] == "https://w1.example.org"


def test_a_vkey_may_stand_in_the_policy_itself(tmp_path: Path) -> None:
    vkey = cosigning_key("w1").vkey
    text = WITNESSED.replace('{ vkey = "w1.vkey", url = "https://w1.example.org" }', f'"{vkey}"')
    log = load(tmp_path, text)
    assert log.witnesses["w1"] == vkey
    assert "w1" not in log.urls


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("threshold = 2, members", "threshold = 4, members", "quorum"),
        ('"w3"] }', '"w4"] }', "which is not a witness"),
        ('"w2.vkey"', '"w1.vkey"', "has the same key as w1"),
        ('"w2.vkey"', '"w9.vkey"', "neither a vkey nor a file"),
        ("https://w2", "gopher://w2", "not the address of a witness"),
        ('origin = "models.example.com/log"', 'origin = "a b"', "no spaces"),
        ('origin = "models.example.com/log"', "", "origin"),
        ('holder = "repository"\nquorum', 'holder = "../x"\nquorum', "holder"),
        ("[log]\n", "[log]\nthreshold = 1\n", "is not a field here"),
    ],
)
def test_what_makes_no_sense_is_told(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in WITNESSED
    with pytest.raises(UsageError, match=problem):
        load(tmp_path, WITNESSED.replace(old, new))
