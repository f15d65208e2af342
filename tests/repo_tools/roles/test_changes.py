"""What cannot be proposed, because it makes no sense."""

import json
from datetime import timedelta

import pytest

from modelward.errors import UsageError
from modelward.formats.policy import FleetPolicy
from modelward_repo.roles import ceremony
from modelward_repo.roles.changes import (
    AddKey,
    AddModel,
    BumpVersion,
    HeldKey,
    RemoveKey,
    RemoveModel,
    Renew,
    ResetFloors,
    SetDocument,
    SetExpiry,
    SetLayoutOwners,
    SetLog,
    SetThreshold,
)
from modelward_repo.roles.keys import from_sslib
from modelward_repo.roles.policy import RoleTrust
from modelward_repo.roles.proposal import holder_leaves
from modelward_repo.roles.state import find_key
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.ceremonies import keyid, make_key, now, propose, view
from tests.repo_tools.site import Site, files_of


def test_proposing_changes_nothing(site: Site) -> None:
    before = files_of(site.directory)
    propose(site, Renew("root"), AddKey("channels", make_key(site, "dave", "channels")))
    assert files_of(site.directory) == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (SetThreshold("root", 2), "the threshold of root is 2 already"),
        (SetThreshold("root", 0), "a threshold is from 1 to 64"),
        (SetThreshold("root", 4), "root would need 4 signatures, but have only 3 keys"),
        (SetThreshold("other", 4), "no role 'other'"),
        (SetExpiry("root", timedelta(days=365)), "valid for that long already"),
        (Renew("timestamp"), "timestamp is signed online"),
        (Renew("model-alpha"), "model-alpha is signed online"),
        (Renew("nobody"), "no role 'nobody'"),
        (RemoveKey("root", "ab" * 32), "root has no key abababab"),
        (RemoveModel("gamma"), "no role 'model-gamma'"),
        (ResetFloors("gamma", 1), "no role 'model-gamma'"),
        (ResetFloors("alpha", -1), "a counter is from 0 to"),
        (SetLog(None), "the log policy is that already"),
        (SetLog({"witnesses": {}}), "vkey: is missing"),
        (SetDocument("policy.json", b"{}"), "policy.json is not well-formed"),
        (SetDocument("policies/alpha.json", b"{"), "is not JSON"),
        (SetDocument("policies/gamma.json", b"{}"), "is not a document that targets signs"),
        (SetDocument("x", b"{}"), "is not a document that targets signs"),
        (SetLayoutOwners("gamma", (), 1), "no model 'gamma'"),
        (SetLayoutOwners("alpha", (), 1), "1 of 0 owners cannot be the threshold"),
        (BumpVersion("root", 9), "versions of root follow one another"),
        (BumpVersion("targets", 2**53), "a version is from 1 to"),
        (BumpVersion("timestamp", 99), "nothing to sign"),
    ],
)
def test_changes_that_make_no_sense(site: Site, change: ceremony.Change, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        propose(site, change)


def test_keys_that_are_there_or_not(site: Site) -> None:
    found = view(site)
    alice = found.keys("root")[keyid(site, "alice", "root")]
    with pytest.raises(UsageError, match=r"alice .* is a key of root already"):
        propose(site, AddKey("root", HeldKey(from_sslib(alice), "alice")))
    with pytest.raises(UsageError, match="is not a name"):
        propose(site, AddKey("root", HeldKey(make_key(site, "d", "root").key, "d\x07")))


def test_only_the_outcome_has_to_make_sense(site: Site) -> None:
    """In whichever order it is said."""
    wish = [SetThreshold("root", 4), AddKey("root", make_key(site, "dave", "root"))]
    for changes in (wish, wish[::-1]):
        assert propose(site, *changes).proposed.root
    back = [SetThreshold("root", 3), SetThreshold("root", 2)]
    with pytest.raises(UsageError, match="nothing to sign"):
        propose(site, *back)


def test_the_same_document_again(site: Site) -> None:
    document = view(site).documents[FleetPolicy.TARGET]
    with pytest.raises(UsageError, match="is that already"):
        propose(site, SetDocument(FleetPolicy.TARGET, document))
    other = json.loads(view(site).documents["policies/beta.json"])
    with pytest.raises(UsageError, match="is the policy of 'beta', not of 'alpha'"):
        propose(site, SetDocument("policies/alpha.json", json.dumps(other).encode()))


def test_a_model_that_is_there(site: Site) -> None:
    trust = RoleTrust(("ci",), 1, timedelta(days=1))
    key = make_key(site, "ci", "model-x").key
    with pytest.raises(UsageError, match="already has a role 'model-alpha'"):
        propose(site, AddModel("alpha", trust, (key,), b"", b""))
    with pytest.raises(UsageError, match=r"'\.\./x'"):
        propose(site, AddModel("../x", trust, (key,), b"", b""))


def test_a_holder_nobody_knows(site: Site) -> None:
    with pytest.raises(UsageError, match="no key here is held by 'zoe'"):
        holder_leaves(view(site), "zoe")


def test_keys_are_found_by_holder_or_id(site: Site) -> None:
    found, wanted = view(site), keyid(site, "alice", "root")
    for text in ("alice", wanted, wanted[:6], wanted[:8].upper()):
        assert find_key(found, "root", text) == wanted
    for text in ("zoe", wanted[:5], "ali", ""):
        with pytest.raises(UsageError, match="root has no key"):
            find_key(found, "root", text)
    key = make_key(site, "alice-2", "root").key
    from tests.repo_tools.ceremonies import change  # noqa: PLC0415

    change(site, AddKey("root", HeldKey(key, "alice")))
    with pytest.raises(UsageError, match="means more than one key of root"):
        find_key(view(site), "root", "alice")


def test_a_note_is_one_line(site: Site) -> None:
    for note in ("two\nlines", "x" * 501):
        with pytest.raises(UsageError, match="a note is one line"):
            ceremony.propose(
                LocalStorage(site.directory), ceremony.Wish([Renew("root")], note=note), now()
            )
