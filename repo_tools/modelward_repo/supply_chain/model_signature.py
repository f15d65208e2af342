"""Making `model.sig`: an OpenSSF model signature, as `modelward.trust.model_signature` verifies it.

Anybody who holds the model and the public key can check it, without modelward and without the
repository, with the reference tool ``model_signing``.
"""

import base64
import json
from pathlib import Path

from securesystemslib.signer import Signer

from modelward.errors import UsageError
from modelward.trust import model_signature as format_
from modelward_repo.supply_chain.hasher import Progress, hash_files, no_progress

FILE = "model.sig"
KEY = "model-signing"  # name of a signer's key
SCHEME = "ecdsa-sha2-nistp256"


def sign_model(
    directory: Path, name: str, signer: Signer, progress: Progress = no_progress
) -> bytes:
    """Return a signature over all files of a directory, but for an old signature.

    Args:
        directory: The model's files.
        name: What to call the model in the statement.
        signer: A P-256 key.
        progress: Told how far hashing is.

    Raises:
        UsageError: The key is of another kind, or a file cannot be recorded.
    """
    key = signer.public_key
    if key.scheme != SCHEME:
        raise UsageError(
            f"the key is {key.scheme}, but model signatures are made with {SCHEME}",
            f"create one with `modelward-repo key create HOLDER/{KEY} --scheme {SCHEME}`",
        )
    resources = hash_files(directory, ["."], progress)
    resources.pop(FILE, None)
    if not resources:
        raise UsageError(f"{directory} holds no files to sign")
    payload = json.dumps(format_.statement(resources, name), indent=2).encode()
    signature = signer.sign(format_.pae(payload))
    bundle = {
        "mediaType": format_.BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": format_.key_hint(key.keyval["public"])},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": format_.PAYLOAD_TYPE,
            "signatures": [
                {"sig": base64.b64encode(bytes.fromhex(signature.signature)).decode(), "keyid": ""}
            ],
        },
    }
    return json.dumps(bundle, indent=2).encode() + b"\n"
