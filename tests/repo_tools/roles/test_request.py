"""A signing request that was tampered with, damaged, or is about something else."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward.errors import FormatError, ModelwardError, Refused
from modelward_repo.roles import ceremony
from modelward_repo.roles.changes import AddKey, Renew, ReplaceKey, SetThreshold
from modelward_repo.roles.request import CAP, Request, check_known_root
from modelward_repo.roles.state import Rejected
from tests.repo_tools.ceremonies import keyid, make_key, propose, publish, sign, signer, view
from tests.repo_tools.site import Site

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def request_(site: Site) -> Request:
    """A request that concerns root and targets, half signed."""
    wish = [
        ReplaceKey("root", keyid(site, "carol", "root"), make_key(site, "dave", "root")),
        AddKey("channels", make_key(site, "dave", "channels")),
    ]
    return sign(propose(site, *wish), site, "alice/root", "alice/targets")


def edited(request: Request, edit: Edit) -> bytes:
    raw = json.loads(request.to_bytes())
    edit(raw)
    return json.dumps(raw).encode()


def inside(part: str, edit: Edit) -> Edit:
    """Edit the metadata that stands as text in a field, such as ``proposed.root``."""

    def outer(raw: dict[str, Any]) -> None:
        *path, last = part.split(".")
        for name in path:
            raw = raw[name]
        place: Any = int(last) if isinstance(raw, list) else last
        document = json.loads(raw[place])
        edit(document)
        raw[place] = json.dumps(document)

    return outer


def test_it_comes_back_as_it_went(request_: Request) -> None:
    again = Request.parse(request_.to_bytes())
    assert again.to_bytes() == request_.to_bytes()
    assert again.digest == request_.digest


def test_words_stay_the_same_while_signatures_gather(site: Site, request_: Request) -> None:
    assert sign(request_, site, "bob/root", "dave/root").words == request_.words
    assert propose(site, Renew("root")).words != request_.words


def _set(name: str, value: Any) -> Edit:
    return lambda raw: raw.__setitem__(name, value)


def _threshold(document: dict[str, Any]) -> None:
    document["signed"]["roles"]["root"]["threshold"] = 1


def _unsign(document: dict[str, Any]) -> None:
    document["signatures"] = document["signatures"][:1]


def _break_signature(document: dict[str, Any]) -> None:
    sig = document["signatures"][0]["sig"]
    document["signatures"][0]["sig"] = ("0" if sig[0] != "0" else "1") + sig[1:]


def _twice(document: dict[str, Any]) -> None:
    document["signatures"].append(document["signatures"][0])


def _stranger(document: dict[str, Any]) -> None:
    document["signatures"].append({"keyid": "ab" * 32, "sig": "00" * 64})


def _two_ids(document: dict[str, Any]) -> None:
    """Attack row 21: one key under two ids."""
    signed = document["signed"]
    first = signed["roles"]["root"]["keyids"][0]
    signed["keys"]["cd" * 32] = signed["keys"][first]
    signed["roles"]["root"]["keyids"].append("cd" * 32)


def _bins(document: dict[str, Any]) -> None:
    delegations = document["signed"]["delegations"]
    del delegations["roles"]
    delegations["succinct_roles"] = {
        "keyids": [],
        "threshold": 1,
        "bit_length": 8,
        "name_prefix": "bin",
    }


def _new_document(document: dict[str, Any]) -> None:
    file = {"length": 1, "hashes": {"sha256": "ab" * 32}}
    document["signed"]["targets"]["policies/alpha.json"] = file


TAMPERED: dict[str, tuple[Edit, str]] = {
    "no schema": (lambda raw: raw.pop("schema"), "schema"),
    "another schema": (_set("schema", "modelward/signing-request/2"), "schema"),
    "critical": (_set("critical", ["new"]), "not understood"),
    "another repository": (_set("repository", "ab" * 32), "names another repository"),
    "no roots": (_set("roots", []), "roots: is empty"),
    "a root that is not text": (_set("roots", [{}]), r"roots\[0\]: must be a string"),
    "no metadata": (_set("roots", ["{}"]), "is not TUF metadata"),
    "targets in place of root": (lambda raw: raw.update(roots=[raw["targets"]]), "another role"),
    "a skipped root": (inside("roots.0", lambda doc: doc["signed"].update(version=2)), "version 2"),
    "a weaker root": (inside("roots.0", _threshold), "is not signed as it must be"),
    "a root below threshold": (inside("roots.0", _unsign), "is not signed as it must be"),
    "targets below threshold": (inside("targets", _unsign), "are not signed as they must be"),
    "another threshold": (inside("proposed.root", _threshold), "on root is not valid"),
    "a broken signature": (inside("proposed.root", _break_signature), "alice .* is not valid"),
    "a signature twice": (inside("proposed.root", _twice), "Multiple signatures"),
    "a stranger's signature": (inside("proposed.root", _stranger), "may not sign it"),
    "one key, two ids": (inside("proposed.root", _two_ids), "key id is not the hash"),
    "hashed bins": (inside("proposed.targets", _bins), "hashed bins"),
    "a jump of root": (
        inside("proposed.root", lambda doc: doc["signed"].update(version=9)),
        "the proposed root has version 9, but root 1 is in force",
    ),
    "a document unseen": (inside("proposed.targets", _new_document), "does not carry"),
    "another document": (
        lambda raw: raw["documents"].update({"policy.json": "{}"}),
        "'policy.json' is not the document",
    ),
    "a document nobody lists": (
        lambda raw: raw["documents"].update({"x.json": "{}"}),
        "'x.json' is not the document",
    ),
    "nothing": (lambda raw: raw["proposed"].update(root=None, targets=None), "proposes nothing"),
    "a number of root": (
        lambda raw: raw["proposed"].update(numbers={"root": 9}),
        "is not a role that is signed online",
    ),
    "a number of nobody": (
        lambda raw: raw["proposed"].update(numbers={"x": 9}),
        "is not a role that is signed online",
    ),
    "a control character": (_set("note", "\x1b[2J"), "control or unprintable"),
    "duplicate keys within": (
        lambda raw: raw["proposed"].update(root='{"signed": 1, "signed": 2}'),
        "appears twice",
    ),
}


@pytest.mark.parametrize(("edit", "problem"), TAMPERED.values(), ids=TAMPERED)
def test_whatever_was_tampered_with_is_refused(request_: Request, edit: Edit, problem: str) -> None:
    with pytest.raises(Refused, match=problem):
        Request.parse(edited(request_, edit))


def test_a_number_changes_the_words(request_: Request) -> None:
    """It is not in the metadata, so signers must be able to hear of it."""
    numbered = Request.parse(
        edited(request_, lambda raw: raw["proposed"].update(numbers={"timestamp": 99}))
    )
    assert numbered.words != request_.words


def test_too_long(request_: Request) -> None:
    with pytest.raises(FormatError, match="at most 4194304 are allowed"):
        Request.parse(request_.to_bytes() + b" " * CAP)


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_file_is_refused_in_words(data: st.DataObject, damaged: bytes) -> None:
    at = data.draw(st.integers(0, len(damaged) - 1))
    piece = data.draw(st.binary(max_size=4))
    broken = damaged[:at] + piece + damaged[at + data.draw(st.integers(0, 8)) :]
    with contextlib.suppress(Refused):  # and with no other error
        request = Request.parse(broken)
        # Only what nobody signs may differ: note, time, changes, white space. White space in a
        # file that it builds upon makes that another file, and its signers hear other words.
        good = Request.parse(damaged)
        files = [(each.trusted.roots[-1], each.trusted.targets_file) for each in (request, good)]
        assert (request.digest == good.digest) == (files[0] == files[1])
        for role in ("root", "targets"):
            one, other = request.metadata(role), good.metadata(role)
            assert one
            assert other
            assert one.signatures == other.signatures


@pytest.fixture(scope="module")
def damaged(template: Site, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    site = template.copy(tmp_path_factory.mktemp("damaged"))
    request = propose(site, Renew("root"), Renew("targets"))
    return sign(request, site, "alice/root", "alice/targets").to_bytes()


def test_a_root_that_the_signer_knows(site: Site) -> None:
    request = propose(site, Renew("root"))
    first = (site.directory / "metadata/1.root.json").read_bytes()
    assert check_known_root(request, first) == 1
    publish(site, sign(request, site, "alice/root", "bob/root"))
    newer = propose(site, SetThreshold("root", 3))
    assert check_known_root(newer, first) == 1
    second = (site.directory / "metadata/2.root.json").read_bytes()
    assert check_known_root(newer, second) == 2
    with pytest.raises(Rejected, match="you know root 2 already"):
        check_known_root(request, second)
    with pytest.raises(FormatError, match="metadata of another role"):
        check_known_root(request, site.metadata("targets").to_bytes())
    with pytest.raises(Rejected, match="another repository than the root you know"):
        check_known_root(request, first.replace(b'"threshold":2', b'"threshold":3', 1))
    assert check_known_root(request, first + b"\n") == 1


def test_a_second_signature_by_one_key(site: Site, request_: Request) -> None:
    with pytest.raises(ModelwardError, match="has signed this request already"):
        sign(request_, site, "alice/root")


def test_a_signature_by_a_stranger(site: Site, request_: Request) -> None:
    for name in ("repository/timestamp", "carol/channels"):
        if name == "carol/channels":
            make_key(site, "carol", "channels")
        with pytest.raises(ModelwardError, match="may not sign this request") as caught:
            sign(request_, site, name)
        assert "for root: alice" in caught.value.advice
        assert "for targets: alice" in caught.value.advice


def test_copies_are_merged_in_any_order(site: Site) -> None:
    request = propose(site, Renew("root"), Renew("targets"))
    alice = sign(request, site, "alice/root")
    bob = sign(request, site, "bob/targets", "bob/root")
    merged = ceremony.merge({"a": alice, "b": bob, "c": request})
    other = ceremony.merge({"c": request, "b": bob, "a": alice})
    for role in ("root", "targets"):
        one, two = merged.metadata(role), other.metadata(role)
        assert one
        assert two
        assert one.signatures == two.signatures
    assert ceremony.merge({"a": merged, "b": merged}).to_bytes() == merged.to_bytes()


def test_another_proposal_cannot_be_merged(site: Site) -> None:
    one, other = propose(site, Renew("root")), propose(site, SetThreshold("root", 3))
    with pytest.raises(Rejected, match=r"b.json \(.*\) is another request than a.json"):
        ceremony.merge({"a.json": one, "b.json": other})


def test_a_key_that_signs_wrongly_is_found_out(site: Site, request_: Request) -> None:
    class Broken:
        public_key = signer(site, "bob", "root").public_key

        def sign(self, payload: bytes) -> Any:
            return signer(site, "bob", "root").sign(payload + b"!")

    with pytest.raises(Rejected, match=r"signature of bob .* on root is not valid"):
        ceremony.sign(request_, Broken())  # type: ignore[arg-type]


def test_the_file_has_what_signing_offline_takes_and_no_more(site: Site) -> None:
    request = propose(site, Renew("root"))
    assert set(request.trusted.documents) == {
        "policy.json",
        "policies/alpha.json",
        "policies/beta.json",
    }
    assert len(request.to_bytes()) < 40_000
    assert view(site).documents.keys() > request.trusted.documents.keys()
