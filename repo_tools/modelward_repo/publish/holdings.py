"""What each key may sign in a repository, from what the repository itself says."""

from collections.abc import Iterator, Mapping

from tuf.api.metadata import Targets

from modelward.formats import dsse
from modelward.formats import policy as policies
from modelward.formats.policy import ModelPolicy
from modelward.trust.layout import Layout
from modelward_repo.publish.staging import Staging

_POLICIES = policies.model_policy_path("")[: -len(".json")]


def holdings(staging: Staging) -> Mapping[str, tuple[str, ...]]:
    """Return, by key id, the roles, layouts and steps that a key counts for.

    Raises:
        FormatError: A policy or layout is ill-formed.
    """
    found: dict[str, list[str]] = {}
    for keyid, what in _holdings(staging):
        found.setdefault(keyid, []).append(what)
    return {keyid: tuple(dict.fromkeys(whats)) for keyid, whats in found.items()}


def _holdings(staging: Staging) -> Iterator[tuple[str, str]]:
    for name, role in staging.root.signed.roles.items():
        yield from ((keyid, name) for keyid in role.keyids)
    targets = staging.targets(Targets.type).signed
    for name, delegated in ((targets.delegations and targets.delegations.roles) or {}).items():
        yield from ((keyid, name) for keyid in delegated.keyids)
    for path in sorted(targets.targets):
        if path.startswith(_POLICIES):
            yield from _of_model(staging, path[len(_POLICIES) : -len(".json")])


def _of_model(staging: Staging, model: str) -> Iterator[tuple[str, str]]:
    data = staging.target(Targets.type, policies.model_policy_path(model)) or b""
    yield from ((keyid, f"layout of {model}") for keyid in ModelPolicy.parse(data).owners)
    data = staging.target(Targets.type, policies.layout_path(model)) or b""
    layout = Layout.from_content(dsse.Envelope.parse("layout", data).content)
    for step in layout.steps:
        yield from ((keyid, f"{step.name} of {model}") for keyid in step.functionaries)
