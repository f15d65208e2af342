"""Which keys sign a change: as many as it takes, found by the ids the repository names."""

from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Root

from modelward_repo.publish.ledger import KEY, LogKey, log_keyid, log_policy
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.keys import Passphrase, find_signers


def role_signers(staging: Staging, role: str, keys: Path, passphrase: Passphrase) -> list[Signer]:
    """Load as many private keys of a role as its threshold demands, and no other.

    Raises:
        UsageError: There is no such role, or too few of its keys are here.
    """
    trusted = tuf.role_of(staging.delegator(role), role)
    return find_signers(keys, role, trusted.keyids, trusted.threshold, passphrase)


def online_signers(staging: Staging, keys: Path, passphrase: Passphrase) -> Online:
    """Load the keys of snapshot and timestamp, and the log's where root demands one.

    Raises:
        UsageError: They are not here.
    """
    return Online(
        snapshot=role_signers(staging, "snapshot", keys, passphrase),
        timestamp=role_signers(staging, "timestamp", keys, passphrase),
        log=log_key(staging.root.signed, keys, passphrase),
    )


def log_key(root: Root, keys: Path, passphrase: Passphrase) -> LogKey | None:
    """Load the key of the log that root demands, or None if it demands none.

    Raises:
        UsageError: It is not here.
    """
    policy = log_policy(root)
    if policy is None:
        return None
    (signer,) = find_signers(keys, KEY, [log_keyid(policy.vkey)], 1, passphrase)
    return LogKey(signer)
