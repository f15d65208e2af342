"""metadata/*.toml: the trust policy, as people write and review it.

It says who holds which role, how many of them must sign, and when what they sign expires. Nothing
reads it but `modelward-repo`; what devices need of it is signed into the repository.
"""

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from modelward.errors import FormatError, UsageError
from modelward.formats import note, strict
from modelward.formats.log_policy import LogPolicy
from modelward.formats.names import check_name
from modelward.formats.note import VerifierKey
from modelward.formats.policy import HealthGate, MetricGate, read_formats
from modelward_repo.log.add_checkpoint import check_url

TOP_LEVEL = ("root", "targets", "snapshot", "timestamp")
CHANNELS = "channels"
ROLES = (*TOP_LEVEL, CHANNELS)
MAX_HOLDERS = 64

_PERIOD = re.compile(r"([1-9]\d{0,4})([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}
_MODEL_FIELDS = (
    "holders",
    "threshold",
    "expires",
    "layout",
    "owners",
    "owners_threshold",
    "metrics",
    "signers",
    "health",
)


@dataclass(frozen=True)
class RoleTrust:
    """Who may sign as a role.

    Attributes:
        holders: Who holds its keys, by name.
        threshold: How many of them must sign.
        expires: How long what they sign is valid.
    """

    holders: tuple[str, ...]
    threshold: int
    expires: timedelta


@dataclass(frozen=True)
class ModelTrust:
    """Who may release a model, and what its releases must prove.

    Attributes:
        name: Name of the model.
        holders: Who holds the keys of its role ``model-<name>``.
        threshold: How many of them must sign a release.
        expires: How long what they sign is valid.
        layout: The file that declares its supply chain.
        owners: Who owns the layout.
        owners_threshold: How many of them must sign it.
        metrics: Bounds on attested metrics.
        signers: Who may make the OpenSSF model signature; empty where none is demanded.
        health: What its releases must prove on devices.
    """

    name: str
    holders: tuple[str, ...]
    threshold: int
    expires: timedelta
    layout: Path
    owners: tuple[str, ...]
    owners_threshold: int
    metrics: tuple[MetricGate, ...]
    signers: tuple[str, ...] = ()
    health: HealthGate = field(default_factory=HealthGate)

    @property
    def role(self) -> RoleTrust:
        """Who may sign as the model's role."""
        return RoleTrust(self.holders, self.threshold, self.expires)


@dataclass(frozen=True)
class LogTrust:
    """Which log records what is published, and who must have seen it.

    Attributes:
        origin: The log's name.
        holder: Who holds its key.
        witnesses: The witnesses' keys, by name.
        urls: Where they are reached, by name; of those that the policy says it of.
        quorum: Who must cosign, as root's `x-log` says it.
    """

    origin: str
    holder: str
    witnesses: Mapping[str, VerifierKey]
    urls: Mapping[str, str]
    quorum: Any

    def policy(self, vkey: VerifierKey) -> LogPolicy:
        """Return what devices need of it.

        Args:
            vkey: The log's key.

        Raises:
            FormatError: It makes no sense.
        """
        return LogPolicy.parse(
            {
                "vkey": str(vkey),
                "witnesses": {name: str(key) for name, key in self.witnesses.items()},
                "quorum": self.quorum,
            }
        )


@dataclass(frozen=True)
class TrustPolicy:
    """A trust policy.

    Attributes:
        path: The file it was read from.
        channels: Channels that are to exist.
        formats: Formats that a release's files may have.
        roles: The top-level roles and `channels`, by name.
        models: The models, by name.
        log: The transparency log; None for none.
    """

    path: Path
    channels: tuple[str, ...]
    formats: tuple[str, ...]
    roles: Mapping[str, RoleTrust]
    models: Mapping[str, ModelTrust]
    log: LogTrust | None = None

    @classmethod
    def load(cls, path: Path, models: Sequence[str] = ()) -> "TrustPolicy":
        """Read a policy.

        Args:
            path: The TOML file.
            models: Models to add to those it names, with its defaults.

        Raises:
            UsageError: It cannot be read, or says something that makes no sense: the error names
                the file and the field.
        """
        try:
            return cls._from_fields(path, strict.Fields(str(path), _read(path)), models)
        except FormatError as error:
            where = f"{error.field}: " if error.field else ""
            raise UsageError(
                f"{path}: {where}{error.problem}", "see metadata/README.md for what may stand there"
            ) from error

    @classmethod
    def _from_fields(
        cls, path: Path, fields: strict.Fields, models: Sequence[str]
    ) -> "TrustPolicy":
        _only(fields, ("channels", "formats", "roles", "model", "models", "log"))
        roles = fields.fields("roles")
        _only(roles, ROLES)
        named = fields.fields("models") if fields.has("models") else strict.Fields("", {})
        default = fields.fields("model")
        _only(default, _MODEL_FIELDS)
        names = dict.fromkeys([*named.raw, *models])
        return cls(
            path=path,
            channels=_names(fields, "channels"),
            formats=read_formats(fields),
            roles={name: _role(roles.fields(name)) for name in ROLES},
            models={name: _model(fields, default, named, name, path.parent) for name in names},
            log=_log(fields.fields("log"), path.parent) if fields.has("log") else None,
        )

    def model(self, name: str) -> ModelTrust:
        """Return what the policy says of a model.

        Raises:
            UsageError: It does not name the model.
        """
        try:
            return self.models[name]
        except KeyError as error:
            known = ", ".join(sorted(self.models)) or "none"
            raise UsageError(
                f"{self.path} names no model {name!r} (it names: {known})",
                f"add a table [models.{name}] to it",
            ) from error


def role_name(model: str) -> str:
    """Return the name of the role that signs a model's releases.

    The prefix keeps a model named "root" harmless.
    """
    return f"model-{model}"


def _read(path: Path) -> Any:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the policy {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _only(fields: strict.Fields, known: Collection[str]) -> None:
    """Refuse a field nobody reads: a misspelt threshold must not silently be another one."""
    for name in fields.raw:
        if name not in known:
            raise fields.wrong(name, f"is not a field here; known are {', '.join(known)}")


def _names(fields: strict.Fields, name: str) -> tuple[str, ...]:
    names = fields.texts(name, MAX_HOLDERS)
    if not names:
        raise fields.wrong(name, "is empty")
    for index, text in enumerate(names):
        try:
            check_name(text)
        except ValueError as error:
            raise fields.wrong(f"{name}[{index}]", str(error)) from error
    return names


def _role(fields: strict.Fields) -> RoleTrust:
    _only(fields, ("holders", "threshold", "expires"))
    holders = _names(fields, "holders")
    return RoleTrust(holders, _threshold(fields, "threshold", holders), _period(fields, "expires"))


def _threshold(fields: strict.Fields, name: str, holders: tuple[str, ...]) -> int:
    threshold = fields.integer(name, least=1)
    if threshold > len(holders):
        raise fields.wrong(name, f"is {threshold}, but there are only {len(holders)} holders")
    return threshold


def _period(fields: strict.Fields, name: str) -> timedelta:
    text = fields.text(name, most=16)
    match = _PERIOD.fullmatch(text)
    if not match:
        raise fields.wrong(name, f"{text!r} is not a period such as 365d, 12h or 30m")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _model(
    fields: strict.Fields, default: strict.Fields, named: strict.Fields, name: str, base: Path
) -> ModelTrust:
    try:
        check_name(name)
    except ValueError as error:
        raise fields.wrong("models", str(error)) from error
    own = named.fields(name) if name in named.raw else strict.Fields("", {}, default.path)
    _only(own, _MODEL_FIELDS)
    merged = strict.Fields(fields.document, default.raw | own.raw, own.path)
    holders = _names(merged, "holders")
    owners = _names(merged, "owners")
    return ModelTrust(
        name=name,
        holders=holders,
        threshold=_threshold(merged, "threshold", holders),
        expires=_period(merged, "expires"),
        layout=base / merged.text("layout"),
        owners=owners,
        owners_threshold=_threshold(merged, "owners_threshold", owners),
        metrics=tuple(_metric(gate) for gate in merged.each("metrics", most=256))
        if merged.has("metrics")
        else (),
        signers=_names(merged, "signers") if merged.has("signers") else (),
        health=_health(merged.fields("health")) if merged.has("health") else HealthGate(),
    )


def _log(fields: strict.Fields, base: Path) -> LogTrust:
    _only(fields, ("origin", "holder", "quorum", "witnesses"))
    origin = note.check_name(fields.text("origin"), fields.document, fields.at("origin"))
    named = fields.fields("witnesses") if fields.has("witnesses") else strict.Fields("", {})
    keys, urls = {}, {}
    for name, value in named.raw.items():
        one = named
        field = name
        if isinstance(value, dict):
            one, field = named.fields(name), "vkey"
            _only(one, ("vkey", "url"))
            if one.has("url"):
                urls[name] = one.checked("url", check_url)
        keys[name] = _vkey(one, field, base)
    trust = LogTrust(
        origin=origin,
        holder=fields.checked("holder", check_name),
        witnesses=keys,
        urls=urls,
        quorum=fields.any("quorum"),
    )
    try:
        # The log's own key is found, or made, later: another one stands in for it.
        trust.policy(VerifierKey(origin, note.SignatureType.ED25519, bytes(32)))
    except FormatError as error:
        raise FormatError(fields.document, fields.at(error.field), error.problem) from error
    return trust


def _vkey(fields: strict.Fields, name: str, base: Path) -> VerifierKey:
    """Read a verifier key that stands there, or in the file that is named there."""
    text = fields.text(name, most=note.VKEY_CAP)
    if "+" not in text:
        try:
            text = (base / text).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise fields.wrong(name, f"{text!r} is neither a vkey nor a file with one") from error
    return VerifierKey.parse(text, fields.document, fields.at(name))


def _health(fields: strict.Fields) -> HealthGate:
    _only(fields, HealthGate.FIELDS)
    return HealthGate.from_fields(fields)


def _metric(fields: strict.Fields) -> MetricGate:
    _only(fields, ("file", "name", "min", "max"))
    return MetricGate.from_fields(fields)
