import contextlib
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import UsageError
from modelward_repo.roles.policy import TrustPolicy, role_name

METADATA = Path(__file__).parents[3] / "metadata"

HEAD = """
channels = ["stable"]
formats = ["onnx"]
"""
ROLE = '[roles.{0}]\nholders = ["a", "b"]\nthreshold = 2\nexpires = "{1}"\n'
ROLES = "".join(
    ROLE.format(name, period)
    for name, period in {
        "root": "365d",
        "targets": "365d",
        "snapshot": "7d",
        "timestamp": "12h",
        "channels": "30m",
    }.items()
)
MODEL = """
[model]
holders = ["ci"]
threshold = 1
expires = "90d"
layout = "../layouts/x.toml"
owners = ["c", "d"]
owners_threshold = 2
"""
GOOD = HEAD + ROLES + MODEL


def load(path: Path, text: str, *models: str) -> TrustPolicy:
    path /= "policy.toml"
    path.write_text(text)
    return TrustPolicy.load(path, models)


@pytest.mark.parametrize("name", ["minimal", "meter-reader"])
def test_the_policies_in_the_repository_are_good(name: str) -> None:
    policy = TrustPolicy.load(METADATA / f"{name}.toml", ["another"])
    for role in ("root", "targets"):
        assert policy.roles[role].threshold == 2
        assert len(policy.roles[role].holders) == 3
    assert policy.model("another").layout.is_file()
    assert policy.model("another").owners_threshold == 2


def test_a_policy_is_read(tmp_path: Path) -> None:
    policy = load(tmp_path, GOOD, "m")
    assert policy.roles["timestamp"].expires == timedelta(hours=12)
    assert policy.roles["channels"].expires == timedelta(minutes=30)
    assert policy.model("m").layout == tmp_path / "../layouts/x.toml"
    assert policy.model("m").role.holders == ("ci",)
    assert role_name("root") == "model-root"


def test_a_model_overrides_single_fields(tmp_path: Path) -> None:
    own = '[models.m]\nexpires = "1d"\nmetrics = [{file = "m.json", name = "acc", min = 0.9}]'
    policy = load(tmp_path, GOOD + own, "n", "m")
    assert policy.model("m").expires == timedelta(days=1)
    assert policy.model("m").holders == ("ci",)
    assert policy.model("m").metrics[0].least == 0.9
    assert policy.model("n").expires == timedelta(days=90)
    assert policy.model("n").metrics == ()
    assert list(policy.models) == ["m", "n"]


def test_a_model_nobody_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"policy.toml names no model 'x' \(it names: m\)"):
        load(tmp_path, GOOD, "m").model("x")


@pytest.mark.parametrize(
    ("old", "new", "where", "problem"),
    [
        ("channels = [", "chanels = [", "chanels", "is not a field"),
        ('["stable"]', '["Stable"]', "channels[0]", "not a name"),
        ('["stable"]', "[]", "channels", "is empty"),
        ('["onnx"]', '["pickle"]', "formats[0]", "not one of"),
        ("[roles.root]", "[roles.rot]", "roles.rot", "is not a field"),
        (ROLE.format("root", "365d"), "", "roles.root", "is missing"),
        ("threshold = 2", "threshold = 3", "roles.root.threshold", "only 2 holders"),
        ("threshold = 2", "threshold = 0", "roles.root.threshold", "from 1"),
        ("threshold = 2", 'threshold = "2"', "roles.root.threshold", "must be an integer"),
        ("threshold = 2", "threshold = true", "roles.root.threshold", "must be an integer"),
        ("threshold = 2", "", "roles.root.threshold", "is missing"),
        ('holders = ["a", "b"]', 'holders = ["a", "a"]', "roles.root.holders[1]", "twice"),
        ('holders = ["a", "b"]', 'holders = ["../a"]', "roles.root.holders[0]", "not a name"),
        ('holders = ["a", "b"]', "holders = []", "roles.root.holders", "is empty"),
        ('"365d"', '"1y"', "roles.root.expires", "not a period"),
        ('"365d"', '"0d"', "roles.root.expires", "not a period"),
        ('"365d"', "365", "roles.root.expires", "must be a string"),
        ("owners_threshold = 2", "owners_threshold = 3", "model.owners_threshold", "only 2"),
        ("owners_threshold = 2", "threshhold = 2", "model.threshhold", "is not a field"),
        ("[model]", "[modell]", "modell", "is not a field"),
    ],
)
def test_what_makes_no_sense_is_named_by_file_and_field(
    tmp_path: Path, old: str, new: str, where: str, problem: str
) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1), "m")
    assert str(tmp_path / "policy.toml") in caught.value.reason
    assert f" {where}: " in caught.value.reason
    assert problem in caught.value.reason


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('[models.m]\nlayouts = "x"', "models.m.layouts"),
        ('[models.m]\nexpires = "x"', "models.m.expires"),
        ('[models."No Name"]', "models"),
        ("[models.m]\nmetrics = [{file = 'a.json', name = 'x'}]", "models.m.metrics[0]"),
        (
            "[models.m]\nmetrics = [{file = '/a', name = 'x', min = 1}]",
            "models.m.metrics[0].file",
        ),
        (
            "[models.m]\nmetrics = [{file = 'a', name = 'x', mni = 1}]",
            "models.m.metrics[0].mni",
        ),
        ("[models.m]\nmetrics = [{file = 'a', name = 'x', min = nan}]", "models.m.metrics[0].min"),
    ],
)
def test_a_models_own_fields_are_checked(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, GOOD + text)
    assert f" {where}: " in caught.value.reason


def test_models_that_are_not_tables(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="models: must be an object"):
        load(tmp_path, "models = 3\n" + GOOD)
    with pytest.raises(UsageError, match=r"models\.m: must be an object"):
        load(tmp_path, GOOD + "[models]\nm = 0")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        TrustPolicy.load(tmp_path / "none.toml")
    (tmp_path / "policy.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not TOML"):
        TrustPolicy.load(tmp_path / "policy.toml")
    with pytest.raises(UsageError, match="is not TOML"):
        load(tmp_path, "channels = [")


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, child in children:
        found.append((*path, key))
        if isinstance(child, dict | list):
            found += _leaves(child, (*path, key))
    return found


@pytest.mark.fuzz
@given(st.data())
def test_whatever_stands_in_it_is_a_policy_or_an_error_that_names_the_field(data: Any) -> None:
    document = tomllib.loads(GOOD + "[models.m]\nexpires = '1d'\n")
    *above, last = data.draw(st.sampled_from(_leaves(document)))
    value = document
    for key in above:
        value = value[key]
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    )
    value[last] = data.draw(junk)
    from modelward.errors import FormatError  # noqa: PLC0415
    from modelward.formats.strict import Fields  # noqa: PLC0415

    with contextlib.suppress(FormatError):
        TrustPolicy._from_fields(Path("x"), Fields("x", document), ["n"])


def test_what_must_be_proven_on_devices(tmp_path: Path) -> None:
    health = "health = { required = true, latency_ms = 50, memory = 1000, tolerance = 0.01 }\n"
    gate = load(tmp_path, GOOD + health, "m").model("m").health
    assert gate.describe() == (
        "must be run with golden outputs, at most 50 ms a run, at most 1000 bytes of memory, "
        "outputs within 0.01"
    )
    assert load(tmp_path, GOOD, "m").model("m").health.describe() == ""
    with pytest.raises(UsageError, match=r"health.latency: is not a field here"):
        load(tmp_path, GOOD + "health = { latency = 50 }\n", "m")
    with pytest.raises(UsageError, match=r"health.latency_ms: must be more than 0"):
        load(tmp_path, GOOD + "health = { latency_ms = 0 }\n", "m")
