"""Which keys sign a change: as many as it takes, found by the ids the repository names."""

from pathlib import Path

from securesystemslib.signer import Signer

from modelward_repo.publish.staging import Online, Staging
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.keys import Passphrase, find_signers


def role_signers(
    staging: Staging, role: str, keys: Path, passphrase: Passphrase
) -> list[Signer]:
    """Load as many private keys of a role as its threshold demands, and no other.

    Raises:
        UsageError: There is no such role, or too few of its keys are here.
    """
    trusted = tuf.role_of(staging.delegator(role), role)
    return find_signers(keys, role, trusted.keyids, trusted.threshold, passphrase)


def online_signers(staging: Staging, keys: Path, passphrase: Passphrase) -> Online:
    """Load the keys of snapshot and timestamp.

    Raises:
        UsageError: They are not here.
    """
    return Online(
        snapshot=role_signers(staging, "snapshot", keys, passphrase),
        timestamp=role_signers(staging, "timestamp", keys, passphrase),
    )
