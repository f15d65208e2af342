"""policy.json and policies/<model>.json: what the security team demands of every release."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from modelward.errors import FormatError
from modelward.formats import strict
from modelward.formats.names import check_name, check_path

FLEET_DOCUMENT = "policy.json"
FLEET_SCHEMA = "modelward/policy/1"
MODEL_DOCUMENT = "model policy"
MODEL_SCHEMA = "modelward/model-policy/1"
CAP = 1 << 18

# Formats by suffix. Pickle and its kin (.pkl, .pt, .bin, .joblib, .h5 ...) are absent on purpose:
# loading them runs code.
KNOWN_FORMATS: Mapping[str, tuple[str, ...]] = {
    "onnx": (".onnx",),
    "safetensors": (".safetensors",),
    "gguf": (".gguf",),
    "tflite": (".tflite",),
    "json": (".json",),
    "text": (".txt", ".md", ".csv", ".vocab", ".merges", ".jinja"),
    "sentencepiece": (".model", ".spm"),
    "npy": (".npy",),
    "signature": (".sig",),
}

# Kinds of keys that count. What else securesystemslib can verify, GnuPG's keys and RSA with old
# padding among it, nobody needs here.
SCHEMES: Mapping[str, frozenset[str]] = {
    "ed25519": frozenset({"ed25519"}),
    "ecdsa": frozenset({"ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"}),
    "rsa": frozenset({"rsassa-pss-sha256", "rsassa-pss-sha384", "rsassa-pss-sha512"}),
    "ml-dsa": frozenset({"ml-dsa-44/1", "ml-dsa-65/1", "ml-dsa-87/1"}),
}


def format_of(path: str) -> str | None:
    """Return the format that a file's suffix stands for, or None."""
    suffix = PurePosixPath(path).suffix.lower()
    if not suffix and PurePosixPath(path).name.upper() in ("LICENSE", "LICENCE", "NOTICE"):
        return "text"
    return next((name for name, suffixes in KNOWN_FORMATS.items() if suffix in suffixes), None)


@dataclass(frozen=True)
class Key:
    """A public key as TUF and in-toto write it.

    Attributes:
        keyid: SHA-256 of the canonical JSON of the rest (TUF 4.2), checked on parsing.
        keytype: Such as ``ed25519``.
        scheme: Such as ``ed25519``.
        public: The key itself, in the scheme's encoding.
    """

    keyid: str
    keytype: str
    scheme: str
    public: str

    @classmethod
    def from_fields(cls, keyid: str, fields: strict.Fields) -> "Key":
        """Read a key object.

        Raises:
            FormatError: Ill-formed, or the id is not the key's own: one key under two ids would
                count twice towards a threshold (attack row 21).
        """
        key = cls(
            keyid=keyid,
            keytype=fields.text("keytype", most=64),
            scheme=fields.text("scheme", most=64),
            public=_pem_or_hex(fields.fields("keyval"), "public"),
        )
        if keyid != key.fingerprint():
            raise FormatError(fields.document, fields.path, "key id is not the hash of the key")
        if key.scheme not in SCHEMES.get(key.keytype, ()):
            raise fields.wrong("scheme", f"{key.keytype!r} with {key.scheme!r} is not supported")
        if not key.is_canonical():
            raise fields.wrong("keyval.public", "is not a public key spelt the usual way")
        return key

    def to_dict(self) -> dict[str, Any]:
        """Return the key object, without its id."""
        return {
            "keytype": self.keytype,
            "scheme": self.scheme,
            "keyval": {"public": self.public},
        }

    def is_canonical(self) -> bool:
        """Tell whether the key is spelt the one way that keys are compared in.

        Else the same key, its hexadecimal in capitals or its PEM wrapped differently, would pass
        for another one, with an id of its own (attack row 21).
        """
        if self.keytype == "ed25519":
            return bool(strict.SHA256.fullmatch(self.public))  # as long as a digest: 32 bytes
        # Imported here: most repositories have nothing but Ed25519 keys.
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        try:
            key = serialization.load_pem_public_key(self.public.encode())
        except (ValueError, UnsupportedAlgorithm):
            return False
        pem = key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pem.decode() == self.public

    def fingerprint(self) -> str:
        """Return the key id that these contents must have."""
        # dump() without its final LF is OLPC canonical JSON for such an object, but that OLPC
        # escapes only quote and backslash: a PEM's line ends stand in it as they are.
        parts = [
            f'"keytype":{_quote(self.keytype)}',
            f'"keyval":{{"public":{_quote(self.public)}}}',
            f'"scheme":{_quote(self.scheme)}',
        ]
        return hashlib.sha256(("{" + ",".join(parts) + "}").encode()).hexdigest()


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _pem_or_hex(fields: strict.Fields, name: str) -> str:
    value = fields.any(name)
    if not isinstance(value, str) or not value.replace("\n", "").isprintable():
        raise fields.wrong(name, "must be a public key as text")
    if len(value) > 16_384:  # noqa: PLR2004 - an ML-DSA-87 key in PEM takes 3.6 kB
        raise fields.wrong(name, "is longer than 16384 characters")
    return value


@dataclass(frozen=True)
class MetricGate:
    """A bound that an attested metric must meet.

    Attributes:
        file: The release's file with the metrics.
        name: The metric.
        least: Smallest allowed value, or None.
        most: Largest allowed value, or None.
    """

    file: str
    name: str
    least: float | None = None
    most: float | None = None

    @classmethod
    def from_fields(cls, fields: strict.Fields) -> "MetricGate":
        """Read a gate.

        Raises:
            FormatError: Ill-formed, or it bounds nothing.
        """
        gate = cls(
            file=fields.checked("file", check_path),
            name=fields.text("name", most=128),
            least=fields.number("min") if fields.has("min") else None,
            most=fields.number("max") if fields.has("max") else None,
        )
        if gate.least is None and gate.most is None:
            raise fields.wrong("", "bounds nothing: give min or max")
        return gate


@dataclass(frozen=True)
class HealthGate:
    """What a model must prove on the device itself (gate 12).

    Attributes:
        required: Whether it must be run there, on golden inputs; else it is run where that can be.
        latency_ms: Most milliseconds that a run may take, or None.
        memory: Most bytes of memory that the process which runs it may take, or None.
        tolerance: The most that golden.json may allow outputs to be off, or None.
    """

    required: bool = False
    latency_ms: float | None = None
    memory: int | None = None
    tolerance: float | None = None

    FIELDS = ("required", "latency_ms", "memory", "tolerance")

    @classmethod
    def from_fields(cls, fields: strict.Fields) -> "HealthGate":
        """Read what is demanded.

        Raises:
            FormatError: Ill-formed.
        """
        gate = cls(
            required=fields.boolean("required") if fields.has("required") else False,
            latency_ms=fields.number("latency_ms") if fields.has("latency_ms") else None,
            memory=fields.integer("memory", least=1) if fields.has("memory") else None,
            tolerance=fields.number("tolerance") if fields.has("tolerance") else None,
        )
        if gate.latency_ms is not None and gate.latency_ms <= 0:
            raise fields.wrong("latency_ms", "must be more than 0")
        if gate.tolerance is not None and gate.tolerance < 0:
            raise fields.wrong("tolerance", "must not be less than 0")
        return gate

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {name: getattr(self, name) for name in self.FIELDS}

    def describe(self) -> str:
        """Return it for people; empty if nothing is demanded."""
        demands = (
            "must be run with golden outputs" if self.required else "",
            f"at most {self.latency_ms:g} ms a run" if self.latency_ms is not None else "",
            f"at most {self.memory} bytes of memory" if self.memory is not None else "",
            f"outputs within {self.tolerance:g}" if self.tolerance is not None else "",
        )
        return ", ".join(filter(None, demands))


@dataclass(frozen=True)
class FleetPolicy:
    """Policy for the whole fleet.

    Attributes:
        channels: Channels that exist.
        formats: Formats that a release's files may have.
    """

    channels: tuple[str, ...]
    formats: tuple[str, ...]

    TARGET = "policy.json"

    @classmethod
    def parse(cls, data: bytes) -> "FleetPolicy":
        """Parse policy.json.

        Raises:
            FormatError: The document breaks the format.
        """
        fields = strict.Fields(FLEET_DOCUMENT, strict.load(FLEET_DOCUMENT, data, CAP))
        fields.schema(FLEET_SCHEMA)
        fields.critical()
        return cls(channels=fields.texts("channels"), formats=read_formats(fields))

    def to_bytes(self) -> bytes:
        """Return the document."""
        return strict.dump(
            {
                "schema": FLEET_SCHEMA,
                "channels": list(self.channels),
                "formats": list(self.formats),
                "critical": [],
            }
        )


@dataclass(frozen=True)
class ModelPolicy:
    """Policy for one model.

    Attributes:
        model: Name of the model.
        owners: Keys that may sign its layout, by id.
        threshold: How many of them must have signed.
        metrics: Bounds on attested metrics.
        signers: PEM public keys of which one must have made the OpenSSF model signature; empty
            where none is demanded.
        health: What it must prove on the device itself.
    """

    model: str
    owners: Mapping[str, Key]
    threshold: int
    metrics: tuple[MetricGate, ...] = ()
    signers: tuple[str, ...] = field(default=())
    health: HealthGate = HealthGate()

    @classmethod
    def parse(cls, data: bytes) -> "ModelPolicy":
        """Parse policies/<model>.json.

        Raises:
            FormatError: The document breaks the format.
        """
        fields = strict.Fields(MODEL_DOCUMENT, strict.load(MODEL_DOCUMENT, data, CAP))
        fields.schema(MODEL_SCHEMA)
        fields.critical()
        layout = fields.fields("layout")
        keys = layout.fields("owners")
        owners = {keyid: Key.from_fields(keyid, keys.fields(keyid)) for keyid in keys.raw}
        if len({key.public for key in owners.values()}) != len(owners):
            raise layout.wrong("owners", "the same key stands under two key ids")
        return cls(
            model=fields.checked("model", check_name),
            owners=owners,
            threshold=layout.integer("threshold", least=1, most=max(1, len(owners))),
            metrics=tuple(
                MetricGate.from_fields(gate) for gate in fields.each("metrics", most=256)
            ),
            signers=_signers(fields) if fields.has("signers") else (),
            health=HealthGate.from_fields(fields.fields("health"))
            if fields.has("health")
            else HealthGate(),
        )

    def to_bytes(self) -> bytes:
        """Return the document."""
        return strict.dump(
            {
                "schema": MODEL_SCHEMA,
                "model": self.model,
                "layout": {
                    "owners": {keyid: key.to_dict() for keyid, key in self.owners.items()},
                    "threshold": self.threshold,
                },
                "metrics": [
                    {"file": gate.file, "name": gate.name, "min": gate.least, "max": gate.most}
                    for gate in self.metrics
                ],
                "signers": list(self.signers),
                "health": self.health.to_dict() if self.health != HealthGate() else None,
                "critical": [],
            }
        )


def model_policy_path(model: str) -> str:
    """Return the TUF target path of a model's policy."""
    return f"policies/{model}.json"


def layout_path(model: str) -> str:
    """Return the TUF target path of a model's in-toto layout."""
    return f"layouts/{model}.json"


def read_formats(fields: strict.Fields) -> tuple[str, ...]:
    """Read the field `formats`: a list of names of `KNOWN_FORMATS`.

    Raises:
        FormatError: Ill-formed, or a format is not known.
    """
    formats = fields.texts("formats")
    for index, name in enumerate(formats):
        if name not in KNOWN_FORMATS:
            known = ", ".join(KNOWN_FORMATS)
            raise fields.wrong(f"formats[{index}]", f"{name!r} is not one of {known}")
    return formats


def _signers(fields: strict.Fields) -> tuple[str, ...]:
    found = []
    for index, item in enumerate(fields.items("signers", most=16)):
        if not isinstance(item, str) or not item.startswith("-----BEGIN PUBLIC KEY-----\n"):
            raise fields.wrong(f"signers[{index}]", "must be a PEM public key")
        found.append(item)
    return tuple(found)
