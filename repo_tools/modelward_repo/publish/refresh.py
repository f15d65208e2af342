"""Keeping a repository fresh: its roles signed anew before they expire."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from securesystemslib.signer import Signer

from modelward.errors import UsageError
from modelward.formats import release as releases
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.roles import metadata as tuf
from modelward_repo.storage import Storage


def refresh(
    storage: Storage,
    online: Online,
    now: datetime,
    roles: Mapping[str, Sequence[Signer]] | None = None,
) -> tuple[str, ...]:
    """Sign the timestamp anew, and the snapshot once half of its time is over.

    Content does not change; only new expiries, and the versions that come with them.

    Args:
        storage: The repository.
        online: What signs snapshot and timestamp.
        now: The time to count expiry from.
        roles: Targets roles to sign anew too, with their signers.

    Returns:
        The roles that were signed.

    Raises:
        UsageError: There is no such role, or it is root.
        Refused: A device would refuse the result.
    """
    with storage.lock():
        staging = Staging.of(storage, now)
        for role, signers in (roles or {}).items():
            staging.sign_again(role, signers)
        left = staging.snapshot.signed.expires - now
        due = bool(roles) or left < tuf.validity(staging.root.signed, "snapshot") / 2
        staging.finish(online, snapshot=due)
        with staging.as_device() as repository:
            for role in roles or {}:
                # Looking for any release of the model verifies the model's role.
                model = role.removeprefix("model-")
                repository.target_info(releases.target_path(model, "0"))
        staging.commit()
    return (*(roles or {}), *(("snapshot",) if due else ()), "timestamp")


def check_refreshable(role: str) -> str:
    """Return the name of a role that `refresh` may be asked to sign.

    Raises:
        UsageError: Root changes only in a ceremony; snapshot and timestamp are signed anyway.
    """
    if role in ("root", "snapshot", "timestamp"):
        raise UsageError(
            f"{role} is not to be named here",
            "snapshot and timestamp are refreshed anyway; root is signed in a ceremony",
        )
    return role
