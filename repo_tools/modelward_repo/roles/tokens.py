"""Keys on PKCS#11 tokens: smart cards, YubiKeys, HSMs, SoftHSM. By `pkcs11:` URI (RFC 7512).

Of RFC 7512 are known ``token`` (its label), ``id`` and ``object`` (the key's), ``module-path`` and
``pin-source`` (a file). ``pin-value`` is refused: an URI is no place for a secret. Signing is
securesystemslib's `HSMSigner`, so keys are ECDSA on P-256 or P-384.
"""

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, unquote_to_bytes

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import HSMSigner, Signer, SSlibKey

from modelward.errors import ModelwardError, Unavailable, UsageError
from modelward_repo.roles.remote import Ask

if TYPE_CHECKING:
    import pkcs11

MODULE = "PYKCS11LIB"
CURVES: Mapping[str, str] = {
    "ecdsa-sha2-nistp256": "secp256r1",
    "ecdsa-sha2-nistp384": "secp384r1",
}
MAX_PIN = 1024  # bytes of its file
_PATH = ("token", "id", "object", "type")
_QUERY = ("module-path", "pin-source")


@dataclass(frozen=True)
class TokenKey:
    """What a `pkcs11:` URI says.

    Attributes:
        token: Label of the token; None if there is only one.
        id: The key's CKA_ID; None to find it by its label.
        label: The key's label.
        module: Path of the token's PKCS#11 module; None to take it from ``PYKCS11LIB``.
        pin_file: File with the PIN on its first line; None to ask.
    """

    token: str | None = None
    id: bytes | None = None
    label: str | None = None
    module: str | None = None
    pin_file: Path | None = None

    @classmethod
    def parse(cls, uri: str) -> "TokenKey":
        """Parse a URI.

        Raises:
            UsageError: It makes no sense. The message quotes none of its values.
        """
        path, _, query = uri.removeprefix("pkcs11:").partition("?")
        found = {**_attributes(path, ";", _PATH), **_attributes(query, "&", _QUERY)}
        if found.get("type", "private") != "private":
            raise UsageError("a pkcs11: URI of a key to sign with has type=private, or none")
        source = found.get("pin-source", "")
        if source.startswith("|") or (":" in source and not source.startswith("file:")):
            raise UsageError("pin-source in a pkcs11: URI must be a file", "such as file:/run/pin")
        return cls(
            token=found.get("token"),
            id=_raw_id(path),
            label=found.get("object"),
            module=found.get("module-path"),
            pin_file=Path(source.removeprefix("file:")) if source else None,
        )

    def __str__(self) -> str:
        path = {"token": self.token, "object": self.label}
        parts = [f"{name}={_quoted(value)}" for name, value in path.items() if value is not None]
        if self.id is not None:
            parts.append("id=" + "".join(f"%{byte:02X}" for byte in self.id))
        query = {
            "module-path": self.module,
            "pin-source": f"file:{self.pin_file}" if self.pin_file else None,
        }
        asked = [f"{name}={_quoted(value)}" for name, value in query.items() if value is not None]
        return f"pkcs11:{';'.join(parts)}" + (f"?{'&'.join(asked)}" if asked else "")

    @property
    def name(self) -> str:
        """What to call the token."""
        return f"the token {self.token!r}" if self.token else "the token"

    def pin(self, ask: Ask) -> str:
        """Return the PIN, from its file or whoever is asked.

        Raises:
            UsageError: There is none.
        """
        if self.pin_file is None:
            secret = ask(f"PIN of {self.name}")
        else:
            try:
                with self.pin_file.open("rb") as file:
                    secret = file.read(MAX_PIN).split(b"\n", 1)[0].rstrip(b"\r")
            except OSError as error:
                raise UsageError(
                    f"the PIN file {self.pin_file} cannot be read: {error.strerror}"
                ) from error
        if not secret:
            raise UsageError(f"the PIN of {self.name} is empty: nothing was tried")
        try:
            return secret.decode()
        except UnicodeDecodeError:
            raise UsageError(f"the PIN of {self.name} is not UTF-8 text") from None


def check(uri: str) -> None:
    """Parse a URI. See `modelward_repo.roles.remote.Backend`."""
    key = TokenKey.parse(uri)
    if key.id is None and key.label is None:
        raise UsageError(
            "a pkcs11: URI must say which key: id=%02, or object=LABEL",
            "`pkcs11-tool --module MODULE --list-objects` shows the ids and labels on a token",
        )


def find(uri: str, ask: Ask) -> tuple[str, SSlibKey]:
    """Read a public key from its token."""
    wanted = TokenKey.parse(uri)
    with _module(wanted):
        token = _token(wanted)
        key = replace(wanted, token=token.label, id=_id_of(token, wanted, ask))
        _, public = HSMSigner.import_(_number(key), token.label, lambda _what: wanted.pin(ask))
        return str(key), public


def open(uri: str, key: SSlibKey, ask: Ask) -> Signer:  # noqa: A001 - the protocol's name for it
    """Return a signer, having tried the PIN."""
    wanted = TokenKey.parse(uri)
    with _module(wanted) as module:
        token = _token(wanted)
        pin = wanted.pin(ask)
        with token.open(user_pin=pin) as session:
            wanted = replace(wanted, token=token.label, id=_id(session, wanted))
    return _TokenSigner(_number(wanted), key, lambda _what: pin, wanted.token, module)


def generate(uri: str, scheme: str, ask: Ask) -> str:
    """Make a key on a token, never to leave it, and return its URI.

    Args:
        uri: Which token; the new key's id and label may be said, but must be free.
        scheme: One of `CURVES`.
        ask: Asked for the PIN.

    Raises:
        UsageError: The URI makes no sense, or the id is taken.
    """
    wanted = TokenKey.parse(uri)
    if scheme not in CURVES:
        raise UsageError(f"a token cannot make {scheme} keys", f"use one of {', '.join(CURVES)}")
    # An id with a leading zero would not be found again, see _number.
    key = replace(wanted, id=wanted.id or bytes([1]) + secrets.token_bytes(7))
    _number(key)
    with _module(key):
        token = _token(key)
        with token.open(rw=True, user_pin=key.pin(ask)) as session:
            _generate(session, key, CURVES[scheme])
        return str(replace(key, token=token.label, label=None))


def explain(uri: str, error: Exception) -> ModelwardError:
    """Return what a library's error means: its own messages are mostly empty."""
    key = TokenKey.parse(uri)
    kind = type(error).__name__
    text = str(error).split("\n", 1)[0][:200]
    known = {
        "PinIncorrect": (f"wrong PIN for {key.name}", _tries(key)),
        "PinInvalid": (f"wrong PIN for {key.name}", _tries(key)),
        "PinLenRange": (f"wrong PIN for {key.name}: it is too long or too short", _tries(key)),
        "PinLocked": (
            f"the PIN of {key.name} is locked: it was entered wrongly too often",
            "unlock it with its PUK or security officer's PIN; if that is lost, rotate the key",
        ),
        "PinExpired": (f"the PIN of {key.name} has expired", "change it with the token's own tool"),
        "UserPinNotInitialized": (f"{key.name} has no PIN yet", "set one with its own tool"),
        "NoSuchKey": (f"there is no such ECDSA key on {key.name}", _LIST),
        "MultipleObjectsReturned": (f"several keys on {key.name} are like that", _LIST),
        "MechanismInvalid": (f"{key.name} cannot do ECDSA", "use another token"),
        "TokenWriteProtected": (f"{key.name} is write-protected", "make the key with its own tool"),
    }
    if kind in known:
        return UsageError(*known[kind])
    if kind in ("DeviceRemoved", "TokenNotPresent", "TokenNotRecognised", "DeviceError"):
        return Unavailable(f"{key.name} was taken away or does not answer", "put it in, try again")
    if "while loading" in text:
        return UsageError(f"that is no PKCS#11 module: {text}", "correct module-path in the URI")
    return Unavailable(f"{key.name} failed: {text or kind}", "try its module with `pkcs11-tool -L`")


_LIST = "list what is there: `pkcs11-tool --module MODULE --list-objects`"


class _TokenSigner(HSMSigner):
    """An `HSMSigner` that brings its module along: two tokens may be of different makes."""

    def __init__(
        self, number: int, key: SSlibKey, pin: Any, token: str | None, module: str
    ) -> None:
        super().__init__(number, key, pin, token)
        self._module_path = module

    def sign(self, payload: bytes) -> Any:
        with _module(TokenKey(module=self._module_path)):
            return super().sign(payload)


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise UsageError(
                "pin-value in a pkcs11: URI is refused: others could read the PIN there",
                "leave it out and be asked, or use --pin-file, or pin-source=file:...",
            )
        if name not in known or not equals or name in found:
            named = name if re.fullmatch(r"[a-z-]{1,32}", name) else "something"
            raise UsageError(
                f"{named} in a pkcs11: URI is not known here, out of place, or there twice",
                f"use {', '.join(_PATH)} separated by ';' before the '?', and "
                f"{', '.join(_QUERY)} separated by '&' after it",
            )
        found[name] = unquote(value)
    return found


def _raw_id(path: str) -> bytes | None:
    for part in path.split(";"):
        if part.startswith("id="):
            return unquote_to_bytes(part.removeprefix("id="))
    return None


def _quoted(text: str) -> str:
    return quote(text, safe="/:-._~ ").replace(" ", "%20")


def _number(key: TokenKey) -> int:
    """Return the id as the number that `HSMSigner` takes it for."""
    if not key.id or key.id[0] == 0:
        raise UsageError(
            "the key's id on the token is empty or begins with a zero byte: it cannot be used",
            "give the key another id with the token's own tool, or make another key",
        )
    return int.from_bytes(key.id, "big")


@contextmanager
def _module(key: TokenKey) -> Iterator[str]:
    """Have `HSMSigner` use a key's module: it looks for its path in the environment."""
    path = key.module or os.environ.get(MODULE)
    if not path:
        raise UsageError(
            "which PKCS#11 module speaks to the token?",
            f"add ?module-path=/usr/lib/...so to the URI, or set {MODULE}; for SoftHSM it is "
            "/usr/lib/softhsm/libsofthsm2.so, for YubiKeys .../libykcs11.so",
        )
    if not Path(path).is_file():
        raise UsageError(
            f"there is no PKCS#11 module {path}",
            "install the token's driver (Debian: softhsm2, ykcs11, opensc-pkcs11), or correct "
            f"module-path in the URI or {MODULE}",
        )
    before = os.environ.get(MODULE)
    os.environ[MODULE] = path
    try:
        yield path
    finally:
        if before is None:
            del os.environ[MODULE]
        else:
            os.environ[MODULE] = before


def _library() -> Any:
    try:
        import pkcs11  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UnsupportedLibraryError("python-pkcs11") from error
    return pkcs11.lib(os.environ[MODULE])


def _token(key: TokenKey) -> "pkcs11.Token":
    """Return the token, and not another."""
    library = _library()
    import pkcs11  # noqa: PLC0415 - an extra

    there: list[pkcs11.Token] = list(
        library.get_tokens(token_flags=pkcs11.TokenFlag.TOKEN_INITIALIZED)
    )
    found = [token for token in there if key.token in (None, token.label)]
    if len(found) == 1:
        return found[0]
    labels = ", ".join(sorted(repr(token.label) for token in there)) or "none"
    if not found:
        raise Unavailable(
            f"{key.name} is not here; tokens that are: {labels}",
            "put it in, or correct token= in the URI",
        )
    raise UsageError(
        f"{len(found)} tokens could be meant; there are {labels}",
        "name one with token=LABEL, or take the others out",
    )


def _id_of(token: "pkcs11.Token", key: TokenKey, ask: Ask) -> bytes:
    import pkcs11  # noqa: PLC0415 - an extra

    with token.open() as session:
        try:
            return _id(session, key, pkcs11.ObjectClass.PUBLIC_KEY)
        except pkcs11.NoSuchKey:
            pass  # it may be hidden until one has logged in
    with token.open(user_pin=key.pin(ask)) as session:
        return _id(session, key, pkcs11.ObjectClass.PUBLIC_KEY)


def _id(session: Any, key: TokenKey, kind: Any = None) -> bytes:
    """Return the id of the key that is meant, having looked whether it is there."""
    import pkcs11  # noqa: PLC0415 - an extra

    kind = kind or pkcs11.ObjectClass.PRIVATE_KEY
    found = session.get_key(kind, pkcs11.KeyType.EC, label=key.label, id=key.id)
    return bytes(found[pkcs11.Attribute.ID])


def _generate(session: Any, key: TokenKey, curve: str) -> None:
    import pkcs11  # noqa: PLC0415 - an extra
    from pkcs11.util.ec import encode_named_curve_parameters  # noqa: PLC0415

    if any(True for _ in session.get_objects({pkcs11.Attribute.ID: key.id})):
        raise UsageError(
            f"{key.name} has something with this id already",
            "a key is never overwritten: choose another id, or `modelward-repo key add` that one",
        )
    parameters = session.create_domain_parameters(
        pkcs11.KeyType.EC,
        {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)},
        local=True,
    )
    parameters.generate_keypair(
        id=key.id,
        label=key.label,
        store=True,
        capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
        private_template={
            pkcs11.Attribute.SENSITIVE: True,
            pkcs11.Attribute.EXTRACTABLE: False,
        },
    )


def _tries(key: TokenKey) -> str:
    """Return what to do about a wrong PIN, with how near the token is to locking."""
    again = "try again with the right one; too many wrong ones lock the token"
    try:
        with _module(key):
            flags = _token(key).flags
            import pkcs11  # noqa: PLC0415 - an extra
    except Exception:  # noqa: BLE001 - it is only advice
        return again
    if flags & pkcs11.TokenFlag.USER_PIN_LOCKED:
        return "the token is locked now: unlock it with its PUK or security officer's PIN"
    if flags & pkcs11.TokenFlag.USER_PIN_FINAL_TRY:
        return "ONE try is left before the token locks: be sure of the PIN before you try again"
    if flags & pkcs11.TokenFlag.USER_PIN_COUNT_LOW:
        return "be sure of the PIN before you try again: a few wrong ones in a row lock the token"
    return again
