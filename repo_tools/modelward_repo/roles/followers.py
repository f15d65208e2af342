"""A change as devices meet it: new ones, and those that have seen what is published now."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuf.api.metadata import Targets

from modelward.errors import Refused
from modelward.formats import channel as channels
from modelward.formats import dsse
from modelward.formats import policy as policies
from modelward.formats import release as releases
from modelward.formats.floors import Floors
from modelward.formats.policy import ModelPolicy
from modelward.trust import supply_chain
from modelward.trust.repository import Repository
from modelward_repo.publish.staging import FIRST_ROOT, STAGED, Staging
from modelward_repo.roles.policy import CHANNELS
from modelward_repo.roles.request import Request
from modelward_repo.roles.state import View, model_of


def check_new_device(staging: Staging, request: Request, staged: Collection[str]) -> None:
    """Read all that changed as a device would that trusts the first root."""
    old, new = request.before, request.after
    with staging.as_device() as repository:
        _load_roles(repository, staged)
        for model in new.models():
            changed = any(
                _entry(new, path) != _entry(old, path)
                for path in (policies.model_policy_path(model), policies.layout_path(model))
            )
            if changed:
                _check_model(repository, model, staging.now)


def _entry(view: View, path: str) -> dict[str, Any] | None:
    file = view.targets.targets.get(path)
    return file.to_dict() if file else None


def _check_model(repository: Repository, model: str, now: datetime) -> None:
    policy = ModelPolicy.parse(
        repository.target(policies.model_policy_path(model), policies.CAP) or b""
    )
    layout = repository.target(policies.layout_path(model), dsse.ENVELOPE_CAP)
    envelope = dsse.Envelope.parse("layout", layout or b"")
    supply_chain.verify_owners(envelope, policy)
    supply_chain.read_layout(envelope, policy, now)


def _load_roles(repository: Repository, roles: Collection[str]) -> None:
    """Verify delegated roles: looking for any path of theirs does it."""
    for role in roles:
        model = model_of(role)
        if role == CHANNELS:
            repository.target_info(channels.target_path("any"))
        elif model:
            repository.target_info(releases.target_path(model, "0"))


def check_old_device(present: Staging, staging: Staging) -> None:
    """Follow as a device does that has seen what is published now.

    If no device can use what is published now, there is none to follow.
    """
    with TemporaryDirectory(prefix="modelward-") as cache:
        try:
            seen = _as_device(present, Path(cache), None)
            _load_roles(
                seen,
                tuple(View(present.root.signed, present.targets(Targets.type).signed, {}).roles()),
            )
        except Refused:
            return
        _as_device(staging, Path(cache), seen.new_floors())


def _as_device(staging: Staging, cache: Path, floors: Floors | None) -> Repository:
    repository = Repository(
        cache=cache,
        metadata_url=f"{STAGED}metadata/",
        targets_url=f"{STAGED}targets/",
        fetcher=staging,
        root=staging.read(FIRST_ROOT),
        floors=floors,
    )
    repository.refresh()
    return repository
