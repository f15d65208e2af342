"""What a signer sees: everything that changes, and everything that is risky about it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tuf.api.metadata import Metadata

from modelward.formats import policy as policies
from modelward.formats.policy import FleetPolicy, ModelPolicy
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.changes import (
    AddKey,
    AddModel,
    BumpVersion,
    Change,
    RemoveKey,
    RemoveModel,
    Renew,
    ReplaceKey,
    ResetFloors,
    SetDocument,
    SetExpiry,
    SetLayoutOwners,
    SetLog,
    SetThreshold,
)
from modelward_repo.roles.policy import RoleTrust
from modelward_repo.roles.request import Request
from modelward_repo.roles.review import Level, Review, page, review, text
from modelward_repo.roles.state import owner_names
from tests.repo_tools.ceremonies import keyid, make_key, now, propose, sign, view
from tests.repo_tools.site import Site

DAY = timedelta(days=1)


def seen(request: Request, later: timedelta = timedelta()) -> Review:
    return review(Request.parse(request.to_bytes()), now() + later)


def said(found: Review, role: str) -> list[str]:
    return [item.text for item in found.differences if item.role == role]


def warned(found: Review, role: str, words: str) -> Level | None:
    return next(
        (item.level for item in found.cautions if item.role == role and words in item.text), None
    )


def has(found: Sequence[str], *words: str) -> bool:
    return any(all(word in line for word in words) for line in found)


def test_keys_and_thresholds(site: Site) -> None:
    carol = keyid(site, "carol", "root")
    found = seen(
        propose(
            site,
            ReplaceKey("root", carol, make_key(site, "dave", "root")),
            SetThreshold("root", 1),
        )
    )
    new = keyid(site, "dave", "root")
    assert has(said(found, "root"), "KEY ADDED: dave", "ed25519, may sign as root", new)
    assert has(said(found, "root"), f"KEY REMOVED: carol ({carol[:8]}) may no longer")
    assert has(said(found, "root"), "THRESHOLD LOWERED: 1 of 3 keys must sign as root; it was 2")
    assert has(said(found, "root"), "VERSION 1 -> 2; expires")
    assert found.to_type == ("root",)
    assert warned(found, "root", "one key is enough") is Level.DANGER


def test_an_ordinary_renewal_asks_for_no_name(site: Site) -> None:
    found = seen(propose(site, Renew("root"), Renew("targets")))
    assert found.to_type == ()
    assert not found.cautions


def test_threshold_of_all_keys(site: Site) -> None:
    found = seen(propose(site, SetThreshold("root", 3)))
    assert warned(found, "root", "if one is lost, root can never change again") is Level.DANGER
    assert warned(seen(propose(site, SetThreshold("targets", 3))), "targets", "only root can mend")


def test_a_weakness_that_was_there_before_is_only_noted(site: Site) -> None:
    from tests.repo_tools.ceremonies import change  # noqa: PLC0415

    change(site, SetThreshold("root", 1))
    found = seen(propose(site, Renew("root")))
    assert warned(found, "root", "one key is enough") is Level.NOTE
    assert found.to_type == ()


def test_a_key_in_two_roles(site: Site) -> None:
    held = make_key(site, "dave", "root")
    found = seen(propose(site, AddKey("root", held), AddKey("targets", held)))
    assert warned(found, "root", "is a key of root and targets") is Level.DANGER
    found = seen(propose(site, AddKey("channels", held), AddKey("model-alpha", held)))
    assert warned(found, "channels", "is a key of channels and model-alpha") is Level.NOTE


def test_a_layout_owner_who_also_releases(site: Site) -> None:
    policy = view(site).policy("alpha")
    assert policy
    owner = next(iter(policy.owners.values()))
    from modelward_repo.roles.changes import HeldKey  # noqa: PLC0415

    found = seen(propose(site, AddKey("model-alpha", HeldKey(owner, "lead-a"))))
    assert warned(found, "model-alpha", "is a key of model-alpha, layout of alpha")


def test_one_person_with_two_keys_of_a_role(site: Site) -> None:
    from modelward_repo.roles.changes import HeldKey  # noqa: PLC0415

    key = make_key(site, "alice-2", "root").key
    found = seen(propose(site, AddKey("root", HeldKey(key, "alice"))))
    assert warned(found, "root", "alice holds 2 of the 4 keys") is Level.DANGER


def test_a_removed_holder_who_still_holds_another_key(site: Site) -> None:
    found = seen(
        propose(
            site,
            ReplaceKey("root", keyid(site, "carol", "root"), make_key(site, "dave", "root")),
        )
    )
    assert warned(found, "root", "carol no longer signs as root, but still holds a key of targets")
    both = [
        ReplaceKey(role, keyid(site, "bob", role), make_key(site, "eve", role))
        for role in ("root", "targets")
    ]
    assert not warned(seen(propose(site, *both)), "root", "still holds")


def test_half_of_a_stolen_machine(site: Site) -> None:
    new = make_key(site, "repository-2", "timestamp")
    wish = ReplaceKey("timestamp", keyid(site, "repository", "timestamp"), new)
    assert warned(seen(propose(site, wish)), "snapshot", "After a theft replace both")


@pytest.mark.parametrize(
    ("role", "period", "words", "level"),
    [
        ("root", 5 * DAY, "only 5 days", Level.DANGER),
        ("root", 3000 * DAY, "for 3000 days", Level.DANGER),
        ("timestamp", 30 * DAY, "for 30 days", Level.NOTE),
        ("timestamp", timedelta(minutes=5), "only 5 minutes", Level.NOTE),
        ("model-alpha", timedelta(hours=2), "only 2 hours", Level.NOTE),
        ("channels", 1000 * DAY, "for 1000 days", Level.NOTE),
    ],
)
def test_validity_too_short_or_too_long(
    site: Site, role: str, period: timedelta, words: str, level: Level
) -> None:
    found = seen(propose(site, SetExpiry(role, period)))
    assert warned(found, role, words) is level
    assert has(said(found, role), "VALIDITY")


def test_a_fast_forwarded_version(site: Site) -> None:
    found = seen(propose(site, BumpVersion("targets", 5000), BumpVersion("timestamp", 2**52)))
    assert warned(found, "targets", "jumps to version 5000") is Level.DANGER
    assert warned(found, "timestamp", "hardly any for later ones") is Level.DANGER
    assert set(found.to_type) == {"targets", "timestamp"}
    assert not warned(seen(propose(site, BumpVersion("targets", 50))), "targets", "jumps")


def test_a_threshold_that_nobody_reaches_stops_everybody(site: Site) -> None:
    """No proposal of ours has it; another tool's may."""
    request = propose(site, Renew("root"))
    found = seen(_with_root(request, lambda root: root.roles["snapshot"].keyids.clear()))
    assert warned(found, "snapshot", "nobody could sign as snapshot ever again") is Level.STOP
    assert text.conclusion(found) == "DO NOT SIGN: see STOP above."


def test_models_come_and_go(site: Site) -> None:
    found = view(site)
    held = make_key(site, "ci", "model-gamma")
    raw = json.loads(found.documents["policies/alpha.json"])
    raw["model"] = "gamma"
    wish = AddModel(
        "gamma",
        RoleTrust(("ci",), 1, 90 * DAY),
        (held.key,),
        json.dumps(raw).encode(),
        found.documents["layouts/alpha.json"],
    )
    added = seen(propose(site, wish))
    assert has(said(added, "model-gamma"), "NEW ROLE: 1 of ci", "may release the model gamma")
    assert has(said(added, "layout of gamma"), "LAYOUT OWNERS: 2 of lead-a")
    assert has(said(added, "layout of gamma"), "LAYOUT SET", "steps package, approve")
    gone = seen(propose(site, RemoveModel("beta")))
    assert has(said(gone, "model-beta"), "ROLE REMOVED")
    assert "model-beta" in gone.to_type


def test_layout_owners(site: Site) -> None:
    found = view(site)
    names = owner_names(found.documents["policies/alpha.json"])
    assert sorted(names.values()) == ["lead-a", "lead-b", "lead-c"]
    policy = found.policy("alpha")
    assert policy
    from modelward_repo.roles.changes import HeldKey  # noqa: PLC0415

    stay = [HeldKey(key, names[i]) for i, key in policy.owners.items() if names[i] != "lead-c"]
    wish = SetLayoutOwners("alpha", (*stay, make_key(site, "lead-d", "layout")), 1)
    changed = seen(propose(site, wish))
    about = "layout of alpha"
    assert has(said(changed, about), "OWNER ADDED: lead-d")
    assert has(said(changed, about), "OWNER REMOVED: lead-c")
    assert has(said(changed, about), "OWNERS' THRESHOLD: 1 of 3 must sign", "it was 2 of 3")
    assert about in changed.to_type
    assert warned(changed, about, "one owner alone") is Level.NOTE
    power = next(power for power in changed.powers if power.role == about)
    assert [str(who).split()[0] for who in power.gone] == ["lead-c"]
    assert {who.name for who in power.keys if who.new} == {"lead-d"}


def test_an_expired_layout_stops_everybody(site: Site) -> None:
    request = propose(site, SetLayoutOwners("alpha", _owners(site), 2))
    assert not warned(seen(request), "layout of alpha", "refuse every release")
    assert warned(seen(request, 370 * DAY), "layout of alpha", "the layout expired") is Level.STOP


def test_policies(site: Site) -> None:
    documents = view(site).documents
    fleet = FleetPolicy.parse(documents[FleetPolicy.TARGET])
    new = FleetPolicy((*fleet.channels[1:], "canary"), fleet.formats[1:])
    found = seen(propose(site, SetDocument(FleetPolicy.TARGET, new.to_bytes())))
    assert has(said(found, "targets"), "CHANNEL ADDED", "canary")
    assert has(said(found, "targets"), "CHANNEL REMOVED", fleet.channels[0])
    assert has(said(found, "targets"), "FILE FORMAT REMOVED", fleet.formats[0])
    raw = json.loads(documents["policies/alpha.json"])
    raw["metrics"] = [{"file": "m.json", "name": "accuracy", "min": 0.95, "max": None}]
    path = policies.model_policy_path("alpha")
    found = seen(propose(site, SetDocument(path, json.dumps(raw).encode())))
    assert has(said(found, "targets"), "BOUND ADDED for alpha: accuracy in m.json", "at least 0.95")
    assert ModelPolicy.parse(found.request.after.documents[path]).metrics
    raw["health"] = {"required": True, "latency_ms": 50}
    found = seen(propose(site, SetDocument(path, json.dumps(raw).encode())))
    assert has(said(found, "targets"), "HEALTH ON DEVICES of alpha", "at most 50 ms a run")


def test_the_log(site: Site) -> None:
    vkey = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
    log = {"vkey": vkey, "witnesses": {}, "quorum": "none"}
    found = seen(propose(site, SetLog(log)))
    assert has(said(found, "root"), "LOG REQUIRED", vkey)
    assert found.to_type == ("root",)


def test_lowered_floors(site: Site) -> None:
    found = seen(propose(site, ResetFloors("alpha", 17), ResetFloors("beta", 3)))
    assert has(said(found, "root"), "FLOORS LOWERED", "releases of alpha", "counter 17")
    assert has(said(found, "root"), "FLOORS LOWERED", "releases of beta", "counter 3")


def _with_root(request: Request, edit: Any) -> Request:
    assert request.proposed.root
    edit(request.proposed.root.signed)
    return request


def _spec(root: Any) -> None:
    root.consistent_snapshot = False


def _foreign(root: Any) -> None:
    root.unrecognized_fields["x-other"] = {"a": 1}


def _role_field(root: Any) -> None:
    root.roles["timestamp"].unrecognized_fields["x-url"] = "https://example"


def _key_field(root: Any) -> None:
    next(iter(root.keys.values())).unrecognized_fields["x-note"] = "hello"


def _idle_key(root: Any) -> None:
    root.roles["root"].keyids.pop()


def _renamed(root: Any) -> None:
    keys = [root.keys[keyid] for keyid in root.roles["root"].keyids]
    keys[0].unrecognized_fields[tuf.HOLDER] = "mallory"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_spec, ["NOT UNDERSTOOD", "consistent_snapshot", "from true to false"]),
        (_foreign, ["NOT UNDERSTOOD", "x-other", '{"a": 1}']),
        (_role_field, ["NOT UNDERSTOOD", "role timestamp", "x-url"]),
        (_key_field, ["NOT UNDERSTOOD", "x-note"]),
        (_idle_key, ["KEY REMOVED"]),
        (_renamed, ["HOLDER RENAMED", "held by mallory instead of alice"]),
    ],
)
def test_nothing_changes_unseen(site: Site, edit: Any, words: list[str]) -> None:
    found = seen(_with_root(propose(site, Renew("root")), edit))
    assert has(said(found, "root"), *words)
    assert "root" in found.to_type


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("paths", ["*"], ["PATHS: model-alpha now signs", "the paths *"]),
        ("terminating", False, ["PATHS: model-alpha now signs", "not exclusively"]),
        ("name", "extra", ["NEW ROLE", "sign as 'extra'", "models/alpha/*/*"]),
    ],
)
def test_delegations_are_seen(site: Site, field: str, value: Any, words: list[str]) -> None:
    request = propose(site, Renew("targets"))
    assert request.proposed.targets
    raw = request.proposed.targets.to_dict()
    role = next(
        one for one in raw["signed"]["delegations"]["roles"] if one["name"] == "model-alpha"
    )
    role[field] = value
    targets = Metadata.from_dict(raw)
    found = seen(replace(request, proposed=replace(request.proposed, targets=targets)))
    lines = [item.text for item in found.differences if item.dangerous]
    assert has(lines, *words)


def test_who_has_signed_and_who_is_missing(site: Site) -> None:
    wish = ReplaceKey("root", keyid(site, "carol", "root"), make_key(site, "dave", "root"))
    request = propose(site, wish, Renew("targets"))
    found = seen(sign(request, site, "alice/root", "carol/root", "bob/targets"))
    sides = {(side.role, side.by): side for side in found.sides}
    assert len(sides) == 3
    present = sides["root", "the PRESENT root"]
    assert [str(who).split()[0] for who in present.signed] == ["alice", "carol"]
    assert present.needed == 0
    new = sides["root", "the NEW root"]
    assert {who.name for who in new.missing} == {"bob", "dave"}
    assert new.needed == 1
    assert not found.ready
    assert "for root bob" in text.conclusion(found)
    assert "for targets alice" in text.conclusion(found)
    ready = seen(sign(found.request, site, "bob/root", "alice/targets"))
    assert ready.ready
    assert text.conclusion(ready).startswith("READY")


def test_a_clock_that_is_behind_or_far_ahead(site: Site) -> None:
    request = propose(site, Renew("root"))
    found = seen(request, -400 * DAY)
    assert found.stops[0].text.startswith("this machine's clock is wrong: it says")
    found = seen(request, 400 * DAY)
    assert warned(found, "root", "would have expired already") is Level.STOP
    found = seen(request, 60 * DAY)
    assert not found.stops
    assert warned(found, "root", "made 60 days ago") is Level.NOTE
    found = seen(request, -timedelta(hours=5, minutes=30))  # a second passes meanwhile
    assert not found.stops
    assert warned(found, "root", "5 hours behind") is Level.NOTE


def test_a_clock_that_was_wrong_when_it_was_proposed(site: Site) -> None:
    from modelward_repo.roles import ceremony  # noqa: PLC0415
    from modelward_repo.storage.local import LocalStorage  # noqa: PLC0415

    storage = LocalStorage(site.directory)
    wish = ceremony.Wish([Renew("root")])
    found = seen(ceremony.propose(storage, wish, now() - 1000 * DAY))
    assert warned(found, "root", "the clock of whoever proposed this was wrong") is Level.STOP
    found = seen(ceremony.propose(storage, wish, now() + 1000 * DAY))
    assert warned(found, "root", "this machine's clock is wrong") is Level.STOP


def test_an_expiry_that_is_not_what_the_validity_says(site: Site) -> None:
    request = propose(site, Renew("root"))
    assert request.proposed.root
    request.proposed.root.signed.expires += 700 * DAY
    assert warned(seen(request), "root", "the new root expires") is Level.DANGER


def test_the_page_says_the_same_and_loads_nothing(site: Site) -> None:
    request = propose(site, SetThreshold("root", 3))
    found = seen(request)
    html = page.html(found)
    assert request.words in html
    assert request.digest in html
    assert "<svg" in html
    for line in (item.text for item in found.differences):
        assert line.split(":")[0].replace(">", "&gt;") in html
    assert "src=" not in html
    assert "href" not in html
    assert "<script" not in html


def test_what_people_wrote_cannot_speak_to_the_terminal_or_the_page(site: Site) -> None:
    from modelward_repo.roles import ceremony  # noqa: PLC0415
    from modelward_repo.storage.local import LocalStorage  # noqa: PLC0415

    wish = ceremony.Wish([Renew("root")], note="<script>alert(1)</script>")
    found = seen(ceremony.propose(LocalStorage(site.directory), wish, now()))
    assert "<script" not in page.html(found)
    request = found.request
    key = next(iter(request.before.keys("root").values()))
    key.unrecognized_fields[tuf.HOLDER] = "eve\x1b[2J"
    assert "\x1b" not in "".join(text.lines(review(request, now())))


def test_of_many_models_only_those_that_change_are_shown(site: Site) -> None:
    found = seen(propose(site, AddKey("model-alpha", make_key(site, "dave", "model-alpha"))))
    assert "as before" not in "\n".join(text.powers(found))
    others = tuple(
        replace(power, role=f"model-{n}") for n in range(9) for power in found.powers[-1:]
    )
    many = "\n".join(text.powers(replace(found, powers=(*found.powers, *others))))
    assert "as before: model-beta, layout of alpha, layout of beta, model-0" in many
    assert "dave" in many


@pytest.mark.parametrize("width", [80, 100])
def test_every_line_fits_a_terminal(site: Site, width: int) -> None:
    wish: list[Change] = [RemoveKey("root", keyid(site, "bob", "root")), RemoveModel("beta")]
    lines = list(text.lines(seen(propose(site, *wish))))
    assert max(map(len, lines)) <= max(width, text.WIDTH)
    assert lines[1].startswith("SIGNING REQUEST")


def _owners(site: Site) -> Any:
    from modelward_repo.roles.changes import HeldKey  # noqa: PLC0415

    policy = view(site).policy("alpha")
    assert policy
    return tuple(HeldKey(key, "x") for key in policy.owners.values())[:2]
