"""A review as a person reads it before signing: the most important first, in plain words."""

import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime

from modelward.formats import strict
from modelward_repo.roles.expiry import span
from modelward_repo.roles.policy import CHANNELS, TOP_LEVEL
from modelward_repo.roles.review import Level, Power, Review, Side, Who
from modelward_repo.roles.state import listed

WIDTH = 96
FEW = 6  # models and layouts that are shown though nothing about them changes
JUST_NOW = 90  # seconds
_RULE = "-" * WIDTH


def lines(review: Review) -> Iterator[str]:
    """Yield the whole review, for a terminal or for paper."""
    yield from header(review)
    yield from changes(review)
    yield from warnings(review)
    yield from powers(review)
    yield from signatures(review)


def header(review: Review) -> Iterator[str]:
    """Yield what the request is."""
    request = review.request
    age = review.now - request.created
    if abs(age.total_seconds()) < JUST_NOW:
        when = "just now"
    elif age.total_seconds() > 0:
        when = f"{span(age)} ago"
    else:
        when = f"{span(age)} from now, by this clock"
    yield _RULE
    yield f"SIGNING REQUEST    {request.words.upper()}"
    yield "                   Read these words aloud: every signer must see the same."
    yield _RULE
    yield f"Repository   {request.repository[:16]}... (SHA-256 of its first root)"
    yield f"Proposed     {strict.rfc3339(request.created)}, {when}"
    if request.note:
        yield from _hanging("Reason       ", f"{request.note} (says whoever proposed it)")


def changes(review: Review) -> Iterator[str]:
    """Yield what changes."""
    yield ""
    yield "WHAT CHANGES"
    roles = dict.fromkeys(item.role for item in review.differences)
    for role in roles:
        yield f"  {role}"
        for item in review.differences:
            if item.role == role:
                yield from _hanging("    ! " if item.dangerous else "    - ", item.text)


def warnings(review: Review) -> Iterator[str]:
    """Yield what to be careful about."""
    yield ""
    if not review.cautions:
        yield "WARNINGS: none"
        return
    yield "WARNINGS"
    marks = {Level.STOP: "  STOP  ", Level.DANGER: "  !!    ", Level.NOTE: "  note  "}
    for item in review.cautions:
        yield from _hanging(marks[item.level], item.text)


def powers(review: Review) -> Iterator[str]:
    """Yield who will be able to do what."""
    yield ""
    yield "WHO WILL BE ABLE TO DO WHAT"
    width = max(len(power.role) for power in review.powers)
    indent = " " * (width + 4)
    same = [power for power in review.powers if _as_before(review, power)]
    if len(same) <= FEW:
        same = []
    for power in review.powers:
        if power in same:
            continue
        yield from _hanging(f"  {power.role:<{width}}  ", f"{_people(power)} may {power.ability}")
        if power.gone:
            yield from _hanging(f"{indent}no longer: ", ", ".join(map(str, power.gone)))
        if power.expires:
            yield f"{indent}signed until {until(power.expires, review.now)}"
    if same:
        names = ", ".join(power.role for power in same)
        yield from _hanging("  as before: ", f"{names} (ceremony show --json has them all)")


def dangers(review: Review, role: str) -> Iterator[str]:
    """Yield why a role's name must be typed before signing."""
    yield ""
    yield f"This is dangerous for {role}:"
    for difference in review.differences:
        if difference.role == role and difference.dangerous:
            yield from _hanging("  ! ", difference.text)
    for caution in review.cautions:
        if caution.role == role and caution.level is Level.DANGER:
            yield from _hanging("  !! ", caution.text)


def signatures(review: Review) -> Iterator[str]:
    """Yield who has signed and who is missing."""
    yield ""
    yield "SIGNATURES"
    for side in review.sides:
        state = f"{side.needed} MORE NEEDED" if side.needed else "complete"
        yield f"  {_whose(side)}: {len(side.signed)} signed, {side.threshold} needed: {state}"
        yield from _hanging("      signed   ", _names(side.signed))
        if side.missing and side.needed:
            yield from _hanging("      missing  ", f"{side.needed} of {_names(side.missing)}")
    yield ""
    yield from _hanging("", conclusion(review))


def conclusion(review: Review) -> str:
    """Return in one sentence what is to be done next."""
    if review.stops:
        return "DO NOT SIGN: see STOP above."
    if review.ready:
        return "READY: every signature is here. Next: modelward-repo ceremony publish"
    parts = []
    for role in dict.fromkeys(side.role for side in review.sides):
        people = enough([side for side in review.sides if side.role == role])
        if people:
            parts.append(f"for {role} {listed(map(str, people))}")
    return f"NOT READY. Enough would be: {'; '.join(parts)}. Others may sign instead, see above."


def enough(sides: Sequence[Side]) -> list[Who]:
    """Return some who, if they sign too, complete a request: few, those who count most first."""
    needed = {index: side.needed for index, side in enumerate(sides)}
    found: list[Who] = []
    while any(needed.values()):
        counts: dict[str, list[int]] = {}
        people: dict[str, Who] = {}
        for index, side in enumerate(sides):
            for who in side.missing if needed[index] else ():
                if who not in found:
                    counts.setdefault(who.keyid, []).append(index)
                    people[who.keyid] = who
        if not counts:
            break
        best = max(counts, key=lambda keyid: len(counts[keyid]))
        found.append(people[best])
        for index in counts[best]:
            needed[index] -= 1
    return found


def status(review: Review) -> Iterator[str]:
    """Yield only who has signed and who is missing."""
    request = review.request
    yield f"{request.words}   {_about(review)}"
    yield from signatures(review)
    for role in ("root", "targets"):
        metadata = request.metadata(role)
        if metadata:
            yield f"The new {role} expires {until(metadata.signed.expires, review.now)}."


def until(time: datetime, now: datetime) -> str:
    """Return when something expires, and how far that is."""
    left = time - now
    how = f"in {span(left)}" if left.total_seconds() > 0 else f"EXPIRED {span(left)} ago"
    return f"{strict.rfc3339(time)} ({how})"


def _about(review: Review) -> str:
    roles = dict.fromkeys(item.role for item in review.differences)
    return f"changes {', '.join(roles)}"


def _as_before(review: Review, power: Power) -> bool:
    """Tell whether a model's or its layout's powers are what they were."""
    named = {item.role for item in review.differences} | {item.role for item in review.cautions}
    return power.role not in (*TOP_LEVEL, CHANNELS, *named)


def _whose(side: Side) -> str:
    return side.role if side.by == side.role else f"{side.role}, by {side.by}"


def _people(power: Power) -> str:
    names = ", ".join(f"{who} NEW" if who.new else str(who) for who in power.keys)
    how = (
        "anyone alone of"
        if power.threshold == 1 and len(power.keys) > 1
        else ("" if len(power.keys) == 1 else f"any {power.threshold} together of")
    )
    return f"{how} {names}".strip()


def _names(people: Sequence[Who]) -> str:
    return ", ".join(map(str, people)) or "nobody yet"


def _hanging(first: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
