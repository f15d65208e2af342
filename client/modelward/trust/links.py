"""Links: who did which step with which files, held against a layout.

in-toto's own `in_toto_verify` is never called: it runs inspection commands on the verifier, and
sublayouts' too. Its parts are, in the order of the specification (in-toto 5.2 step 6 ff.):
signatures, thresholds, agreement, artifact rules. Around them stand the guards for what in-toto
3.1 lets through (attack rows 13, 14, 20, 21).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from modelward.errors import Gate, ModelwardError, Refused
from modelward.formats import strict
from modelward.formats.dsse import Envelope
from modelward.formats.names import check_path
from modelward.formats.policy import Key
from modelward.trust.layout import Layout, Rule, Step

DOCUMENT = "link"
MAX_ARTIFACTS = 100_000
_FIELDS = frozenset(
    ("_type", "name", "command", "materials", "products", "byproducts", "environment")
)

Artifacts = Mapping[str, str]
Links = Mapping[str, Mapping[str, Envelope]]


def verify_links(evidence: Sequence[Envelope], layout: Layout) -> Links:
    """Verify links' form, signatures, thresholds, agreement and artifact rules.

    Args:
        evidence: The links: of every step, and nothing else.
        layout: The layout, checked; or a part of it that `up_to` cut out.

    Returns:
        Links by step and key id.

    Raises:
        Refused: Anything does not hold.
        FormatError: A link is ill-formed.
    """
    links: dict[str, dict[str, Envelope]] = {}
    for link in evidence:
        name, keyid = _check_link(link, layout)
        if keyid in links.setdefault(name, {}):
            raise refused(f"two links of step {name!r} are signed by the same key {keyid[:8]}")
        links[name][keyid] = link
    for name, by_key in links.items():
        _check_agreement(name, by_key)
    with _in_toto_errors():
        _run_in_toto(links, layout)
    return links


def up_to(layout: Layout, name: str, threshold: int) -> Layout:
    """Return the part of a layout that stands before a step is complete (in-toto has no such).

    Args:
        layout: The layout, checked.
        name: The step: it and those it builds upon remain.
        threshold: How many functionaries the step itself needs so far; 0 leaves the step out.
    """
    consumed = layout.consumed_by(name)
    return replace(
        layout,
        steps=tuple(
            replace(step, threshold=threshold) if step.name == name else step
            for step in layout.steps
            if step.name in consumed or (step.name == name and threshold)
        ),
    )


def verify_materials(step: Step, materials: Artifacts, links: Links) -> None:
    """Apply a step's material rules before the step is done.

    Args:
        step: The step.
        materials: What it is about to take.
        links: Links of the steps it builds upon, verified.

    Raises:
        Refused: A material is not proven, or one is missing.
    """
    with _in_toto_errors():
        reduced = {name: _in_toto_link(by_key) for name, by_key in links.items()}
        reduced[step.name] = _new_in_toto_link(materials)
        _apply_rules(step.name, "materials", step.materials, reduced)


def read_artifacts(link: Envelope) -> tuple[Artifacts, Artifacts]:
    """Return a link's materials and products: digests by path.

    Raises:
        FormatError: They are ill-formed.
    """
    fields = strict.Fields(DOCUMENT, link.content)
    return _artifacts(fields, "materials"), _artifacts(fields, "products")


def signed_by(envelope: Envelope, key: Key) -> bool:
    """Tell whether an envelope bears a valid signature of that key."""
    from securesystemslib.dsse import Envelope as SslibEnvelope  # noqa: PLC0415
    from securesystemslib.exceptions import VerificationError  # noqa: PLC0415
    from securesystemslib.signer import Key as SslibKey  # noqa: PLC0415

    try:
        SslibEnvelope.from_dict(envelope.to_dict()).verify(
            [SslibKey.from_dict(key.keyid, key.to_dict())], 1
        )
    except (VerificationError, ValueError, KeyError):
        return False
    return True


def _check_link(link: Envelope, layout: Layout) -> tuple[str, str]:
    """Return the step and key id of a link that is well-formed and expected."""
    fields = strict.Fields(DOCUMENT, link.content)
    if fields.any("_type") != "link":
        # A sublayout would bring its own steps and inspections.
        raise fields.wrong("_type", "must be 'link'")
    unknown = sorted(set(fields.raw) - _FIELDS)
    if unknown:
        raise fields.wrong(unknown[0], "is not a field of a link")
    if len(link.signatures) != 1:
        raise fields.wrong("signatures", f"a link has one signature, not {len(link.signatures)}")
    name = fields.text("name", most=64)
    keyid = next(iter(link.signatures))
    step = layout.step(name)
    if step is None:
        raise refused(f"there is a link for a step {name!r} that the layout does not have")
    if keyid not in step.functionaries:
        raise refused(f"key {keyid[:8]} signed a link of step {name!r} but may not do that step")
    for kind in ("materials", "products"):
        _artifacts(fields, kind)
    result = fields.fields("byproducts").any("return-value")
    if type(result) is not int or result != 0:
        raise refused(f"step {name!r} reports a failed command: return value {str(result)[:40]!r}")
    return name, keyid


def _artifacts(fields: strict.Fields, kind: str) -> dict[str, str]:
    """Return digests by path; only real SHA-256 digests count."""
    inner = fields.fields(kind)
    if len(inner.raw) > MAX_ARTIFACTS:
        raise fields.wrong(kind, f"has more than {MAX_ARTIFACTS} entries")
    found = {}
    for path in inner.raw:
        try:
            check_path(path)
        except ValueError as error:
            raise fields.wrong(kind, str(error)) from error
        digest = inner.fields(path)
        if set(digest.raw) != {"sha256"}:
            raise inner.wrong(path, "must have exactly one digest, sha256")
        found[path] = digest.sha256("sha256")
    return found


def _check_agreement(name: str, by_key: Mapping[str, Envelope]) -> None:
    """Refuse links of one step that tell different stories, whatever its threshold."""
    stories = [(link.content["materials"], link.content["products"]) for link in by_key.values()]
    if any(story != stories[0] for story in stories[1:]):
        raise refused(f"the functionaries of step {name!r} disagree about its files")


@contextmanager
def _in_toto_errors() -> Iterator[None]:
    """The one fence around in-toto: whatever its parsers and rules raise means "refused"."""
    try:
        yield
    except ModelwardError:
        raise
    except Exception as error:
        raise refused(f"in-toto: {_first_line(error)}") from error


def _run_in_toto(links: Links, layout: Layout) -> None:
    """Hold the links against the layout with in-toto's own parts."""
    # Imported here: it takes longer than everything else a check for updates does.
    from in_toto import verifylib  # noqa: PLC0415
    from in_toto.models.layout import Layout as InTotoLayout  # noqa: PLC0415
    from in_toto.models.metadata import Envelope as InTotoEnvelope  # noqa: PLC0415

    # Made from what was checked, so that in-toto sees no field that was not, such as subkeys.
    in_toto_layout = InTotoLayout.read(layout.to_content())
    metadata = {
        name: {keyid: InTotoEnvelope.from_dict(link.to_dict()) for keyid, link in by_key.items()}
        for name, by_key in links.items()
    }
    verified = verifylib.verify_link_signature_thresholds(in_toto_layout, metadata)
    for step in layout.steps:
        dropped = set(metadata[step.name]) - set(verified[step.name])
        if dropped:
            raise refused(
                f"the signature of key {min(dropped)[:8]} on the link of step {step.name!r} "
                "is not valid"
            )
    reduced = {name: _in_toto_link(by_key) for name, by_key in links.items()}
    for step in layout.steps:
        _apply_rules(step.name, "materials", step.materials, reduced)
        _apply_rules(step.name, "products", step.products, reduced)


def _in_toto_link(by_key: Mapping[str, Envelope]) -> Any:
    """Return one step's link as in-toto has it; those of all its functionaries agree."""
    from in_toto.models.link import Link  # noqa: PLC0415

    return Link.read(dict(next(iter(by_key.values())).content))


def _new_in_toto_link(materials: Artifacts) -> Any:
    from in_toto.models.link import Link  # noqa: PLC0415

    return Link(materials={path: {"sha256": digest} for path, digest in materials.items()})


def _apply_rules(name: str, kind: str, rules: Sequence[Rule], links: Mapping[str, Any]) -> None:
    """Apply in-toto's rules, and refuse a MATCH that matched nothing.

    in-toto's MATCH only removes files from a list: it is content if the step never saw the file.
    """
    from in_toto import rulelib, verifylib  # noqa: PLC0415
    from in_toto.exceptions import RuleVerificationError  # noqa: PLC0415

    try:
        verifylib.verify_item_rules(name, kind, [list(rule) for rule in rules], links)
    except RuleVerificationError as error:
        raise refused(f"step {name!r}, {kind}: {_first_line(error)}") from error
    artifacts = getattr(links[name], kind)
    for rule in rules:
        if rule[0] == "MATCH":
            data = rulelib.unpack_rule(list(rule))
            if not verifylib.verify_match_rule(data, set(artifacts), artifacts, links):
                raise refused(f"step {name!r}: no file fulfils the rule {' '.join(rule)!r}")


def refused(reason: str) -> Refused:
    """Return, for the caller to raise, the refusal of a release's evidence."""
    return Refused(
        Gate.SUPPLY_CHAIN,
        reason,
        "the evidence does not support it: whoever made it must complete or redo that step; never "
        "install around this gate",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{lines[0][:300] or type(error).__name__}"
