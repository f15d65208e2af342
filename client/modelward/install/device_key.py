"""The device's own key: signs reports, and nothing that any update rests on.

A file that whoever owns the device can read. Its loss costs the credibility of this device's
reports until the operator revokes it (docs/device.md), and nothing else.
"""

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from modelward import plain_file
from modelward.errors import ModelwardError
from modelward.formats.policy import Key
from modelward.install import fsops
from modelward.install.opened import read_file
from modelward.trust.report import device_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = "device.key"
CAP = 1 << 16  # bytes
PUBLIC = "device.pub"  # 64 hexadecimal digits, for people and for `status`


class DeviceKey:
    """Signs as one device.

    Args:
        private: The key.
    """

    def __init__(self, private: "Ed25519PrivateKey") -> None:
        self._private = private
        self.public: Key = device_key(private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return a raw signature."""
        return self._private.sign(message)


def load_or_make(state: Path) -> DeviceKey:
    """Return the key in a state directory, which is made if there is none.

    Raises:
        ModelwardError: There is a file that is no such key.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )

    path = state / FILE
    try:
        private = serialization.load_pem_private_key(read_file(path, CAP), None)
    except FileNotFoundError:
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        fsops.write_file(path, pem, 0o600)
        public = private.public_key().public_bytes_raw().hex()
        fsops.write_file(state / PUBLIC, f"{public}\n".encode())
    except (ValueError, TypeError) as error:
        raise _not_a_key(path) from error
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG):
            raise
        raise _not_a_key(path) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise _not_a_key(path)
    return DeviceKey(private)


def public_of(state: Path) -> str | None:
    """Return the public key in a state directory, in hexadecimal; None if none was made yet."""
    try:
        return plain_file.read(state / PUBLIC, CAP).decode("ascii").strip()
    except (OSError, ValueError):
        return None


def _not_a_key(path: Path) -> ModelwardError:
    return ModelwardError(
        f"{path} is not an Ed25519 private key",
        "move it away: a new one is made, which the operator must register",
    )
