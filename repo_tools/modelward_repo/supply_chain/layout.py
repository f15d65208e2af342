"""layouts/*.toml, the reviewable source of a supply chain, compiled to a signed in-toto layout.

The source names people and machines (holders); the layout names their keys. What is compiled
passes the very checks that a device applies (`modelward.trust.layout`), and some that only the
source can be held to, because a device knows keys, not people.
"""

import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer

from modelward.errors import FormatError, UsageError
from modelward.formats import strict
from modelward.formats.dsse import Envelope
from modelward.formats.names import check_name
from modelward.formats.policy import Key
from modelward.formats.ticket import FILE as TICKET_FILE
from modelward.trust.layout import MAX_RULES, MAX_STEPS, Layout, Rule, Step, check_rule, problems
from modelward_repo.supply_chain.signing import sign

FUNCTIONARY = "functionary"  # name of a functionary's key in its holder's folder
OWNER = "layout"  # name of a layout owner's
MAX_DAYS = 3650
MAX_README = 4096
_ADVICE = "layouts/README.md explains every field and rule"
_PERIOD = re.compile(r"([1-9]\d{0,4})([dh])")
_SOURCE_FIELDS = frozenset({"readme", "expires", "same_functionary", "step"})
_STEP_FIELDS = frozenset({"name", "functionaries", "threshold", "materials", "products"})


@dataclass(frozen=True)
class SourceStep:
    """One step, as people write it.

    Attributes:
        name: Its name.
        functionaries: Holders whose functionary key may do it.
        threshold: How many of them must have done it and agree.
        materials: Rules for what it takes.
        products: Rules for what it makes.
    """

    name: str
    functionaries: tuple[str, ...]
    threshold: int
    materials: tuple[Rule, ...]
    products: tuple[Rule, ...]


@dataclass(frozen=True)
class LayoutSource:
    """The source of a layout.

    Attributes:
        document: What errors call it: its path.
        readme: What the supply chain is for.
        expires: How long the compiled layout is valid.
        steps: In the order they are done.
        shared: Groups of steps that may have functionaries in common.
    """

    document: str
    readme: str
    expires: timedelta
    steps: tuple[SourceStep, ...]
    shared: tuple[frozenset[str], ...] = ()

    @classmethod
    def load(cls, path: Path) -> "LayoutSource":
        """Read a source file.

        Raises:
            UsageError: It cannot be read or breaks the format; the error names file and field.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        return cls.parse(str(path), data)

    @classmethod
    def parse(cls, document: str, data: bytes) -> "LayoutSource":
        """Parse a source file's bytes.

        Raises:
            UsageError: They break the format; the error names file and field.
        """
        try:
            fields = strict.Fields(document, tomllib.loads(data.decode("utf-8")))
            return _source(fields)
        except UnicodeDecodeError as error:
            raise UsageError(f"{document}: is not UTF-8 text", _ADVICE) from error
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise UsageError(f"{document}: is not TOML: {error}", _ADVICE) from error
        except FormatError as error:
            raise UsageError(error.reason, _ADVICE) from error

    @property
    def holders(self) -> tuple[str, ...]:
        """Everybody who does a step, in order of appearance."""
        return tuple(dict.fromkeys(name for step in self.steps for name in step.functionaries))


def compile_layout(
    source: LayoutSource, keys: Mapping[str, Key], owners: Collection[str], now: datetime
) -> Envelope:
    """Compile a source to a layout that nobody has signed yet.

    Args:
        source: The source.
        keys: Functionary keys by holder, at least of `source.holders`.
        owners: Holders, or key ids, that will sign the layout; none may do a step.
        now: The time from which it is valid.

    Raises:
        UsageError: A key is missing, or the layout would prove less than it seems to. The error
            lists everything that is wrong, by file and field.
    """
    missing = [holder for holder in source.holders if holder not in keys]
    if missing:
        raise UsageError(
            f"{source.document}: there is no functionary key of {', '.join(missing)}",
            f"create it with `modelward-repo key create {missing[0]}/{FUNCTIONARY}`",
        )
    layout = Layout(
        steps=tuple(
            Step(
                name=step.name,
                threshold=step.threshold,
                functionaries=tuple(keys[holder].keyid for holder in step.functionaries),
                materials=step.materials,
                products=step.products,
            )
            for step in source.steps
        ),
        keys={keys[holder].keyid: keys[holder] for holder in source.holders},
        expires=(now + source.expires).replace(microsecond=0),
        readme=source.readme,
    )
    found = [
        *_people_problems(source, keys, owners, layout),
        *((_field(where), problem) for where, problem in problems(layout)),
        *_ticket_problems(source),
    ]
    if found:
        listed = "; ".join(f"{where}: {problem}" for where, problem in found)
        raise UsageError(f"{source.document} is not fit to be signed: {listed}", _ADVICE)
    content = layout.to_content()
    Layout.from_content(content)  # the device's own parser has the last word
    return Envelope.unsigned(content)


def sign_layout(envelope: Envelope, signer: Signer) -> Envelope:
    """Return the layout with one more owner's signature (or the same owner's, made anew).

    Raises:
        FormatError: It is not a layout that a device would accept.
        UsageError: The owner is a functionary in it.
    """
    layout = Layout.from_content(envelope.content)
    if any(key.public == signer.public_key.keyval["public"] for key in layout.keys.values()):
        raise UsageError(
            "this key does a step of the layout: it must not also vouch for the layout",
            f"sign with an owner's key, named {OWNER}.key",
        )
    return sign(envelope, signer)


def _source(fields: strict.Fields) -> LayoutSource:
    _known(fields, _SOURCE_FIELDS)
    steps = tuple(_step(step) for step in fields.each("step", MAX_STEPS))
    names = [step.name for step in steps]
    if not steps:
        raise fields.wrong("step", "is empty: a layout without steps proves nothing")
    for index, name in enumerate(names):
        if name in names[:index]:
            raise fields.wrong(f"step[{index}].name", f"the step {name!r} appears twice")
    return LayoutSource(
        document=fields.document,
        readme=_readme(fields),
        expires=fields.checked("expires", _period),
        steps=steps,
        shared=tuple(_shared(fields, names)) if fields.has("same_functionary") else (),
    )


def _step(fields: strict.Fields) -> SourceStep:
    _known(fields, _STEP_FIELDS)
    functionaries = fields.texts("functionaries", most=1000)
    if not functionaries:
        raise fields.wrong("functionaries", "is empty: somebody must be allowed to do the step")
    for index, holder in enumerate(functionaries):
        _check(fields, f"functionaries[{index}]", check_name, holder)
    threshold = fields.integer("threshold", least=1) if fields.has("threshold") else 1
    if threshold > len(functionaries):
        raise fields.wrong(
            "threshold", f"is {threshold}, but only {len(functionaries)} may do the step"
        )
    return SourceStep(
        name=fields.checked("name", check_name),
        functionaries=functionaries,
        threshold=threshold,
        materials=_rules(fields, "materials"),
        products=_rules(fields, "products"),
    )


def _rules(fields: strict.Fields, name: str) -> tuple[Rule, ...]:
    return tuple(
        _check(fields, f"{name}[{index}]", _rule, text)
        for index, text in enumerate(fields.texts(name, MAX_RULES))
    )


def _rule(text: str) -> Rule:
    return check_rule(text.split())


def _shared(fields: strict.Fields, names: Collection[str]) -> Iterator[frozenset[str]]:
    for index, item in enumerate(fields.items("same_functionary", most=MAX_STEPS)):
        where = f"same_functionary[{index}]"
        if not isinstance(item, list) or len(item) < 2:  # noqa: PLR2004 - alone it shares nothing
            raise fields.wrong(where, "must be a list of at least two steps")
        for name in item:
            if not isinstance(name, str) or name not in names:
                raise fields.wrong(where, f"{str(name)[:80]!r} is not a step")
        yield frozenset(item)


def _known(fields: strict.Fields, names: Collection[str]) -> None:
    """Refuse fields that do not exist: a misspelt one would silently not count."""
    for name in fields.raw:
        if name not in names:
            raise fields.wrong(name, f"is not a field; there are {', '.join(sorted(names))}")


def _check(fields: strict.Fields, name: str, check: Callable[[str], Any], text: str) -> Any:
    try:
        return check(text)
    except ValueError as error:
        raise fields.wrong(name, str(error)) from error


def _readme(fields: strict.Fields) -> str:
    text = fields.any("readme")
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_README:
        raise fields.wrong("readme", f"must say in 1 to {MAX_README} characters what this is for")
    if not text.replace("\n", "").isprintable():
        raise fields.wrong("readme", "has a control or unprintable character")
    return text


def _period(text: str) -> timedelta:
    match = _PERIOD.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:80]!r} is not a period such as 365d or 12h")
    count = int(match[1])
    period = timedelta(days=count) if match[2] == "d" else timedelta(hours=count)
    if period > timedelta(days=MAX_DAYS):
        raise ValueError(f"{text!r} is longer than {MAX_DAYS} days")
    return period


def _people_problems(
    source: LayoutSource, keys: Mapping[str, Key], owners: Collection[str], layout: Layout
) -> Iterator[tuple[str, str]]:
    """Yield who could do too much alone."""
    for one, other in combinations(source.holders, 2):
        if keys[one].public == keys[other].public:
            yield "step", f"{one} and {other} have the same functionary key"
    for name in source.holders:
        if name in owners or keys[name].keyid in owners:
            yield "step", f"{name} owns the layout and must not do a step of it"
    if len(layout.keys) < len(source.holders):
        return  # the pairs below would only repeat it
    for first, second in combinations(source.steps, 2):
        both = sorted(set(first.functionaries) & set(second.functionaries))
        if both and not any({first.name, second.name} <= group for group in source.shared):
            names = ", ".join(both)
            yield (
                f"step {second.name}.functionaries",
                f"{names} may also do {first.name!r}: let others do one, or list same_functionary",
            )


def _ticket_problems(source: LayoutSource) -> Iterator[tuple[str, str]]:
    """Yield the steps whose evidence would vouch for any release (attack row 21)."""
    for step in source.steps:
        required = {
            rule[1].rpartition("/")[2]
            for rule in (*step.materials, *step.products)
            if rule[0] in ("REQUIRE", "CREATE")
        }
        if TICKET_FILE not in required:
            yield (
                f"step {step.name}",
                f"does not REQUIRE {TICKET_FILE}: its evidence would fit any other release too",
            )


def _field(where: str) -> str:
    """Translate a place in the compiled layout to one in the source."""
    where = re.sub(r"^steps\.([^.]+)", r"step \1", where)
    return where.replace("expected_", "").replace("pubkeys", "functionaries")
