"""What must hold of the parts of a signing request before anybody looks at what it says."""

from collections.abc import Collection, Mapping
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key as SslibKey
from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, Root, Targets

from modelward.errors import FormatError
from modelward.formats import strict
from modelward.formats.policy import Key
from modelward_repo.roles.state import Proposed, Rejected, Trusted, called, listed, short

DOCUMENT = "signing request"
TAMPERED = "it was damaged on its way or tampered with: ask whoever gave it to you for another copy"


def check_complete(targets: Targets, trusted: Trusted, proposed: Proposed) -> None:
    """Whoever signs targets must be able to see every document that they would sign anew.

    Raises:
        Rejected: One is not there.
    """
    old = trusted.targets.signed.targets
    for path, file in targets.targets.items():
        known = path in proposed.documents or (
            path in old and old[path].to_dict() == file.to_dict()
        )
        if not known:
            raise Rejected(f"the request does not carry the new document {path!r}", TAMPERED)


def check_signature(
    role: str, metadata: Metadata[Any], signature: Signature, members: Mapping[str, SslibKey]
) -> None:
    """Require a signature to be valid and by a key that may sign.

    Raises:
        Rejected: It is not.
    """
    key = members.get(signature.keyid)
    if key is None:
        raise Rejected(
            f"there is a signature on {role} by the key {short(signature.keyid)}, "
            "which may not sign it",
            f"those who may are {listed(called(member) for member in members.values())}",
        )
    try:
        key.verify_signature(signature, metadata.signed_bytes)
    except UnverifiedSignatureError as error:
        raise Rejected(
            f"the signature of {called(key)} on {role} is not valid", TAMPERED
        ) from error


def check_keys(where: str, delegator: Root | Targets) -> None:
    """Attack row 21: one key under two ids would count twice towards a threshold.

    Raises:
        FormatError: There is one, or a key that is not well-formed.
    """
    if isinstance(delegator, Root):
        keys: Mapping[str, SslibKey] = delegator.keys
        roles: Collection[Any] = delegator.roles.values()
    else:
        delegations = delegator.delegations
        if delegations is None:
            return
        if delegations.roles is None:
            raise FormatError(DOCUMENT, where, "delegates to hashed bins, which have no place here")
        keys = delegations.keys
        roles = delegations.roles.values()
    for keyid, key in keys.items():
        Key.from_fields(
            keyid, strict.Fields(DOCUMENT, key.to_dict(), f"{where}.keys.{short(keyid)}")
        )
    for role in roles:
        publics = [keys[keyid].keyval["public"] for keyid in role.keyids if keyid in keys]
        if len(set(publics)) != len(publics):
            raise FormatError(DOCUMENT, where, "the same key stands under two key ids in one role")
