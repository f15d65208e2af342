"""Keeping a repository fresh: its roles signed anew before they expire."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata

from modelward.errors import UsageError
from modelward.formats import release as releases
from modelward_repo.publish.ledger import Waiting
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.roles import metadata as tuf
from modelward_repo.storage import Storage


def refresh(  # noqa: PLR0913 - what, signed by whom, when
    storage: Storage,
    online: Online,
    now: datetime,
    roles: Mapping[str, Sequence[Signer]] | None = None,
    patience: float | None = None,
    *,
    stale: Online | None = None,
) -> tuple[str, ...]:
    """Sign the timestamp anew, and the snapshot once half of its time is over.

    Content does not change; only new expiries, and the versions that come with them. What waits
    for witnesses is published if there are enough of them now; if there are not, the timestamp
    of what is in force is signed anew, and keeps its proof: freshness never depends on them.

    Args:
        storage: The repository.
        online: What signs snapshot and timestamp.
        now: The time to count expiry from.
        roles: Targets roles to sign anew too, with their signers.
        patience: Most seconds to wait for other publishers; None for as long as it takes.
        stale: What signs the timestamp of what is in force, where a root waits that trusts
            others; None for `online`.

    Returns:
        The roles that were signed, of what is in force then.

    Raises:
        UsageError: There is no such role, or it is root.
        Refused: A device would refuse the result.
        StorageError: Something could not be written, or another publisher would not end.
    """
    with storage.lock(patience):
        staging = Staging.of(storage, now)
        for role, signers in (roles or {}).items():
            staging.sign_again(role, signers)
        snapshot = bool(roles) or now >= half_life(staging, "snapshot")
        staging.finish(online, snapshot=snapshot)
        with staging.as_device() as repository:
            for role in roles or {}:
                # Looking for any release of the model verifies the model's role.
                model = role.removeprefix("model-")
                repository.target_info(releases.target_path(model, "0"))
        try:
            staging.commit()
        except Waiting:
            staging = Staging.published(storage, now)
            staging.finish(stale or online, snapshot=False)
            with staging.as_device():
                staging.commit()
            return ("timestamp",)
    return (*(roles or {}), *(("snapshot",) if snapshot else ()), "timestamp")


def resume(storage: Storage, online: Online, now: datetime, patience: float | None = None) -> bool:
    """Publish what is logged and waits for witnesses.

    Args:
        storage: The repository.
        online: What signs it, as the root that waits demands.
        now: The time to count expiry from.
        patience: Most seconds to wait for other publishers; None for as long as it takes.

    Returns:
        Whether anything waited.

    Raises:
        Waiting: Too few witnesses cosigned; it still waits.
        Refused: A device would refuse the result.
        StorageError: Something could not be written, or another publisher would not end.
    """
    with storage.lock(patience):
        staging = Staging.of(storage, now)
        staging.resume(online)
    return staging.waiting


def half_life(staging: Staging, role: str) -> datetime:
    """Return when half of the time of a role's metadata is over: when to sign it anew.

    That leaves as much time again for whatever may go wrong with it.

    Raises:
        UsageError: There is no such role, or nothing says how long it is valid.
    """
    metadata: Metadata[Any]
    if role == "timestamp" and staging.timestamp:
        metadata = staging.timestamp
    else:
        metadata = staging.snapshot if role == "snapshot" else staging.targets(role)
    expires: datetime = metadata.signed.expires
    return expires - tuf.validity(staging.delegator(role), role) / 2


def due(staging: Staging, roles: Sequence[str] = ()) -> dict[str, datetime]:
    """Return when each role is to be signed anew: snapshot, timestamp, and those named.

    Raises:
        UsageError: See `half_life`.
    """
    return {role: half_life(staging, role) for role in (*roles, "snapshot", "timestamp")}


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
