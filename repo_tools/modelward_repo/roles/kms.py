"""Keys with a key service: AWS, Google Cloud and Azure KMS, HashiCorp Vault. By URI.

All of it is securesystemslib's: its URIs, its signers. They take the service's address and
credentials from where the service's own tools take them (such as ``AWS_PROFILE``,
``GOOGLE_APPLICATION_CREDENTIALS``, `az login`, ``VAULT_ADDR``).
"""

import re
from collections.abc import Mapping

from securesystemslib.signer import AWSSigner, AzureSigner, GCPSigner, Signer, SSlibKey, VaultSigner

from modelward.errors import ModelwardError, Unavailable, UsageError
from modelward_repo.roles.remote import Ask

_SHAPES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "awskms": (
        re.compile(r"(?P<key>[\w/:.-]+)", re.ASCII),
        "awskms:KEY, its id, ARN or alias, such as awskms:alias/timestamp",
    ),
    "gcpkms": (
        re.compile(
            r"(?P<key>projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+"
            r"/cryptoKeyVersions/\d+)"
        ),
        "gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1",
    ),
    "azurekms": (
        re.compile(
            r"//(?P<vault>[A-Za-z0-9-]+)\.vault\.azure\.net/keys/(?P<key>[A-Za-z0-9-]+)"
            r"(?:/(?P<version>[A-Za-z0-9]+))?"
        ),
        "azurekms://VAULT.vault.azure.net/keys/NAME/VERSION",
    ),
    "hv": (
        re.compile(r"(?P<key>[\w.-]+)(?:/(?P<version>[1-9]\d*))?", re.ASCII),
        "hv:NAME/VERSION, of a key of Vault's transit engine",
    ),
}
_VERSIONED = ("azurekms", "hv")


def check(uri: str) -> None:
    """Parse a URI. See `modelward_repo.roles.remote.Backend`."""
    _parts(uri)


def find(uri: str, ask: Ask) -> tuple[str, SSlibKey]:
    """Fetch a public key from its service."""
    del ask
    found = _parts(uri)
    scheme = uri.partition(":")[0]
    key = found["key"] or ""
    exact, public = _import(scheme, key, found.get("vault") or "")
    if scheme in _VERSIONED and found.get("version") and exact != uri:
        raise UsageError(
            f"{uri} is not the newest version of this key, which is {exact}",
            "services hand out the newest public key only: name that, or keep the .pub file",
        )
    return exact, public


def open(uri: str, key: SSlibKey, ask: Ask) -> Signer:  # noqa: A001 - the protocol's name for it
    """Return a signer."""
    del ask
    scheme = uri.partition(":")[0]
    if scheme in _VERSIONED and not _parts(uri)["version"]:
        raise UsageError(
            f"{uri} does not say which version of the key", f"it is like {_SHAPES[scheme][1]}"
        )
    return Signer.from_priv_key_uri(uri, key)


def explain(uri: str, error: Exception) -> ModelwardError:
    """Return what a library's error means."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:300]
    return Unavailable(
        f"the key service did not do what was asked of {uri}: {type(error).__name__}"
        + (f": {text}" if text else ""),
        "see that its own command-line tool can use this key from here, as this user",
    )


def _parts(uri: str) -> dict[str, str | None]:
    scheme, _, rest = uri.partition(":")
    pattern, example = _SHAPES[scheme]
    match = pattern.fullmatch(rest)
    if not match:
        raise UsageError(f"the {scheme}: URI makes no sense", f"it is like {example}")
    return match.groupdict()


def _import(scheme: str, key: str, vault: str) -> tuple[str, SSlibKey]:
    match scheme:
        case "awskms":
            return AWSSigner.import_(key)
        case "gcpkms":
            return GCPSigner.import_(key)
        case "azurekms":
            return AzureSigner.import_(vault, key)
        case _:
            return VaultSigner.import_(key)
