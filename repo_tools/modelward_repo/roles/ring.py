"""The keys that a repository needs: found in the folders of their holders, or made there."""

from collections.abc import Callable, Sequence
from pathlib import Path

from securesystemslib.signer import Signer

from modelward.errors import UsageError
from modelward.formats.policy import Key
from modelward_repo.roles.keys import KeyFile, from_sslib
from modelward_repo.roles.remote import Ask


class KeyRing:
    """Finds keys, and makes those that are missing.

    A holder who keeps the private key elsewhere hands in the ``.pub`` file; it is used as it is.

    Args:
        keys: Folder of holders.
        passphrase: Asked for the passphrase or PIN of a key that is there already.
        new_passphrase: Asked what to encrypt new keys with; None leaves them readable.
        may_make: Tells by a key's name whether it may be made. A key that is merely elsewhere must
            not silently be replaced by another.
    """

    def __init__(
        self,
        keys: Path,
        passphrase: Ask,
        new_passphrase: Callable[[], bytes | None],
        may_make: Callable[[str], bool] = lambda _name: True,
    ) -> None:
        self.keys = keys
        self.made: list[KeyFile] = []
        self._passphrase = passphrase
        self._new_passphrase = new_passphrase
        self._may_make = may_make
        self._signers: dict[Path, Signer] = {}

    def public(self, holder: str, name: str, scheme: str = "ed25519") -> Key:
        """Return a holder's public key, made now if there is none.

        Args:
            holder: The holder.
            name: The key's name.
            scheme: What to make, if it is made.

        Raises:
            UsageError: It cannot be read or made.
        """
        key = KeyFile.of(self.keys, holder, name)
        if not key.exists() and not key.public_path.exists():
            if not self._may_make(name):
                raise UsageError(
                    f"the key {name!r} of {holder} is not in {self.keys}",
                    f"ask {holder} for {key.public_path.name} and put it into {key.path.parent}; "
                    "for somebody new, make a key with `modelward-repo key create`",
                )
            self._signers[key.path] = key.generate(self._new_passphrase(), scheme)
            self.made.append(key)
        elif not key.public_path.exists():
            # Whoever made the key was interrupted before its public half was written.
            key.write_public(from_sslib(self._signer(key).public_key))
        return key.public()

    def publics(self, holders: Sequence[str], name: str) -> list[Key]:
        """Return several holders' public keys.

        Raises:
            UsageError: One cannot be read or made, or two holders have the same key.
        """
        found = {holder: self.public(holder, name) for holder in holders}
        if len({key.keyid for key in found.values()}) < len(found):
            raise UsageError(
                f"two of {', '.join(holders)} have the same key {name!r}",
                "one key would count twice towards a threshold: give each holder their own",
            )
        return list(found.values())

    def signers(self, holders: Sequence[str], name: str, threshold: int) -> list[Signer]:
        """Return a signer for every private key that is here.

        Raises:
            UsageError: Fewer than the threshold are here, or one cannot be opened.
        """
        files = [KeyFile.of(self.keys, holder, name) for holder in holders]
        here = [key for key in files if key.exists()]
        if len(here) < threshold:
            raise UsageError(
                f"{threshold} of {', '.join(holders)} must sign as {name!r}, but the private keys "
                f"of only {len(here)} are in {self.keys}",
                f"bring KEYS/<holder>/{name}.key together for this one command",
            )
        return [self._signer(key) for key in here]

    def _signer(self, key: KeyFile) -> Signer:
        if key.path not in self._signers:
            self._signers[key.path] = key.signer(self._passphrase)
        return self._signers[key.path]
