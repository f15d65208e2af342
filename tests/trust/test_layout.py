"""What a layout must be before any link is held against it."""

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.formats.policy import Key
from modelward.trust.layout import Layout, Match, check_rule, match_rule, problems
from tests.simulator.chain import HonestChain, People

CHAIN = HonestChain()
Content = dict[str, Any]


def content() -> Content:
    return copy.deepcopy(dict(CHAIN.unsigned_layout.content))


def step(layout: Content, name: str) -> Content:
    return next(step for step in layout["steps"] if step["name"] == name)


def refusal(layout: Any) -> FormatError:
    with pytest.raises(FormatError) as caught:
        Layout.from_content(layout)
    return caught.value


def test_honest_layout_is_read_and_written_back():
    layout = Layout.from_content(content())
    assert len(layout.steps) == 9
    assert layout.steps[-1].name == "approve"
    assert layout.to_content() == content()
    assert not list(problems(layout, CHAIN.policy.owners.values()))


def test_what_a_step_builds_upon_is_found_transitively_and_in_order():
    layout = Layout.from_content(content())
    assert layout.consumed_by("open-release") == ()
    assert layout.consumed_by("train") == ("open-release", "review", "ingest")
    assert layout.consumed_by("convert") == (
        "open-release",
        "review",
        "ingest",
        "train",
        "evaluate",
    )
    assert layout.consumed_by("no such step") == ()


Change = Callable[[Content], Any]


def rules(name: str, kind: str, found: list[list[str]]) -> Change:
    return lambda layout: step(layout, name).update({f"expected_{kind}": found})


def first(name: str, kind: str, *rule: str) -> Change:
    """Put a rule in front of an honest list."""
    return lambda layout: step(layout, name)[f"expected_{kind}"].insert(0, list(rule))


def hold_back_final_rule(layout: Content) -> None:
    step(layout, "train")["expected_products"].pop()


def drop_require(layout: Content) -> None:
    step(layout, "train")["expected_materials"].remove(["REQUIRE", "ticket.json"])


def match_before_require(layout: Content) -> None:
    found = step(layout, "train")["expected_materials"]
    found[0], found[1] = found[1], found[0]


def shout_a_key(layout: Content) -> None:
    """Add a functionary's key once more, spelt in capitals: another id, the same key."""
    keyid = step(layout, "train")["pubkeys"][0]
    public = layout["keys"][keyid]["keyval"]["public"].upper()
    key = Key("", "ed25519", "ed25519", public)
    layout["keys"][key.fingerprint()] = key.to_dict()
    step(layout, "train")["pubkeys"].append(key.fingerprint())
    step(layout, "train")["threshold"] = 2


def rename_a_key(layout: Content) -> None:
    keyid = step(layout, "train")["pubkeys"][0]
    layout["keys"]["0" * 64] = layout["keys"][keyid]


def swap_steps(layout: Content) -> None:
    steps = layout["steps"]
    steps[3], steps[4] = steps[4], steps[3]


INSPECTION = {
    "_type": "inspection",
    "name": "look",
    "run": ["touch", "/tmp/owned"],
    "expected_materials": [],
    "expected_products": [],
}
STAR = ["DISALLOW", "*"]

WEAK: dict[str, tuple[Change, str]] = {
    "another type": (lambda layout: layout.update(_type="link"), "_type"),
    "no steps": (lambda layout: layout.update(steps=[]), "without steps"),
    "inspection": (lambda layout: layout.update(inspect=[INSPECTION]), "inspection"),
    "inspections missing": (lambda layout: layout.pop("inspect"), "inspect: is missing"),
    "step twice": (lambda layout: layout["steps"].insert(0, layout["steps"][0]), "twice"),
    "no approval": (lambda layout: layout["steps"].pop(), "must end with the step 'approve'"),
    "globbing step name": (lambda layout: layout["steps"][0].update(name="*"), "not a step name"),
    "empty step name": (lambda layout: layout["steps"][0].update(name=""), "not a step name"),
    "key under two ids": (rename_a_key, "not the hash"),
    "key spelt twice": (shout_a_key, "keyval.public"),
    "unknown functionary": (lambda x: step(x, "train").update(pubkeys=["f" * 64]), "not among"),
    "functionary twice": (lambda x: step(x, "train").update(pubkeys=["f" * 64] * 2), "twice"),
    "threshold 0": (lambda layout: step(layout, "train").update(threshold=0), "threshold"),
    "threshold true": (lambda layout: step(layout, "train").update(threshold=True), "threshold"),
    "threshold too large": (lambda x: step(x, "train").update(threshold=2), "larger"),
    "nobody may": (lambda layout: step(layout, "train").update(pubkeys=[]), "larger"),
    "no rules": (rules("train", "products", []), "must end with DISALLOW *"),
    "open end": (hold_back_final_rule, "must end with DISALLOW *"),
    "ALLOW": (first("train", "materials", "ALLOW", "*"), "ALLOW lets"),
    "CREATE of materials": (first("train", "materials", "CREATE", "*"), "CREATE lets"),
    "DELETE of materials": (first("train", "materials", "DELETE", "*"), "DELETE lets"),
    "MODIFY of materials": (first("train", "materials", "MODIFY", "*"), "MODIFY lets"),
    "DELETE of products": (first("train", "products", "DELETE", "*"), "DELETE never"),
    "no REQUIRE": (drop_require, "needs REQUIRE ticket.json"),
    "REQUIRE too late": (match_before_require, "needs REQUIRE ticket.json"),
    "REQUIRE after glob": (
        rules("review", "products", [["CREATE", "code/*"], ["REQUIRE", "code/a"], STAR]),
        "comes too late",
    ),
    "REQUIRE of a pattern": (first("train", "products", "REQUIRE", "model/*"), "one file"),
    "parameter": (first("train", "products", "CREATE", "{anything}"), "parameter"),
    "lower case": (first("train", "products", "create", "model/*"), "not an artifact rule"),
    "no pattern": (first("train", "products", "CREATE"), "not an artifact rule"),
    "empty pattern": (first("train", "products", "CREATE", ""), "not an artifact rule"),
    "escape sequence": (first("train", "products", "CREATE", "\x1b[2J"), "not an artifact rule"),
    "rule of numbers": (rules("train", "products", [["CREATE", 1]]), "list of strings"),
    "rule is a string": (rules("train", "products", ["CREATE *"]), "list of strings"),
    "vouches for itself": (
        first("train", "materials", "MATCH", "x/*", "WITH", "PRODUCTS", "FROM", "train"),
        "cannot vouch for its own",
    ),
    "products by products": (
        first("train", "products", "MATCH", "x/*", "WITH", "PRODUCTS", "FROM", "train"),
        "cannot vouch for its own",
    ),
    "looks ahead": (
        first("train", "materials", "MATCH", "x/*", "WITH", "PRODUCTS", "FROM", "evaluate"),
        "not an earlier step",
    ),
    "looks nowhere": (
        first("train", "materials", "MATCH", "x/*", "WITH", "PRODUCTS", "FROM", "nowhere"),
        "not an earlier step",
    ),
    "wrong order": (swap_steps, "not an earlier step"),
    "expiry is no time": (lambda layout: layout.update(expires="2026-13-01T00:00:00Z"), "expires"),
    "readme clears the screen": (lambda layout: layout.update(readme="\x1b[2J"), "readme"),
}


@pytest.mark.parametrize("name", WEAK)
def test_weak_layout_is_refused(name):
    change, reason = WEAK[name]
    layout = content()
    change(layout)
    assert reason in str(refusal(layout))


def test_products_may_be_taken_over_from_the_steps_own_materials():
    layout = content()
    first("approve", "products", "MATCH", "bundle/*", "WITH", "MATERIALS", "FROM", "approve")(
        layout
    )
    step(layout, "approve")["expected_products"] = [
        rule for rule in step(layout, "approve")["expected_products"] if rule[0] != "REQUIRE"
    ]
    Layout.from_content(layout)


def test_owner_as_functionary_is_found_even_under_another_scheme():
    people = People()
    layout = Layout.from_content(content())
    keyid, key = next(iter(layout.keys.items()))
    owner = Key("f" * 64, "other", "other", key.public)
    assert list(problems(layout, [people.key("stranger"), owner])) == [
        (f"keys.{keyid}", "an owner of the layout must not be a functionary in it")
    ]


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        ("MATCH a WITH PRODUCTS FROM s", Match("a", "", "products", "", "s")),
        ("MATCH a IN b WITH MATERIALS FROM s", Match("a", "b", "materials", "", "s")),
        ("MATCH a WITH PRODUCTS IN c FROM s", Match("a", "", "products", "c", "s")),
        ("MATCH a IN b/ WITH PRODUCTS IN c FROM s", Match("a", "b/", "products", "c", "s")),
        ("MATCH WITH IN IN WITH PRODUCTS FROM FROM", Match("WITH", "IN", "products", "", "FROM")),
    ],
)
def test_match_rules_are_taken_apart(rule, match):
    assert match_rule(check_rule(rule.split())) == match
    assert match.path == (f"{match.prefix.rstrip('/')}/{match.pattern}" if match.prefix else "a")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.fuzz
@given(st.data())
def test_any_change_of_a_layout_is_read_or_refused_and_never_crashes(data):
    """Replace any value anywhere in an honest layout by any JSON."""
    layout = content()
    parent: Any = layout
    while True:
        place = data.draw(
            st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent)))
        )
        inner = parent[place]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        parent = inner
    parent[place] = data.draw(JSON)
    with suppress(FormatError):
        Layout.from_content(layout)
