"""A layout as people read it: before they sign it, and whenever they wonder who may do what."""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from modelward.formats import strict
from modelward.formats.dsse import Envelope
from modelward.formats.policy import Key
from modelward.trust.layout import Layout, Step
from modelward.trust.links import signed_by
from modelward_repo.roles.keys import find_keys

Holders = Mapping[str, tuple[str, Key]]
"""Holder and key by key id."""


def find_holders(keys: Path | None) -> Holders:
    """Return whose the public keys in a folder of holders are; nothing without a folder.

    Raises:
        UsageError: One of the files is not a public key.
    """
    found = {}
    for file in find_keys(keys) if keys else ():
        key = file.public()
        found[key.keyid] = (file.path.parent.name, key)
    return found


def describe(envelope: Envelope, holders: Holders) -> dict[str, Any]:
    """Return what a layout says and who signed it, for programs.

    Raises:
        FormatError: It is not a layout that a device would accept.
    """
    layout = Layout.from_content(envelope.content)
    return {
        "readme": layout.readme,
        "expires": strict.rfc3339(layout.expires),
        "sha256": hashlib.sha256(envelope.payload).hexdigest(),
        "signatures": [
            {"keyid": keyid, **_signature(envelope, keyid, holders)}
            for keyid in sorted(envelope.signatures)
        ],
        "steps": [
            {
                "name": step.name,
                "threshold": step.threshold,
                "functionaries": [
                    {"keyid": keyid, "holder": holders[keyid][0] if keyid in holders else None}
                    for keyid in step.functionaries
                ],
                "materials": [" ".join(rule) for rule in step.materials],
                "products": [" ".join(rule) for rule in step.products],
            }
            for step in layout.steps
        ],
    }


def lines(envelope: Envelope, holders: Holders, now: datetime) -> Iterator[str]:
    """Yield the same for people.

    Raises:
        FormatError: It is not a layout that a device would accept.
    """
    layout = Layout.from_content(envelope.content)
    for line in layout.readme.strip().splitlines():
        yield f"  {line}".rstrip()
    yield ""
    left = layout.expires - now
    when = f"in {left.days} days" if left.days >= 0 else "EXPIRED"
    yield f"Expires    {strict.rfc3339(layout.expires)} ({when})"
    yield f"SHA-256    {hashlib.sha256(envelope.payload).hexdigest()}"
    yield f"Signed by  {_signers(envelope, holders)}"
    yield ""
    width = max(len(step.name) for step in layout.steps)
    for number, step in enumerate(layout.steps, 1):
        yield f"{number:>2}. {step.name:<{width}}  {_who(step, holders)}"
        for title, rules in (("takes", step.materials), ("makes", step.products)):
            for index, rule in enumerate(rules):
                yield f"      {title if index == 0 else '':<6} {' '.join(rule)}"


def _signature(envelope: Envelope, keyid: str, holders: Holders) -> dict[str, Any]:
    """Return whose a signature is, and whether it is valid: None without the key to check with."""
    if keyid not in holders:
        return {"holder": None, "valid": None}
    holder, key = holders[keyid]
    return {"holder": holder, "valid": signed_by(envelope, key)}


def _signers(envelope: Envelope, holders: Holders) -> str:
    found = []
    for keyid in sorted(envelope.signatures):
        signature = _signature(envelope, keyid, holders)
        checked = {True: "", False: ": NOT VALID", None: ": key unknown, not checked"}
        who = f"{signature['holder']} ({keyid[:8]})" if signature["holder"] else keyid[:8]
        found.append(who + checked[signature["valid"]])
    return ", ".join(found) or "nobody yet"


def _who(step: Step, holders: Holders) -> str:
    names = [
        f"{holders[keyid][0]} ({keyid[:8]})" if keyid in holders else keyid[:8]
        for keyid in step.functionaries
    ]
    return f"{step.threshold} of {', '.join(names)}"
