"""The changes that `modelward-repo ceremony propose` knows: one small command each."""

from pathlib import Path

import click

from modelward.errors import FormatError, UsageError
from modelward.formats import policy as policies
from modelward.formats import strict
from modelward.formats.names import check_name
from modelward.formats.policy import FleetPolicy, ModelPolicy
from modelward_repo.cli.propose import Scene, argument, declare, propose
from modelward_repo.cli.times import period
from modelward_repo.roles import carry, ceremony, proposal
from modelward_repo.roles import changes as change
from modelward_repo.roles.changes import Change, HeldKey
from modelward_repo.roles.policy import RoleTrust
from modelward_repo.roles.request import CAP
from modelward_repo.roles.state import LEAST, find_key, known_role, name_owners, owner_names

__all__ = ["propose"]

_FILE = click.Path(path_type=Path, dir_okay=False)
_ROLE = argument("role")
_NEW_KEY = argument("key")
_MODEL = argument("model")
_HOLDER = click.Option(["--holder"], help="Who holds the key. Default: as its file is named.")


@declare("add-key", _ROLE, _NEW_KEY, _HOLDER)
def _add_key(scene: Scene, role: str, key: str, holder: str | None) -> list[Change]:
    """Let one more KEY sign as ROLE."""
    known_role(scene.view, role)
    return [change.AddKey(role, scene.key(key, holder))]


@declare("remove-key", _ROLE, argument("key", metavar="HOLDER|KEYID"))
def _remove_key(scene: Scene, role: str, key: str) -> list[Change]:
    """Let a key no longer sign as ROLE."""
    return [change.RemoveKey(role, find_key(scene.view, role, key))]


@declare("replace-key", _ROLE, argument("old", metavar="HOLDER|KEYID"), _NEW_KEY, _HOLDER)
def _replace_key(scene: Scene, role: str, old: str, key: str, holder: str | None) -> list[Change]:
    """Let KEY sign as ROLE in place of an old one: lost, stolen, or of an old algorithm."""
    return [change.ReplaceKey(role, find_key(scene.view, role, old), scene.key(key, holder))]


@declare("remove-holder", argument("holder"))
def _remove_holder(scene: Scene, holder: str) -> list[Change]:
    """Take every key away from HOLDER, in all roles and among the owners of layouts."""
    return proposal.holder_leaves(scene.view, holder)


@declare("set-threshold", _ROLE, argument("threshold", type=int))
def _set_threshold(scene: Scene, role: str, threshold: int) -> list[Change]:
    """Have THRESHOLD keys sign as ROLE."""
    del scene
    return [change.SetThreshold(role, threshold)]


@declare("set-expiry", _ROLE, argument("validity", metavar="PERIOD"))
def _set_expiry(scene: Scene, role: str, validity: str) -> list[Change]:
    """Have what ROLE signs be valid for PERIOD, such as 365d or 12h."""
    del scene
    return [change.SetExpiry(role, period(validity))]


@declare("renew", argument("roles", nargs=-1, required=True, metavar="root|targets..."))
def _renew(scene: Scene, roles: tuple[str, ...]) -> list[Change]:
    """Sign root, targets or both anew as they are, before they expire."""
    del scene
    return [change.Renew(role) for role in roles]


@declare(
    "add-model",
    _MODEL,
    click.Option(
        ["--key", "-K", "keys_"],
        multiple=True,
        required=True,
        help="A key that may release it; repeatable.",
    ),
    click.Option(
        ["--threshold"],
        type=int,
        default=1,
        show_default=True,
        help="How many must sign a release.",
    ),
    click.Option(
        ["--expires"], default="90d", show_default=True, help="How long what they sign is valid."
    ),
    click.Option(
        ["--owner", "owners"],
        multiple=True,
        required=True,
        help="A key that owns the layout; repeatable.",
    ),
    click.Option(
        ["--owners-threshold"],
        type=int,
        default=2,
        show_default=True,
        help="How many owners must sign it.",
    ),
    click.Option(["--layout"], type=_FILE, required=True, help="The layout, signed by its owners."),
)
def _add_model(
    scene: Scene,
    model: str,
    keys_: tuple[str, ...],
    threshold: int,
    expires: str,
    owners: tuple[str, ...],
    owners_threshold: int,
    layout: Path,
) -> list[Change]:
    """Let MODEL be released, under a role, a policy and a layout of its own."""
    held = [scene.key(reference) for reference in keys_]
    owning = [scene.key(reference) for reference in owners]
    if not 1 <= owners_threshold <= len(owning):
        raise UsageError(f"{owners_threshold} of {len(owning)} owners cannot be the threshold")
    policy = ModelPolicy(
        model=_name(model),
        owners={one.key.keyid: one.key for one in owning},
        threshold=owners_threshold,
    )
    names = {one.key.keyid: one.holder for one in owning}
    trust = RoleTrust(tuple(one.holder for one in held), threshold, period(expires))
    keys = tuple(one.key for one in held)
    document = carry.read(layout)
    named = name_owners(policy.to_bytes(), names)
    return [change.AddModel(model, trust, keys, named, document)]


@declare("remove-model", _MODEL)
def _remove_model(scene: Scene, model: str) -> list[Change]:
    """Let MODEL no longer be released. Devices that run it keep it."""
    del scene
    return [change.RemoveModel(model)]


@declare("set-layout", _MODEL, argument("layout", type=_FILE))
def _set_layout(scene: Scene, model: str, layout: Path) -> list[Change]:
    """Have releases of MODEL prove the steps of LAYOUT, a file that its owners have signed."""
    del scene
    return [change.SetDocument(policies.layout_path(_name(model)), carry.read(layout))]


@declare(
    "set-layout-owners",
    _MODEL,
    argument("keys_", nargs=-1, required=True, metavar="KEY|HOLDER..."),
    click.Option(["--threshold"], type=int, help="How many must sign. Default: as it is."),
)
def _set_layout_owners(
    scene: Scene, model: str, keys_: tuple[str, ...], threshold: int | None
) -> list[Change]:
    """Have these keys, and no others, own the layout of MODEL.

    Owners who stay may be named by holder or key id, as reviews show them. The layout must be
    signed by enough of the new owners: if it is not yet, have it signed and add
    --also 'set-layout MODEL layout.json'.
    """
    policy = scene.view.policy(_name(model))
    if policy is None:
        raise UsageError(f"there is no model {model!r} whose layout has owners")
    names = owner_names(scene.view.documents.get(policies.model_policy_path(model)))
    held = []
    for reference in keys_:
        present = [
            HeldKey(key, names.get(keyid, ""))
            for keyid, key in policy.owners.items()
            if names.get(keyid) == reference
            or (len(reference) >= LEAST and keyid.startswith(reference))
        ]
        held.append(present[0] if len(present) == 1 else scene.key(reference))
    return [change.SetLayoutOwners(model, tuple(held), threshold or policy.threshold)]


@declare(
    "set-policy", argument("document", metavar="policy.json|MODEL"), argument("file", type=_FILE)
)
def _set_policy(scene: Scene, document: str, file: Path) -> list[Change]:
    """Set the fleet's policy (policy.json), or the policy of a MODEL, from FILE."""
    del scene
    fleet = document == FleetPolicy.TARGET
    path = document if fleet else policies.model_policy_path(_name(document))
    return [change.SetDocument(path, carry.read(file))]


@declare("set-log", argument("file", metavar="FILE|none"))
def _set_log(scene: Scene, file: str) -> list[Change]:
    """Demand that publications are in the log that the JSON of FILE names, or in none."""
    del scene
    if file == "none":
        return [change.SetLog(None)]
    try:
        log = strict.load(file, carry.read(Path(file)), CAP)
    except FormatError as error:
        raise UsageError(f"{file}: {error.problem}") from error
    if not isinstance(log, dict):
        raise UsageError(f"{file} is not a log policy: a JSON object")
    return [change.SetLog(log)]


@declare("bump-version", _ROLE, argument("version", type=int))
def _bump_version(scene: Scene, role: str, version: int) -> list[Change]:
    """After a theft: have ROLE continue from VERSION, past what the thief may have signed."""
    del scene
    return [change.BumpVersion(role, version)]


@declare("reset-floors", argument("model"), argument("counter", type=int))
def _reset_floors(scene: Scene, model: str, counter: int) -> list[Change]:
    """After a theft: have devices accept releases of MODEL again from COUNTER on, once."""
    del scene
    return [change.ResetFloors(_name(model), counter)]


@declare("restore-targets", argument("version", type=int))
def _restore_targets(scene: Scene, version: int) -> list[Change]:
    """After a theft: go back to what targets said in VERSION, under a new version."""
    return [change.RestoreTargets(*ceremony.load_targets(scene.storage, version, scene.staging))]


def _name(model: str) -> str:
    try:
        return check_name(model)
    except ValueError as error:
        raise UsageError(str(error)) from error
