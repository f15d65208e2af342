"""Gate 7: the honest chain passes, and whatever in-toto 3.1 would let through is refused."""

import base64
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward.errors import FormatError, Gate, Refused
from modelward.formats import strict
from modelward.formats.dsse import PAYLOAD_TYPE, Envelope, parse_evidence
from modelward.formats.policy import Key
from modelward.formats.release import Blob, ReleaseFile
from modelward.formats.ticket import Ticket
from modelward.trust import links as link_rules
from modelward.trust.layout import Layout
from modelward_repo.supply_chain.signing import sign
from tests.simulator.chain import BUNDLE, HonestChain, Link, digest

CHAIN = HonestChain()
OTHER = CHAIN.again("0.9.0", bundle={**BUNDLE, "model.onnx": b"older weights"})
FAKE = {"sha256": "0" * 64}
Change = Callable[[Link], Link | None]


def refusal(chain: HonestChain = CHAIN, **changes: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        chain.verify(**changes)
    if not isinstance(caught.value, FormatError):
        assert caught.value.gate is Gate.SUPPLY_CHAIN
    return caught.value


def at(step: str, change: Callable[[dict[str, Any]], Any], holder: str = "") -> Change:
    """Change the content of a step's links, or of one holder's."""

    def tamper(link: Link) -> Link:
        if link.step == step and holder in ("", link.holder):
            change(link.content)
        return link

    return tamper


# --- the honest chain


@pytest.mark.parametrize("name", ["meter-reader", "minimal"])
def test_honest_chain_passes(name):
    chain = HonestChain(name)
    attested = chain.verify()
    assert attested.release is chain.release
    assert len(attested.chain.owners) == attested.chain.owner_threshold == 2
    assert [step.name for step in attested.chain.steps] == list(chain.steps)
    for step in attested.chain.steps:
        assert (step.materials, step.products) == chain.steps[step.name]
        assert len(step.functionaries) == step.threshold


def test_what_it_proves_can_be_explained():
    matches = CHAIN.verify().chain.matches
    assert ("train", "review") in matches
    assert ("package", "evaluate-edge") in matches
    assert ("approve", "package") in matches


def test_more_functionaries_than_needed_may_sign():
    extra = CHAIN.sign(CHAIN.link("review", "reviewer-c"))
    chain = CHAIN.verify(evidence=[*CHAIN.evidence, extra]).chain
    assert len(next(step for step in chain.steps if step.name == "review").functionaries) == 3


def test_order_of_evidence_does_not_matter():
    CHAIN.verify(evidence=tuple(reversed(CHAIN.evidence)))


def test_evidence_travels_as_bytes():
    CHAIN.verify(evidence=parse_evidence(CHAIN.evidence_bytes()))


# --- links that lie (attack rows 20, 21)

LIES: dict[str, tuple[Change, str]] = {
    "failed command": (
        at("train", lambda link: link["byproducts"].update({"return-value": 1})),
        "failed command",
    ),
    "return value false": (
        at("train", lambda link: link["byproducts"].update({"return-value": False})),
        "failed command",
    ),
    "return value a string": (
        at("train", lambda link: link["byproducts"].update({"return-value": "0"})),
        "failed command",
    ),
    "no return value": (at("train", lambda link: link["byproducts"].clear()), "return-value"),
    "empty hash": (
        at("train", lambda link: link["products"].update({"model/w0.npy": {}})),
        "exactly one digest",
    ),
    "made-up hash": (
        at("train", lambda link: link["products"].update({"model/w0.npy": {"vibes": "00"}})),
        "exactly one digest",
    ),
    "weak hash beside": (
        at("train", lambda link: link["products"]["model/w0.npy"].update(md5="00")),
        "exactly one digest",
    ),
    "short hash": (
        at("train", lambda link: link["products"].update({"model/w0.npy": {"sha256": "00"}})),
        "64 lower-case hex digits",
    ),
    "hash in capitals": (
        at("train", lambda link: link["products"].update({"model/w0.npy": {"sha256": "A" * 64}})),
        "64 lower-case hex digits",
    ),
    "path climbs out": (
        at("train", lambda link: link["products"].update({"model/../../x": FAKE})),
        "'..'",
    ),
    "never saw the data": (
        at("train", lambda link: link["materials"].pop("data/train.manifest")),
        "REQUIRE data/train.manifest",
    ),
    "never saw the ticket": (
        at("evaluate", lambda link: link["materials"].pop("ticket.json")),
        "REQUIRE ticket.json",
    ),
    "never saw the code": (
        at("train", lambda link: [link["materials"].pop(path) for path in CODE]),
        "no file fulfils the rule 'MATCH code/*",
    ),
    "dataset swapped": (
        at("train", lambda link: link["materials"].update({"data/train.manifest": FAKE})),
        "data/train.manifest",
    ),
    "unreviewed code": (
        at("train", lambda link: link["materials"].update({"code/train.py": FAKE})),
        "code/train.py",
    ),
    "unreviewed extra code": (
        at("train", lambda link: link["materials"].update({"code/backdoor.py": FAKE})),
        "code/backdoor.py",
    ),
    "model replaced before evaluation": (
        at("evaluate", lambda link: link["materials"].update({"model/w0.npy": FAKE})),
        "model/w0.npy",
    ),
    "converted from another model": (
        at("convert", lambda link: link["materials"].update({"model/w0.npy": FAKE})),
        "model/w0.npy",
    ),
    "model replaced before packaging": (
        at("package", lambda link: link["products"].update({"bundle/model.onnx": FAKE})),
        "bundle/model.onnx",
    ),
    "something added in packaging": (
        at("package", lambda link: link["products"].update({"bundle/extra.json": FAKE})),
        "bundle/extra.json",
    ),
    "metrics invented in packaging": (
        at("package", lambda link: link["products"].update({"bundle/metrics.json": FAKE})),
        "bundle/metrics.json",
    ),
    "approved something else": (
        at("approve", lambda link: link["products"].update({"bundle/model.onnx": FAKE})),
        "bundle/model.onnx",
    ),
    "reviewers disagree": (
        at("review", lambda link: link["products"].update({"code/x.py": FAKE}), "reviewer-a"),
        "disagree",
    ),
    "renamed to another step": (at("train", lambda link: link.update(name="evaluate")), "may not"),
    "renamed to an unknown step": (at("train", lambda link: link.update(name="bake")), "'bake'"),
    "sublayout": (at("train", lambda link: link.update(_type="layout")), "_type"),
    "field added": (at("train", lambda link: link.update(blessed=True)), "blessed"),
    "materials missing": (at("train", lambda link: link.pop("materials")), "materials"),
    "command is no list": (at("train", lambda link: link.update(command="make")), "in-toto"),
    "environment is no object": (at("train", lambda link: link.update(environment=[])), "in-toto"),
    "left out": (lambda link: None if link.step == "ingest" else link, "'ingest'"),
    "one of two": (lambda link: None if link.holder == "data-a" else link, "'ingest'"),
    "approved by one": (lambda link: None if link.holder == "approver-a" else link, "'approve'"),
}
CODE = ("code/train.py", "code/evaluate.py")


@pytest.mark.parametrize("name", LIES)
def test_lying_evidence_is_refused(name):
    tamper, reason = LIES[name]
    assert reason in str(refusal(evidence=CHAIN.links(tamper)))


@pytest.mark.parametrize("step", CHAIN.steps)
def test_link_of_an_older_release_is_refused_at_every_step(step):
    """Same people, same layout, honest evidence: but of another run."""
    older = [link for link in OTHER.evidence if link.content["name"] == step]
    ours = [link for link in CHAIN.evidence if link.content["name"] != step]
    assert len(older) + len(ours) == 12
    refusal(evidence=[*ours, *older])


def test_all_evidence_of_an_older_release_is_refused():
    refusal(evidence=OTHER.evidence)


def test_same_files_under_another_ticket_are_refused():
    """Everything but the ticket is equal: evidence of 1.0.0 must not vouch for 1.0.1."""
    again = CHAIN.again("1.0.1")
    files = tuple(file for file in again.release.files if file.path != "ticket.json")
    ticket = next(file for file in CHAIN.release.files if file.path == "ticket.json")
    release = replace(again.release, files=(*files, ticket))
    assert "is another one" in str(refusal(release=release))


# --- signatures (attack rows 13, 14, 21)


def swap_first(envelope: Envelope) -> tuple[Envelope, ...]:
    return (envelope, *CHAIN.evidence[1:])


def test_payload_changed_after_signing_is_refused():
    link = CHAIN.evidence[0]
    content = {**link.content, "command": ["true"]}
    forged = Envelope(strict.dump(content), content, link.signatures)
    refusal(evidence=swap_first(forged))


def test_bad_signature_beside_enough_good_ones_is_refused():
    extra = CHAIN.sign(CHAIN.link("review", "reviewer-c"))
    keyid = next(iter(extra.signatures))
    extra = Envelope(extra.payload, extra.content, {keyid: b"x" * 64})
    assert "is not valid" in str(refusal(evidence=[*CHAIN.evidence, extra]))


def test_signature_under_somebody_elses_key_id_is_refused():
    link = CHAIN.link("open-release", "stranger")
    signature = next(iter(CHAIN.sign(link).signatures.values()))
    manager = CHAIN.people.key("release-manager").keyid
    forged = Envelope(strict.dump(link.content), link.content, {manager: signature})
    refusal(evidence=swap_first(forged))


def test_stranger_may_not_do_a_step():
    forged = CHAIN.sign(CHAIN.link("open-release", "stranger"))
    assert "may not do that step" in str(refusal(evidence=swap_first(forged)))


def test_functionary_of_another_step_may_not_do_it():
    forged = CHAIN.sign(CHAIN.link("evaluate", "train-ci"))
    rest = [link for link in CHAIN.evidence if link.content["name"] != "evaluate"]
    assert "may not do that step" in str(refusal(evidence=[*rest, forged]))


def test_package_ci_alone_cannot_approve():
    """Release role and packaging stolen: the approvals are missing (attack row 14)."""
    poisoned = CHAIN.again("1.0.0", bundle={**BUNDLE, "model.onnx": b"poison"}, nonce=CHAIN.nonce)

    def forge(link: Link) -> Link | None:
        stolen = {"package"}
        return poisoned.link(link.step, link.holder) if link.step in stolen else link

    refusal(release=poisoned.release, evidence=CHAIN.links(forge))
    refusal(
        release=poisoned.release,
        evidence=CHAIN.links(lambda link: None if link.step == "approve" else forge(link)),
    )


def test_same_link_twice_is_refused():
    assert "same key" in str(refusal(evidence=[*CHAIN.evidence, CHAIN.evidence[0]]))


def test_link_with_two_signatures_is_refused():
    double = sign(CHAIN.evidence[1], CHAIN.people.signer("reviewer-c"))
    evidence = [CHAIN.evidence[0], double, *CHAIN.evidence[2:]]
    assert "one signature" in str(refusal(evidence=evidence))


def test_unsigned_link_is_refused():
    refusal(evidence=swap_first(Envelope.unsigned(CHAIN.evidence[0].content)))


def test_junk_in_evidence_is_refused():
    for content in ({}, {"_type": "link"}, {"_type": "link", "name": "train", "materials": {}}):
        junk = sign(Envelope.unsigned(content), CHAIN.people.signer("train-ci"))
        refusal(evidence=[*CHAIN.evidence, junk])


def test_no_evidence_is_refused():
    refusal(evidence=[])


# --- layouts (attack rows 21, 23)


def layout_with(change: Callable[[dict[str, Any]], Any]) -> Envelope:
    content = copy.deepcopy(dict(CHAIN.unsigned_layout.content))
    change(content)
    return CHAIN.signed_layout(content)


def test_conflicting_links_are_refused_whatever_the_threshold():
    def relax(content: dict[str, Any]) -> None:
        step = next(step for step in content["steps"] if step["name"] == "review")
        step["threshold"] = 1

    layout = layout_with(relax)
    CHAIN.verify(layout=layout)
    tamper = at("review", lambda link: link["products"].update({"code/x.py": FAKE}), "reviewer-b")
    assert "disagree" in str(refusal(layout=layout, evidence=CHAIN.links(tamper)))


def test_weak_layouts_are_refused_though_their_owners_signed():
    weak = {
        "without steps": lambda content: content.update(steps=[]),
        "inspection": lambda content: content.update(inspect=[{"run": ["touch", "x"]}]),
        "must end with DISALLOW": lambda content: content["steps"][3]["expected_products"].pop(),
    }
    for reason, change in weak.items():
        assert reason in str(refusal(layout=layout_with(change)))


def test_fields_in_toto_reads_but_we_do_not_have_no_effect():
    """in-toto lets a `subkeys` field of a key stand for other keys."""
    stranger = CHAIN.people.key("stranger")

    def smuggle(content: dict[str, Any]) -> None:
        for key in content["keys"].values():
            key["subkeys"] = {stranger.keyid: stranger.to_dict()}

    layout = layout_with(smuggle)
    CHAIN.verify(layout=layout)
    forged = CHAIN.sign(CHAIN.link("open-release", "stranger"))
    refusal(layout=layout, evidence=swap_first(forged))


def test_expired_layout_is_refused():
    year = timedelta(days=365)
    CHAIN.verify(now=CHAIN.now + year - timedelta(seconds=1))
    assert "expired" in str(refusal(now=CHAIN.now + year))


@pytest.mark.parametrize("owners", [(), ("lead-a",), ("lead-a", "stranger"), ("train-ci", "x")])
def test_too_few_owners_are_refused(owners):
    layout = CHAIN.signed_layout(CHAIN.unsigned_layout, owners)
    assert "2 of 3 must sign" in str(refusal(layout=layout))


def test_owners_signature_over_another_layout_does_not_count():
    other = CHAIN.signed_layout({**CHAIN.unsigned_layout.content, "readme": "another"})
    mixed = replace(CHAIN.unsigned_layout, signatures=other.signatures)
    assert "is signed by 0" in str(refusal(layout=mixed))


def test_owner_who_is_a_functionary_is_refused():
    owners = {**CHAIN.policy.owners}
    train = CHAIN.people.key("train-ci")
    policy = replace(CHAIN.policy, owners={**owners, train.keyid: train})
    assert "must not be a functionary" in str(refusal(policy=policy))


def test_owner_spelt_in_capitals_is_no_second_owner():
    lead = CHAIN.people.key("lead-a")
    shouted = Key("", "ed25519", "ed25519", lead.public.upper())
    shouted = replace(shouted, keyid=shouted.fingerprint())
    policy = replace(CHAIN.policy, owners={lead.keyid: lead, shouted.keyid: shouted})
    with pytest.raises(FormatError, match="spelt"):
        type(policy).parse(policy.to_bytes())


def test_link_is_not_a_layout():
    assert isinstance(refusal(layout=CHAIN.signed_layout(CHAIN.evidence[0])), FormatError)


# --- the release against what was approved (attack row 13)


def test_release_key_alone_cannot_add_change_or_drop_a_file():
    files = CHAIN.release.files
    poison = ReleaseFile("extra.onnx", Blob(digest(b"poison"), 6), "onnx")
    assert "nobody approved" in str(refusal(release=replace(CHAIN.release, files=(*files, poison))))
    assert "lacks" in str(refusal(release=replace(CHAIN.release, files=files[1:])))
    changed = replace(files[0], blob=Blob(digest(b"poison"), 6))
    assert "not the file that was approved" in str(
        refusal(release=replace(CHAIN.release, files=(changed, *files[1:])))
    )


def test_only_what_stands_in_the_bundle_can_be_approved():
    """Else `bundle/x` and `x` would be two files of one name."""
    match = ["MATCH", "ticket.json", "WITH", "PRODUCTS", "FROM", "open-release"]
    ticket = {"ticket.json": {"sha256": CHAIN.ticket.sha256()}}

    def let_ticket_pass(content: dict[str, Any]) -> None:
        content["steps"][-1]["expected_products"][:0] = [["REQUIRE", "ticket.json"], match]

    tamper = at("approve", lambda link: link["products"].update(ticket))
    error = refusal(layout=layout_with(let_ticket_pass), evidence=CHAIN.links(tamper))
    assert "outside of bundle/" in str(error)


def test_release_cannot_claim_another_ticket():
    ticket = Ticket(CHAIN.model, CHAIN.version, CHAIN.counter, "another nonce")
    assert "another one" in str(refusal(release=replace(CHAIN.release, ticket=ticket)))


# --- a functionary in the middle of a chain


def middle(step: str, threshold: int) -> Layout:
    return link_rules.up_to(Layout.from_content(CHAIN.layout.content), step, threshold)


def test_evidence_up_to_a_step_is_verified_without_the_rest():
    part = middle("evaluate", 0)
    names = [step.name for step in part.steps]
    assert names == ["open-release", "review", "ingest", "train"]
    earlier = [link for link in CHAIN.evidence if link.content["name"] in names]
    proven = link_rules.verify_links(earlier, part)
    step = Layout.from_content(CHAIN.layout.content).step("evaluate")
    assert step
    materials = CHAIN.steps["evaluate"][0]
    link_rules.verify_materials(step, materials, proven)
    for path in materials:
        with pytest.raises(Refused, match="evaluate"):
            link_rules.verify_materials(step, {**materials, path: "0" * 64}, proven)
    with pytest.raises(Refused, match="evaluate"):
        link_rules.verify_materials(step, {**materials, "x": "0" * 64}, proven)
    with pytest.raises(Refused, match="evaluate"):
        link_rules.verify_materials(step, {}, proven)


def test_first_of_two_functionaries_is_checked_alone():
    ours = [link for link in CHAIN.evidence if link.content["name"] in ("open-release", "review")]
    link_rules.verify_links(ours[:-1], middle("review", 1))
    with pytest.raises(Refused, match="review"):
        link_rules.verify_links(ours[:-1], middle("review", 2))
    with pytest.raises(Refused, match="open-release"):
        link_rules.verify_links(ours[1:], middle("review", 1))


def test_first_step_builds_upon_nothing():
    assert link_rules.verify_links([], middle("open-release", 0)) == {}


# --- nothing is executed, nothing but a refusal comes out


def test_verification_starts_no_process_and_opens_no_connection():
    script = """
import sys
from tests.simulator.chain import HonestChain
from modelward.errors import Refused

chain = HonestChain()
chain.evidence, chain.layout, chain.release, chain.policy
inspection = {"_type": "inspection", "name": "look", "run": ["touch", "owned"],
              "expected_materials": [], "expected_products": []}
hostile = chain.signed_layout({**chain.unsigned_layout.content, "inspect": [inspection]})
bad = ("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system",
       "pty.spawn", "socket.")
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(bad) else None)
chain.verify()
try:
    chain.verify(layout=hostile)
except Refused as error:
    assert "inspection" in str(error)
else:
    raise AssertionError
assert seen == [], seen
import subprocess
subprocess.run(["true"], check=True)
assert "subprocess.Popen" in seen
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def is_json(value: Any) -> bool:
    """Tell NaN and infinity, which cannot be signed, from JSON."""
    try:
        return bool(json.dumps(value, allow_nan=False))
    except ValueError:
        return False


def envelope_bytes(payload: bytes, keyids: list[str]) -> bytes:
    signatures = [{"keyid": keyid, "sig": base64.b64encode(b"s" * 64).decode()} for keyid in keyids]
    encoded = base64.b64encode(payload).decode()
    envelope = {"payload": encoded, "payloadType": PAYLOAD_TYPE, "signatures": signatures}
    return json.dumps(envelope).encode()


def refused_or_parsed(data: bytes) -> None:
    """Feed bytes to gate 7 as evidence and as a layout; only refusals may come out."""
    with pytest.raises(Refused):
        CHAIN.verify(evidence=[*CHAIN.evidence, *parse_evidence(data)])
    with pytest.raises(Refused):
        CHAIN.verify(layout=Envelope.parse("layout", data))


@pytest.mark.fuzz
@given(st.binary(min_size=1, max_size=200))
def test_garbage_is_refused(data):
    refused_or_parsed(data)


@pytest.mark.fuzz
@given(JSON)
def test_any_json_as_payload_is_refused(value):
    keyid = CHAIN.people.key("train-ci").keyid
    refused_or_parsed(envelope_bytes(json.dumps(value).encode(), [keyid]))


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 10_000,
        b'{"_type": "link", "_type": "link"}',
        b'{"_type": NaN}',
        b"\xff",
        b"",
        b'"\\ud800"',
    ],
)
def test_payload_bombs_are_refused(payload):
    refused_or_parsed(envelope_bytes(payload, ["0" * 64]))
    refused_or_parsed(payload or b" ")


@pytest.mark.fuzz
@settings(deadline=None)
@given(st.data())
def test_any_change_of_a_signed_links_content_is_refused(data):
    """The thief of a key signs anything: it passes only if the content means the same."""
    names = ("train", "evaluate", "package", "approve")
    step = data.draw(st.sampled_from(names))

    def tamper(link: Link) -> Link:
        if link.step == step and link.holder != "approver-b":
            field = data.draw(st.sampled_from(sorted(link.content)))
            link.content[field] = data.draw(JSON.filter(is_json))
        return link

    evidence = CHAIN.links(tamper)
    try:
        attested = CHAIN.verify(evidence=evidence)
    except Refused:
        return
    record = next(record for record in attested.chain.steps if record.name == step)
    assert record.materials == CHAIN.steps[step][0]


@pytest.mark.fuzz
@given(st.integers(0, 11), st.data())
def test_any_flipped_byte_of_evidence_is_refused_or_means_the_same(index, data):
    line = bytearray(CHAIN.evidence[index].to_bytes())
    place = data.draw(st.integers(0, len(line) - 2))
    line[place] ^= data.draw(st.integers(1, 255))
    lines = [link.to_bytes() for link in CHAIN.evidence]
    lines[index] = bytes(line)
    try:
        evidence = parse_evidence(b"".join(lines))
        CHAIN.verify(evidence=evidence)
    except Refused:
        return
    # Base64 and JSON may be spelt differently, but the payload cannot have changed.
    assert evidence[index].payload == CHAIN.evidence[index].payload
