"""A ceremony up to the last signature: proposed at the repository, signed and merged anywhere.

What is signed comes into force with `modelward_repo.roles.enact`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Targets

from modelward.errors import UsageError
from modelward.formats import strict
from modelward.formats.policy import FleetPolicy
from modelward_repo.publish.staging import Staging, target_file
from modelward_repo.roles.changes import Change
from modelward_repo.roles.policy import role_name
from modelward_repo.roles.proposal import apply
from modelward_repo.roles.request import MAX_NOTE, Request
from modelward_repo.roles.state import (
    LAYOUTS,
    POLICIES,
    Proposed,
    Rejected,
    Trusted,
    View,
    after,
    before,
    called,
    listed,
    short,
)
from modelward_repo.storage import Storage


@dataclass(frozen=True)
class Wish:
    """What somebody asks for.

    Attributes:
        changes: The changes, in order.
        commands: The same, as commands; for the record.
        note: Why; may be empty.
    """

    changes: Sequence[Change]
    commands: Sequence[str] = ()
    note: str = ""


def load(staging: Staging) -> Trusted:
    """Return what is in force in a repository, with every document that targets signs."""
    version = staging.root.signed.version
    number = staging.snapshot.signed.meta[f"{Targets.type}.json"].version
    targets = staging.targets(Targets.type)
    documents = {
        path: staging.target(Targets.type, path) or b""
        for path in sorted(targets.signed.targets)
        if path == FleetPolicy.TARGET or path.startswith((POLICIES, LAYOUTS))
    }
    return Trusted(
        roots=tuple(staging.read(f"metadata/{n}.root.json") for n in range(1, version + 1)),
        root=staging.root,
        targets=targets,
        targets_file=staging.read(f"metadata/{number}.{Targets.type}.json"),
        documents=documents,
    )


def documents(storage: Storage, now: datetime) -> Mapping[str, bytes]:
    """Return every document that a repository's targets sign, by path."""
    return load(Staging.of(storage, now)).documents


def load_targets(
    storage: Storage, version: int, staging: Staging
) -> tuple[Metadata[Targets], dict[str, bytes]]:
    """Return an earlier version of targets with its documents, as the repository keeps them.

    Raises:
        StorageError: There is no such version.
        ModelwardError: It is damaged.
    """
    data = storage.read(f"metadata/{version}.{Targets.type}.json")
    metadata: Metadata[Targets] = Metadata.from_bytes(data)
    documents = {
        path: staging.read(target_file(path, file.hashes["sha256"]))
        for path, file in metadata.signed.targets.items()
    }
    return metadata, documents


def propose(storage: Storage, wish: Wish, now: datetime) -> Request:
    """Return a request that nobody has signed yet. The repository is not changed.

    Args:
        storage: The repository.
        wish: What is to change.
        now: The time to count expiry from.

    Raises:
        UsageError: A change makes no sense.
    """
    if len(wish.note) > MAX_NOTE or not wish.note.isprintable():
        raise UsageError(f"a note is one line of at most {MAX_NOTE} characters")
    staging = Staging.of(storage, now)
    trusted = load(staging)
    proposed = apply(trusted, wish.changes, now, staging.next_version(Targets.type))
    check_names(staging, before(trusted), after(trusted, proposed))
    request = Request(
        created=now.replace(microsecond=0),
        note=wish.note,
        changes=tuple(dict.fromkeys(wish.commands)),
        trusted=replace(trusted, documents=_relevant(trusted, proposed)),
        proposed=proposed,
    )
    return Request.parse(request.to_bytes())  # whoever signs must be able to read it


def check_names(staging: Staging, old: View, new: View) -> None:
    """Require that no new model bears the name of one that was removed, unless it is the same.

    Devices remember how many releases they saw of a model, and the snapshot lists its role for
    ever (TUF 5.5.5). So a name can only come back with the releases it had, under the same keys.

    Raises:
        UsageError: One does.
    """
    for role in new.roles():
        if old.role(role) is not None or f"{role}.json" not in staging.snapshot.signed.meta:
            continue
        metadata = staging.targets(role)
        result = new.targets.get_verification_result(
            role, metadata.signed_bytes, metadata.signatures
        )
        if not result.verified:
            raise UsageError(
                f"there was a role {role!r} before, with other keys: devices remember its releases",
                "choose another name; or add it with the keys it had, and replace them afterwards",
            )


def sign(request: Request, signer: Signer) -> tuple[Request, tuple[str, ...]]:
    """Sign everything in a request that a key may sign.

    Args:
        request: The request.
        signer: The key.

    Returns:
        The request with the signatures, and the roles that were signed.

    Raises:
        UsageError: The key may sign none of it, or has signed it already.
    """
    keyid = signer.public_key.keyid
    todo = check_may_sign(request, keyid)
    for role in todo:
        metadata = request.metadata(role)
        if metadata is not None:
            request = request.with_signature(role, signer.sign(metadata.signed_bytes))
    return request, todo


def check_may_sign(request: Request, keyid: str) -> tuple[str, ...]:
    """Return the roles of a request that a key is still to sign.

    Raises:
        UsageError: It may sign none of it, or has signed it already.
    """
    roles = request.roles_of(keyid)
    if not roles:
        raise UsageError(
            f"the key {short(keyid)} may not sign this request",
            "those who may are "
            + "; ".join(
                f"for {role}: {listed(called(key) for key in request.members(role).values())}"
                for role in ("root", "targets")
                if request.members(role)
            ),
        )
    todo = tuple(
        role
        for role in roles
        if (metadata := request.metadata(role)) and keyid not in metadata.signatures
    )
    if not todo:
        raise UsageError(
            f"the key {short(keyid)} has signed this request already; nothing was changed",
            "see who is still to sign: modelward-repo ceremony status",
        )
    return todo


def merge(requests: Mapping[str, Request]) -> Request:
    """Collect the signatures of several copies of one request, in any order.

    Args:
        requests: The copies, by what to call them.

    Raises:
        Rejected: They are not copies of one request.
    """
    (first_name, merged), *others = requests.items()
    for name, request in others:
        if request.digest != merged.digest:
            raise Rejected(
                f"{name} ({request.words}) is another request than "
                f"{first_name} ({merged.words}): their signatures do not belong together",
                "merge copies of the same request only; compare them with "
                "`modelward-repo ceremony show`",
            )
        for role in ("root", "targets"):
            metadata, known = request.metadata(role), merged.metadata(role)
            for keyid, signature in metadata.signatures.items() if metadata else ():
                if known and keyid not in known.signatures:
                    merged = merged.with_signature(role, signature)
    return merged


def _relevant(trusted: Trusted, proposed: Proposed) -> dict[str, bytes]:
    """Leave out the layouts of models that the request is not about: they are long."""
    old, new = before(trusted), after(trusted, proposed)
    concerned = {
        name
        for name in {*old.models(), *new.models()}
        if _standing(old, name) != _standing(new, name)
    }
    return {
        path: data
        for path, data in trusted.documents.items()
        if path in trusted.targets.signed.targets
        and (
            not path.startswith(LAYOUTS)
            or path.removeprefix(LAYOUTS).removesuffix(".json") in concerned
        )
    }


def _standing(view: View, model: str) -> bytes:
    role = view.role(role_name(model))
    files = [view.targets.targets.get(f"{folder}{model}.json") for folder in (POLICIES, LAYOUTS)]
    return strict.dump(
        [role.to_dict() if role else None, *(file.to_dict() if file else None for file in files)]
    )
