"""What a layout must be before any link is held against it.

in-toto 3.1 accepts layouts that prove nothing: no steps, rule lists that let anything pass, one
key under two ids, commands to run on the verifier (attack row 21). The same checks run when a
layout is compiled, so an owner never signs what a device would refuse.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from modelward.errors import FormatError
from modelward.formats import strict
from modelward.formats.policy import Key

DOCUMENT = "layout"
FINAL_STEP = "approve"
MAX_STEPS = 64
MAX_RULES = 256
_STEP_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_GLOB = re.compile(r"[*?\[]")

Rule = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One step of a supply chain.

    Attributes:
        name: Its name.
        threshold: How many functionaries must have done it and agree.
        functionaries: Key ids that may do it.
        materials: Rules for what it took.
        products: Rules for what it made.
    """

    name: str
    threshold: int
    functionaries: tuple[str, ...]
    materials: tuple[Rule, ...]
    products: tuple[Rule, ...]


@dataclass(frozen=True)
class Layout:
    """A well-formed layout (in-toto specification 4.3).

    Attributes:
        steps: In the order they are done; the last is `approve`.
        keys: The functionaries' keys, by id.
        expires: When the layout stops being valid.
        readme: What the owners say it is for.
    """

    steps: tuple[Step, ...]
    keys: Mapping[str, Key]
    expires: datetime
    readme: str

    @classmethod
    def from_content(cls, content: Any) -> "Layout":
        """Read the payload of a layout's envelope and check that it proves something.

        Raises:
            FormatError: Ill-formed, or `problems` finds anything.
        """
        fields = strict.Fields(DOCUMENT, content)
        if fields.any("_type") != "layout":
            raise fields.wrong("_type", "must be 'layout'")
        if fields.items("inspect"):
            raise fields.wrong("inspect", "has an inspection: devices run no command to verify")
        keys = fields.fields("keys")
        layout = cls(
            steps=tuple(_step(step) for step in fields.each("steps", MAX_STEPS)),
            keys={keyid: Key.from_fields(keyid, keys.fields(keyid)) for keyid in keys.raw},
            expires=fields.time("expires"),
            readme=_readme(fields),
        )
        for where, problem in problems(layout):
            raise FormatError(DOCUMENT, where, problem)
        return layout

    def to_content(self) -> dict[str, Any]:
        """Return the payload of a layout's envelope."""
        return {
            "_type": "layout",
            "readme": self.readme,
            "expires": strict.rfc3339(self.expires),
            "keys": {keyid: {"keyid": keyid, **key.to_dict()} for keyid, key in self.keys.items()},
            "steps": [
                {
                    "_type": "step",
                    "name": step.name,
                    "threshold": step.threshold,
                    "pubkeys": list(step.functionaries),
                    "expected_command": [],  # a functionary can alias any command: proves nothing
                    "expected_materials": [list(rule) for rule in step.materials],
                    "expected_products": [list(rule) for rule in step.products],
                }
                for step in self.steps
            ],
            "inspect": [],
        }

    def step(self, name: str) -> Step | None:
        """Return the step of that name, or None."""
        return next((step for step in self.steps if step.name == name), None)

    def consumed_by(self, name: str) -> tuple[str, ...]:
        """Return the steps that a step builds upon, directly or not, in the layout's order."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            step = self.step(waiting.pop())
            for rule in (*step.materials, *step.products) if step else ():
                if rule[0] == "MATCH" and (giver := match_rule(rule).step) not in {name, *found}:
                    found.add(giver)
                    waiting.append(giver)
        return tuple(step.name for step in self.steps if step.name in found)


def problems(layout: Layout, owners: Collection[Key] = ()) -> Iterator[tuple[str, str]]:
    """Yield whatever makes a layout prove less than it seems to: where, and what.

    Args:
        layout: The layout.
        owners: Its owners' keys, where known: no functionary may be among them.
    """
    if not layout.steps:
        yield "steps", "is empty: a layout without steps proves nothing"
        return
    names = [step.name for step in layout.steps]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"steps.{name}", "appears twice"
    if names[-1] != FINAL_STEP:
        yield "steps", f"must end with the step {FINAL_STEP!r}, whose products are the release"
    if len({key.public for key in layout.keys.values()}) != len(layout.keys):
        yield "keys", "the same key stands under two key ids"
    # Compared by what they are: the same key under another scheme has another id.
    owned = {owner.public for owner in owners}
    for keyid in sorted(keyid for keyid, key in layout.keys.items() if key.public in owned):
        yield f"keys.{keyid}", "an owner of the layout must not be a functionary in it"
    for step in layout.steps:
        yield from _step_problems(step, layout, names)


def _step_problems(step: Step, layout: Layout, names: list[str]) -> Iterator[tuple[str, str]]:
    where = f"steps.{step.name}"
    unknown = [keyid for keyid in step.functionaries if keyid not in layout.keys]
    if unknown:
        yield f"{where}.pubkeys", f"{unknown[0]!r} is not among the layout's keys"
    if step.threshold > len(step.functionaries):
        yield f"{where}.threshold", "is larger than the number of functionaries"
    earlier = names[: names.index(step.name)]
    for kind, rules in (("materials", step.materials), ("products", step.products)):
        for index, rule in enumerate(rules):
            for problem in (*_weakness(kind, rule), *_bad_source(kind, rule, step.name, earlier)):
                yield f"{where}.expected_{kind}[{index}]", problem
        yield from (
            (f"{where}.expected_{kind}[{index}]", problem)
            for index, problem in _order_problems(rules)
        )
        if not rules or rules[-1] != ("DISALLOW", "*"):
            yield f"{where}.expected_{kind}", "must end with DISALLOW *: else anything passes"


def _weakness(kind: str, rule: Rule) -> Iterator[str]:
    """Yield why a rule, seen alone, proves nothing."""
    keyword = rule[0]
    if any("{" in word or "}" in word for word in rule):
        yield "has a parameter: layouts are signed as they are verified"
    if keyword == "ALLOW" or (kind == "materials" and keyword in ("CREATE", "DELETE", "MODIFY")):
        # On materials, DELETE and MODIFY consume whatever the step removed or changed.
        yield f"{keyword} lets {kind} pass that nobody proved: use MATCH"
    if kind == "products" and keyword == "DELETE":
        yield "DELETE never consumes a product: leave it out"
    if keyword == "REQUIRE" and _GLOB.search(rule[1]):
        yield "REQUIRE takes the path of one file, not a pattern"


def _bad_source(kind: str, rule: Rule, own: str, earlier: list[str]) -> Iterator[str]:
    """Yield why a MATCH refers to what cannot vouch for a file.

    A step that vouches for itself, or two that vouch for each other, prove nothing. So a MATCH
    looks back only, but that products may be taken over from the step's own materials.
    """
    if rule[0] != "MATCH":
        return
    source = match_rule(rule)
    if source.step == own:
        if (kind, source.kind) != ("products", "materials"):
            yield f"a step cannot vouch for its own {kind}"
    elif source.step not in earlier:
        yield f"refers to {source.step!r}, which is not an earlier step"


def _order_problems(rules: tuple[Rule, ...]) -> Iterator[tuple[int, str]]:
    required: set[str] = set()
    consumed: list[str] = []
    for index, rule in enumerate(rules):
        keyword = rule[0]
        if keyword == "REQUIRE":
            required.add(rule[1])
            if any(fnmatchcase(rule[1], pattern) for pattern in consumed):
                yield index, f"REQUIRE {rule[1]} comes too late: a rule above consumed the file"
            continue
        if keyword == "MATCH":
            target = match_rule(rule)
            if not _GLOB.search(target.pattern) and target.path not in required:
                yield index, f"MATCH {target.pattern} needs REQUIRE {target.path} above it"
            consumed.append(target.path)
        elif keyword != "DISALLOW":
            consumed.append(rule[1])


@dataclass(frozen=True)
class Match:
    """A MATCH rule taken apart (in-toto specification 4.3.3).

    Attributes:
        pattern: Glob over paths, below the prefix.
        prefix: Where the files stand in this step; empty for the top.
        kind: ``materials`` or ``products`` of the other step.
        other_prefix: Where they stand there.
        step: The other step.
    """

    pattern: str
    prefix: str
    kind: str
    other_prefix: str
    step: str

    @property
    def path(self) -> str:
        """The pattern with its prefix."""
        return f"{self.prefix.rstrip('/')}/{self.pattern}" if self.prefix else self.pattern


def match_rule(rule: Rule) -> Match:
    """Take a well-formed MATCH rule apart."""
    words = list(rule[2:])
    prefix = other_prefix = ""
    if words[0] == "IN":
        prefix = words[1]
        words = words[2:]
    kind = words[1].lower()
    words = words[2:]
    if words[0] == "IN":
        other_prefix = words[1]
        words = words[2:]
    return Match(rule[1], prefix, kind, other_prefix, words[1])


def _readme(fields: strict.Fields) -> str:
    value = fields.raw.get("readme", "")
    if not isinstance(value, str) or not value.replace("\n", "").isprintable():
        # Owners read it on a terminal before they sign.
        raise fields.wrong("readme", "must be printable text")
    return value


def _step(fields: strict.Fields) -> Step:
    if fields.any("_type") != "step":
        raise fields.wrong("_type", "must be 'step'")
    name = fields.text("name", most=64)
    if not _STEP_NAME.fullmatch(name):
        # An empty or globbing name must not act as a wildcard over other steps' evidence.
        raise fields.wrong("name", f"{name!r} is not a step name")
    return Step(
        name=name,
        threshold=fields.integer("threshold", least=1, most=1000),
        functionaries=fields.texts("pubkeys", most=1000),
        materials=_rules(fields, "expected_materials"),
        products=_rules(fields, "expected_products"),
    )


def _rules(fields: strict.Fields, name: str) -> tuple[Rule, ...]:
    found = []
    for index, rule in enumerate(fields.items(name, MAX_RULES)):
        where = f"{name}[{index}]"
        if not isinstance(rule, list) or not all(isinstance(word, str) for word in rule):
            raise fields.wrong(where, "must be a list of strings")
        try:
            found.append(check_rule(rule))
        except ValueError as error:
            raise fields.wrong(where, str(error)) from error
    return tuple(found)


def check_rule(words: Sequence[str]) -> Rule:
    """Return a rule of in-toto 4.3.3, keywords in upper case only.

    Raises:
        ValueError: Anything else.
    """
    if not _well_formed(words):
        raise ValueError(f"{' '.join(words)[:120]!r} is not an artifact rule")
    return tuple(words)


def _well_formed(rule: Sequence[str]) -> bool:
    match rule:
        case (
            ["CREATE" | "DELETE" | "MODIFY" | "ALLOW" | "DISALLOW" | "REQUIRE", _]
            | ["MATCH", _, "WITH", "MATERIALS" | "PRODUCTS", "FROM", _]
            | ["MATCH", _, "IN", _, "WITH", "MATERIALS" | "PRODUCTS", "FROM", _]
            | ["MATCH", _, "WITH", "MATERIALS" | "PRODUCTS", "IN", _, "FROM", _]
            | ["MATCH", _, "IN", _, "WITH", "MATERIALS" | "PRODUCTS", "IN", _, "FROM", _]
        ):
            return all(word and word.isprintable() for word in rule)
    return False
