"""The offline roles as a ceremony sees them: what is trusted, what is proposed, who holds what."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from securesystemslib.signer import Key as SslibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Role, Root, Targets

from modelward.errors import FormatError, ModelwardError, Refused, UsageError
from modelward.formats import policy as policies
from modelward.formats import strict
from modelward.formats.names import check_name
from modelward.formats.policy import ModelPolicy
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.holders import MAX_NAME, signed_name
from modelward_repo.roles.policy import CHANNELS, TOP_LEVEL, role_name

OFFLINE = (Root.type, Targets.type)
POLICIES = policies.model_policy_path("").removesuffix(".json")
LAYOUTS = policies.layout_path("").removesuffix(".json")
SHORT = 8  # hex digits of a key id that people compare
LEAST = 6  # and must at least give


class Rejected(Refused):
    """A ceremony cannot go on with what it was given. Nothing was changed."""

    def __init__(self, reason: str, advice: str = "") -> None:
        ModelwardError.__init__(self, reason, advice)


@dataclass(frozen=True)
class Trusted:
    """What is in force.

    Attributes:
        roots: Every root's file, from the first to the one in force.
        root: The root in force.
        targets: The targets metadata in force.
        targets_file: Its file.
        documents: The documents that targets signs, as far as they matter here, by path.
    """

    roots: tuple[bytes, ...]
    root: Metadata[Root]
    targets: Metadata[Targets]
    targets_file: bytes
    documents: Mapping[str, bytes]


@dataclass(frozen=True)
class Proposed:
    """What is to come into force.

    Attributes:
        root: The next root, with the signatures so far; None if root does not change.
        targets: The next targets metadata, with the signatures so far; None if it does not change.
        documents: Documents that the next targets metadata lists and the present one does not.
        numbers: Versions that online roles continue from when this is published.
    """

    root: Metadata[Root] | None = None
    targets: Metadata[Targets] | None = None
    documents: Mapping[str, bytes] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """Root and targets at one moment, before or after a change.

    Attributes:
        root: The root.
        targets: The targets metadata.
        documents: The documents it lists, as far as known.
    """

    root: Root
    targets: Targets
    documents: Mapping[str, bytes]

    def delegator(self, role: str) -> Root | Targets:
        """Return what delegates to a role."""
        return self.root if role in TOP_LEVEL else self.targets

    def role(self, name: str) -> Role | None:
        """Return what is said of a role, or None."""
        if name in TOP_LEVEL:
            return self.root.roles[name]
        delegations = self.targets.delegations
        return (delegations.roles or {}).get(name) if delegations else None

    def roles(self) -> tuple[str, ...]:
        """Return the names of all roles: top-level ones, channels, models."""
        delegations = self.targets.delegations
        others = list(delegations.roles or ()) if delegations else []
        return (*TOP_LEVEL, *sorted(others, key=lambda name: (name != CHANNELS, name)))

    def keys(self, name: str) -> dict[str, SslibKey]:
        """Return the keys of a role that exist, by id."""
        role = self.role(name)
        found = {}
        for keyid in role.keyids if role else ():
            try:
                found[keyid] = self.delegator(name).get_key(keyid)
            except ValueError:
                continue
        return found

    def models(self) -> tuple[str, ...]:
        """Return the models that have a policy."""
        return tuple(
            path.removeprefix(POLICIES).removesuffix(".json")
            for path in sorted(self.targets.targets)
            if path.startswith(POLICIES)
        )

    def policy(self, model: str) -> ModelPolicy | None:
        """Return a model's policy, if its document is known."""
        data = self.documents.get(policies.model_policy_path(model))
        return None if data is None else ModelPolicy.parse(data)


def before(trusted: Trusted) -> View:
    """Return what is in force."""
    return View(trusted.root.signed, trusted.targets.signed, trusted.documents)


def after(trusted: Trusted, proposed: Proposed) -> View:
    """Return what will be in force."""
    targets = (proposed.targets or trusted.targets).signed
    documents = {
        path: data
        for path, data in {**trusted.documents, **proposed.documents}.items()
        if path in targets.targets
    }
    return View((proposed.root or trusted.root).signed, targets, documents)


def holder(key: SslibKey) -> str | None:
    """Return who holds a key, as far as the metadata says so in a way that is safe to show."""
    return signed_name(key)


def is_holder(name: str) -> bool:
    """Tell whether a holder's name is short and printable."""
    return 0 < len(name.strip()) <= MAX_NAME and name.isprintable()


def short(keyid: str) -> str:
    """Return as much of a key id as people compare, safe to show."""
    return ascii(keyid[:SHORT])[1:-1]


def title(keyid: str, name: str | None) -> str:
    """Return how people call a key: by its holder, and enough of its id."""
    return f"{name} ({short(keyid)})" if name else f"key {short(keyid)}"


def called(key: SslibKey) -> str:
    """Return how people call a key."""
    return title(key.keyid, holder(key))


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence has them: a, b and c."""
    found = list(names)
    if len(found) < 2:  # noqa: PLR2004 - one name needs no "and"
        return "".join(found) or "nobody"
    return f"{', '.join(found[:-1])} and {found[-1]}"


def owner_names(policy_document: bytes | None) -> dict[str, str]:
    """Return the names of a layout's owners by key id, where their policy's document says them."""
    try:
        owners = json.loads(policy_document or b"{}").get("layout", {}).get("owners", {})
    except (ValueError, RecursionError):
        return {}
    return {
        keyid: key[tuf.HOLDER]
        for keyid, key in owners.items()
        if isinstance(key.get(tuf.HOLDER), str) and is_holder(key[tuf.HOLDER])
    }


def name_owners(policy_document: bytes, names: Mapping[str, str]) -> bytes:
    """Return a model's policy with the names of its layout's owners, by key id.

    Devices ignore them. What else the policy says, this need not understand.
    """
    raw = json.loads(policy_document)
    for keyid, key in raw["layout"]["owners"].items():
        if names.get(keyid):
            key[tuf.HOLDER] = names[keyid]
    return strict.dump(raw)


def parse_metadata(what: str, data: bytes) -> Metadata[Root] | Metadata[Targets]:
    """Parse TUF metadata that is about to be looked at.

    Raises:
        FormatError: It is not metadata.
    """
    try:
        return Metadata.from_bytes(data)
    except (
        RepositoryError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        # Beside TUF's own errors, whatever its parser trips over: it was not well-formed.
        why = " ".join(str(error.__cause__ or error).split())[:200]
        raise FormatError(what, "", f"is not TUF metadata: {why}") from error


def find_key(view: View, role: str, text: str) -> str:
    """Return the id of the one key of a role that somebody means.

    Args:
        view: Where to look.
        role: The role.
        text: The holder's name, or the key id, or its first six digits or more.

    Raises:
        UsageError: There is none, or more than one.
    """
    known_role(view, role)
    keys = view.keys(role)
    found = [
        keyid
        for keyid, key in keys.items()
        if holder(key) == text or (len(text) >= LEAST and keyid.startswith(text.lower()))
    ]
    if len(found) == 1:
        return found[0]
    there = listed(called(key) for key in keys.values())
    if found:
        raise UsageError(
            f"{text!r} means more than one key of {role}: {listed(map(short, found))}",
            "name the key by its id",
        )
    raise UsageError(
        f"{role} has no key {text!r}; it has {there}",
        "name a key by its holder, or by the first digits of its id",
    )


def known_role(view: View, role: str) -> Role:
    """Return what is said of a role.

    Raises:
        UsageError: There is no such role.
    """
    found = view.role(role)
    if found is None:
        raise UsageError(
            f"the repository has no role {role!r}", f"choose one of {', '.join(view.roles())}"
        )
    return found


def model_of(role: str) -> str | None:
    """Return the model whose releases a role signs, or None."""
    model = role.removeprefix(role_name(""))
    try:
        return check_name(model) if model != role else None
    except ValueError:
        return None
