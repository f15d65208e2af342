"""in-toto documents in plain words: layouts, links, evidence."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from modelward.errors import UsageError
from modelward.formats import dsse
from modelward.formats.dsse import Envelope
from modelward.trust.links import read_artifacts
from modelward_repo.documents.description import Description, clean
from modelward_repo.supply_chain import describe as layouts

MOST = 50  # files of a step that are listed
_SIGNER = "the signature: whose key may do which step is for the layout to say"
_CHAIN = (
    "that the steps fit together, and that a release is what they made: "
    "a device does that, and so does `modelward-repo publish --dry-run`"
)


def describe_envelope(data: bytes, now: datetime) -> Description:
    """Describe a signed in-toto document.

    Raises:
        FormatError: It is ill-formed.
        UsageError: It is neither layout nor link.
    """
    envelope = Envelope.parse("in-toto document", data)
    kind = envelope.content.get("_type")
    if kind == "layout":
        return _layout(envelope, now)
    if kind == "link":
        return Description(
            "in-toto link",
            ("A link: somebody states what a step took and made.", *_link(envelope)),
            (_SIGNER, _CHAIN),
            content=envelope.to_dict() | {"payload": envelope.content},
        )
    raise UsageError(f"an in-toto document of a type that is not known here: {clean(kind)}")


def describe_evidence(data: bytes) -> Description:
    """Describe evidence.jsonl.

    Raises:
        FormatError: It is ill-formed.
    """
    links = dsse.parse_evidence(data)
    lines = [f"The evidence of a release: {len(links)} links, one a line."]
    for link in links:
        lines += _link(link)
    return Description(
        "evidence", tuple(lines), (_SIGNER, _CHAIN), content=[link.content for link in links]
    )


def _layout(envelope: Envelope, now: datetime) -> Description:
    lines = ["A layout: who must do which step of making a model, with which files.", ""]
    return Description(
        "in-toto layout",
        (*lines, *layouts.lines(envelope, {}, now)),
        (
            (
                "the signatures: who owns the layout is for the model's policy to say; "
                "`modelward-repo layout show FILE --keys KEYS` checks them"
            ),
            "that it is the layout in force: `modelward-repo target layouts/MODEL.json` gets that",
        ),
        ("its rules: a device would accept its form",),
        envelope.to_dict() | {"payload": envelope.content},
    )


def _link(link: Envelope) -> Iterator[str]:
    materials, products = read_artifacts(link)
    name = clean(link.content.get("name"))
    who = ", ".join(keyid[:8] for keyid in link.signatures) or "nobody"
    yield f"  step {name}, signature claimed by {who}"
    command = link.content.get("command")
    if isinstance(command, Sequence) and command and not isinstance(command, str):
        yield f"    ran   {clean(' '.join(map(str, command)))}"
    for title, files in (("took", materials), ("made", products)):
        for path, digest in sorted(files.items())[:MOST]:
            yield f"    {title}  {clean(path)}  {digest[:16]}"
        if len(files) > MOST:
            yield f"    {title}  and {len(files) - MOST} more files"
