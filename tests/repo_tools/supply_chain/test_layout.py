"""The source of a layout: parsed strictly, compiled only if it proves something."""

import copy
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError, UsageError
from modelward.formats.dsse import Envelope
from modelward.trust.layout import Layout
from modelward.trust.links import signed_by
from modelward_repo.supply_chain.layout import LayoutSource, compile_layout, sign_layout
from tests.simulator.chain import LAYOUTS, NOW, HonestChain, People

MINIMAL = (LAYOUTS / "minimal.toml").read_text()
PEOPLE = People()


def parse(text: str) -> LayoutSource:
    return LayoutSource.parse("layouts/x.toml", text.encode())


def compiled(text: str, owners: tuple[str, ...] = ("lead-a",)) -> Envelope:
    source = parse(text)
    keys = {holder: PEOPLE.key(holder) for holder in source.holders}
    return compile_layout(source, keys, owners, NOW)


def problem(text: str, owners: tuple[str, ...] = ("lead-a",)) -> str:
    with pytest.raises(UsageError) as caught:
        compiled(text, owners)
    return caught.value.reason


# --- the sources that ship


@pytest.mark.parametrize("path", sorted(LAYOUTS.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_layouts_compile(path):
    source = LayoutSource.load(path)
    layout = Layout.from_content(compiled(path.read_text()).content)
    assert [step.name for step in layout.steps] == [step.name for step in source.steps]
    assert layout.expires == NOW + timedelta(days=365)
    assert layout.readme == source.readme


def test_meter_reader_has_nine_steps_and_twelve_links():
    source = LayoutSource.load(LAYOUTS / "meter-reader.toml")
    assert len(source.steps) == 9
    assert sum(step.threshold for step in source.steps) == 12
    assert source.shared == (frozenset({"evaluate", "evaluate-edge"}),)


def test_hardening_steps_of_the_readme_apply_one_after_the_other_and_compile():
    text = MINIMAL
    found = re.findall(r"```diff\n(.*?)```", (LAYOUTS / "README.md").read_text(), re.DOTALL)
    assert len(found) == 3
    for diff in found:
        lines = diff.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if not line.startswith("+"))
        new = "".join(line[1:] for line in lines if not line.startswith("-"))
        assert text.count(old) == 1, old
        text = text.replace(old, new)
        compiled(text)
    assert [step.name for step in parse(text).steps] == [
        "open-release",
        "train",
        "package",
        "approve",
    ]


# --- form


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('readme = "', 'redme = "', "redme: is not a field"),
        ("threshold = 1", "treshold = 1", "step[0].treshold: is not a field"),
        ('expires = "365d"', "", "expires: is missing"),
        ('expires = "365d"', "expires = 365", "expires: must be a string"),
        ('expires = "365d"', 'expires = "1y"', "expires: '1y' is not a period"),
        ('expires = "365d"', 'expires = "0d"', "expires: '0d' is not a period"),
        ('expires = "365d"', 'expires = "9999d"', "longer than 3650 days"),
        ('expires = "365d"', "expires = 2026-11-22T10:00:00Z", "expires: must be a string"),
        ('name = "package"', 'name = "Package"', "step[0].name"),
        ('name = "package"', 'name = "approve"', "'approve' appears twice"),
        ('["packager"]', "[]", "step[0].functionaries: is empty"),
        ('["packager"]', '["../packager"]', "step[0].functionaries[0]"),
        ('["packager"]', '["packager", "packager"]', "appears twice"),
        ('["packager"]', '"packager"', "step[0].functionaries: must be a list"),
        ("threshold = 1", "threshold = 2", "step[0].threshold: is 2, but only 1"),
        ("threshold = 1", "threshold = 0", "step[0].threshold"),
        ("threshold = 1", "threshold = true", "step[0].threshold"),
        ("threshold = 1", "threshold = 1.0", "step[0].threshold"),
        ("CREATE bundle/*", "CREATE", "step[0].products[1]: 'CREATE' is not an artifact rule"),
        ("CREATE bundle/*", "", "step[0].products[1]: '' is not an artifact rule"),
        ("CREATE bundle/*", "create bundle/*", "step[0].products[1]"),
        ('readme = "A', 'readme = "\\u001b[2J', "readme: has a control"),
        ('readme = "A', 'same_functionary = [["package"]]\nreadme = "A', "at least two steps"),
        ('readme = "A', 'same_functionary = [["package", "x"]]\nreadme = "A', "'x' is not a step"),
        ('readme = "A', 'same_functionary = ["package"]\nreadme = "A', "same_functionary[0]"),
        ('readme = "A', 'same_functionary = 1\nreadme = "A', "same_functionary: must be a list"),
        ("[[step]]", "[step]", "is not TOML"),
        ('readme = "A', 'readme = "x"\nreadme = "A', "is not TOML"),
    ],
)  # fmt: skip
def test_ill_formed_source_is_refused_by_file_and_field(old, new, reason):
    assert old in MINIMAL
    found = problem(MINIMAL.replace(old, new, 1))
    assert found.startswith("layouts/x.toml")
    assert reason in found


def test_bytes_that_are_not_text_are_refused():
    with pytest.raises(UsageError, match="UTF-8"):
        LayoutSource.parse("x.toml", b"\xff")


def test_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml cannot be read"):
        LayoutSource.load(tmp_path / "none.toml")


def test_no_steps_are_refused():
    with pytest.raises(UsageError, match="without steps"):
        parse('readme = "x"\nexpires = "1d"\nstep = []')


def test_period_in_hours():
    assert parse(MINIMAL.replace("365d", "12h")).expires == timedelta(hours=12)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.fuzz
@given(st.text(max_size=300) | st.sampled_from(MINIMAL.splitlines()))
def test_any_text_is_parsed_or_refused(text):
    for candidate in (text, MINIMAL + text, MINIMAL.replace("DISALLOW *", text)):
        try:
            compiled(candidate)
        except UsageError as error:
            assert error.reason.startswith("layouts/x.toml")  # noqa: PT017


@pytest.mark.fuzz
@given(st.data())
def test_any_line_left_out_or_doubled_is_parsed_or_refused(data):
    lines = MINIMAL.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(lines) - 1))
        lines[place] = data.draw(st.sampled_from(["", lines[place] * 2, *lines]))
    try:
        envelope = compiled("".join(lines))
    except UsageError:
        return
    Layout.from_content(envelope.content)


# --- what it proves


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('    "CREATE bundle/*",\n    "DISALLOW *"', '    "CREATE bundle/*"', "must end with"),
        ("CREATE bundle/*", "ALLOW bundle/*", "ALLOW lets"),
        ("CREATE bundle/*", "CREATE {x}", "parameter"),
        ('    "REQUIRE bundle/ticket.json",\n', "", "does not REQUIRE ticket.json"),
        ('["approver"]', '["packager"]', "packager may also do 'package'"),
        ('["approver"]', '["lead-a"]', "lead-a owns the layout"),
        ("FROM package", "FROM elsewhere", "step approve.materials[1]: refers to 'elsewhere'"),
        ('name = "approve"', 'name = "agree"', "must end with the step 'approve'"),
    ],
)
def test_layout_that_proves_too_little_does_not_compile(old, new, reason):
    assert old in MINIMAL
    assert reason in problem(MINIMAL.replace(old, new, 1))


def test_everything_wrong_is_listed_at_once():
    found = problem(MINIMAL.replace("CREATE", "ALLOW").replace('["approver"]', '["packager"]'))
    assert "ALLOW lets" in found
    assert "packager may also" in found


def test_match_needs_require_above_it():
    text = MINIMAL.replace(
        '"MATCH bundle/* WITH PRODUCTS FROM package"',
        '"MATCH bundle/model.onnx WITH PRODUCTS FROM package"',
    )
    assert "needs REQUIRE bundle/model.onnx above it" in problem(text)


def test_steps_may_share_people_where_the_source_says_so():
    text = MINIMAL.replace('["approver"]', '["packager"]')
    compiled('same_functionary = [["approve", "package"]]\n' + text)


def test_owner_is_found_by_key_id_too():
    owners = (PEOPLE.key("approver").keyid,)
    assert "approver owns the layout" in problem(MINIMAL, owners)


def test_two_holders_with_one_key_are_refused():
    source = parse(MINIMAL)
    keys = dict.fromkeys(source.holders, PEOPLE.key("same"))
    with pytest.raises(UsageError, match="have the same functionary key"):
        compile_layout(source, keys, [], NOW)


def test_missing_key_is_named_with_the_command_that_makes_it():
    with pytest.raises(UsageError, match="no functionary key of approver") as caught:
        compile_layout(parse(MINIMAL), {"packager": PEOPLE.key("packager")}, [], NOW)
    assert "key create approver/functionary" in caught.value.advice


# --- signatures


def test_owners_sign_one_after_the_other():
    envelope = compiled(MINIMAL)
    for owner in ("lead-a", "lead-b", "lead-a"):
        envelope = sign_layout(envelope, PEOPLE.signer(owner))
    assert len(envelope.signatures) == 2
    assert signed_by(envelope, PEOPLE.key("lead-a"))
    assert signed_by(envelope, PEOPLE.key("lead-b"))
    assert not signed_by(envelope, PEOPLE.key("lead-c"))
    assert Envelope.parse("layout", envelope.to_bytes()) == envelope


def test_functionary_cannot_sign_as_owner():
    with pytest.raises(UsageError, match="must not also vouch"):
        sign_layout(compiled(MINIMAL), PEOPLE.signer("approver"))


def test_what_a_device_would_refuse_is_not_signed():
    content: dict[str, Any] = copy.deepcopy(dict(compiled(MINIMAL).content))
    content["steps"][0]["expected_products"].pop()
    with pytest.raises(FormatError):
        sign_layout(Envelope.unsigned(content), PEOPLE.signer("lead-a"))
    with pytest.raises(FormatError):
        sign_layout(HonestChain().evidence[0], PEOPLE.signer("lead-a"))


def test_holders_are_listed_once_in_order():
    source = LayoutSource.load(Path(LAYOUTS / "meter-reader.toml"))
    assert source.holders[:2] == ("release-manager", "reviewer-a")
    assert source.holders.count("eval-ci") == 1
