"""The signing request: one file that carries a proposed change from person to person.

Whoever parses one gets what holds by itself: the chain of roots, the targets in force, every
document by its digest, every signature. What it cannot prove is that it is about *your*
repository: for that, compare its first or newest root with one you know (`check_known_root`), and
its words with what the other signers see. Nothing that is shown to people is read from the request
but its note; what changes is worked out from the metadata.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, cast

from securesystemslib.signer import Key as SslibKey
from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization.json import JSONSerializer

from modelward.errors import FormatError
from modelward.formats import strict
from modelward_repo.roles import words
from modelward_repo.roles.soundness import (
    DOCUMENT,
    TAMPERED,
    check_complete,
    check_keys,
    check_signature,
)
from modelward_repo.roles.state import (
    OFFLINE,
    Proposed,
    Rejected,
    Trusted,
    View,
    after,
    before,
    parse_metadata,
)

SCHEMA = "modelward/signing-request/1"
CAP = 4 << 20
MAX_NOTE = 500
MAX_ROOTS = 4096
MAX_CHANGES = 1000


@dataclass(frozen=True)
class Request:
    """A signing request that holds by itself.

    Attributes:
        created: When it was proposed, by the clock of whoever proposed it.
        note: Why, in the words of whoever proposed it.
        changes: What they asked for, as commands; for the record only.
        trusted: What is in force.
        proposed: What is to come into force, with the signatures so far.
    """

    created: datetime
    note: str
    changes: tuple[str, ...]
    trusted: Trusted
    proposed: Proposed

    @classmethod
    def parse(cls, data: bytes) -> "Request":
        """Parse a signing request and check all that it claims.

        Raises:
            FormatError: It breaks the format.
            Rejected: Something in it does not hold.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        fields.critical()
        trusted = _trusted(fields)
        request = cls(
            created=fields.time("created"),
            note=fields.text("note", MAX_NOTE),
            changes=fields.texts("changes", MAX_CHANGES),
            trusted=trusted,
            proposed=_proposed(fields.fields("proposed"), trusted),
        )
        if fields.sha256("repository") != request.repository:
            raise Rejected(
                "the request names another repository than its first root is of", TAMPERED
            )
        return request

    def to_bytes(self) -> bytes:
        """Return the file.

        Raises:
            FormatError: It would be longer than `CAP`.
        """
        proposed = self.proposed
        data = strict.dump(
            {
                "schema": SCHEMA,
                "repository": self.repository,
                "created": strict.rfc3339(self.created),
                "note": self.note,
                "changes": list(self.changes),
                "roots": [_text("root", file) for file in self.trusted.roots],
                "targets": _text("targets", self.trusted.targets_file),
                "documents": _texts(self.trusted.documents),
                "proposed": {
                    "root": _file(proposed.root),
                    "targets": _file(proposed.targets),
                    "documents": _texts(proposed.documents),
                    "numbers": dict(proposed.numbers),
                },
                "critical": [],
            }
        )
        if len(data) > CAP:
            raise FormatError(
                DOCUMENT, "", f"would be {len(data)} bytes long, at most {CAP} are allowed"
            )
        return data

    @property
    def repository(self) -> str:
        """The repository's id: the SHA-256 digest of its first root."""
        return hashlib.sha256(self.trusted.roots[0]).hexdigest()

    @cached_property
    def digest(self) -> str:
        """SHA-256 digest of what is proposed on top of what; signatures do not change it."""
        proposed = self.proposed
        parts = {
            "repository": self.repository,
            "root": hashlib.sha256(self.trusted.roots[-1]).hexdigest(),
            "targets": hashlib.sha256(self.trusted.targets_file).hexdigest(),
            "proposed": {
                role: hashlib.sha256(metadata.signed_bytes).hexdigest() if metadata else None
                for role, metadata in (("root", proposed.root), ("targets", proposed.targets))
            },
            "numbers": dict(proposed.numbers),
        }
        return hashlib.sha256(strict.dump(parts)).hexdigest()

    @property
    def words(self) -> str:
        """The digest in words, to be read aloud."""
        return words.words(bytes.fromhex(self.digest))

    @property
    def before(self) -> View:
        """What is in force."""
        return before(self.trusted)

    @property
    def after(self) -> View:
        """What is to come into force."""
        return after(self.trusted, self.proposed)

    def metadata(self, role: str) -> Metadata[Any] | None:
        """Return what is proposed for root or targets, or None."""
        return self.proposed.root if role == Root.type else self.proposed.targets

    def members(self, role: str) -> dict[str, SslibKey]:
        """Return the keys that may sign what is proposed for a role, by id.

        A new root is signed by keys of the present root and of the new one (TUF 5.3.4).
        """
        if self.metadata(role) is None:
            return {}
        now = self.after.keys(role)
        return {**self.before.keys(role), **now} if role == Root.type else now

    def roles_of(self, keyid: str) -> tuple[str, ...]:
        """Return the roles of this request that a key may sign."""
        return tuple(role for role in OFFLINE if keyid in self.members(role))

    def with_signature(self, role: str, signature: Signature) -> "Request":
        """Return the request with one more signature.

        Raises:
            Rejected: It is not valid, or its key may not sign.
        """
        metadata = cast("Metadata[Any]", self.metadata(role))
        check_signature(role, metadata, signature, self.members(role))
        signed = Metadata(metadata.signed, {**metadata.signatures, signature.keyid: signature})
        proposed = (
            replace(self.proposed, root=signed)
            if role == Root.type
            else replace(self.proposed, targets=signed)
        )
        return replace(self, proposed=proposed)


def check_known_root(request: Request, data: bytes) -> int:
    """Require that the request builds upon a root that a signer knows; return its version.

    Raises:
        Rejected: It is about another repository, or another history of this one.
        FormatError: The file is not root metadata.
    """
    known = parse_metadata("the known root", data)
    if not isinstance(known.signed, Root):
        raise FormatError("the known root", "", "is metadata of another role")
    version = known.signed.version
    roots = request.trusted.roots
    if version > len(roots):
        raise Rejected(
            f"the request builds upon root {len(roots)}, but you know root {version} already",
            "it is out of date: propose it anew",
        )
    same: Metadata[Root] = Metadata.from_bytes(roots[version - 1])
    if known.signed_bytes != same.signed_bytes:
        raise Rejected(
            "the request is about another repository than the root you know",
            "if it should be this one, somebody is deceiving you: do not sign, tell the others",
        )
    return version


def _trusted(fields: strict.Fields) -> Trusted:
    files = tuple(_files(fields, "roots", MAX_ROOTS))
    if not files:
        raise fields.wrong("roots", "is empty")
    previous: Root | None = None
    root: Metadata[Root] | None = None
    for index, file in enumerate(files):
        where = f"roots[{index}]"
        root = _metadata(where, file, Root)
        if root.signed.version != index + 1:
            raise Rejected(f"{where} has version {root.signed.version}, not {index + 1}", TAMPERED)
        # TUF 5.3.4: a root is trusted if the one before it, and itself, say so.
        result = root.signed.get_root_verification_result(
            previous, root.signed_bytes, root.signatures
        )
        if not result.verified:
            raise Rejected(f"root {index + 1} of the request is not signed as it must be", TAMPERED)
        previous = root.signed
    root = cast("Metadata[Root]", root)
    targets_file = _bytes(fields, "targets")
    targets: Metadata[Targets] = _metadata("targets", targets_file, Targets)
    check_keys("targets", targets.signed)
    if not root.signed.get_verification_result(
        Targets.type, targets.signed_bytes, targets.signatures
    ):
        raise Rejected("the request's present targets are not signed as they must be", TAMPERED)
    documents = _documents(fields, targets.signed)
    return Trusted(files, root, targets, targets_file, documents)


def _proposed(fields: strict.Fields, trusted: Trusted) -> Proposed:
    root: Metadata[Root] | None = None
    targets: Metadata[Targets] | None = None
    if fields.has("root"):
        root = _metadata("proposed.root", _bytes(fields, "root"), Root)
        check_keys("proposed.root", root.signed)
        if root.signed.version != trusted.root.signed.version + 1:
            raise Rejected(
                f"the proposed root has version {root.signed.version}, but root "
                f"{trusted.root.signed.version} is in force",
                TAMPERED,
            )
    if fields.has("targets"):
        targets = _metadata("proposed.targets", _bytes(fields, "targets"), Targets)
        check_keys("proposed.targets", targets.signed)
    numbers = fields.fields("numbers")
    in_force = (targets or trusted.targets).signed
    proposed = Proposed(
        root=root,
        targets=targets,
        documents=_documents(fields, in_force),
        numbers={role: numbers.integer(role, least=1) for role in numbers.raw},
    )
    if not (root or targets):
        raise fields.wrong("", "proposes nothing")
    check_complete(in_force, trusted, proposed)
    view = after(trusted, proposed)
    for role in proposed.numbers:
        if view.role(role) is None or role in OFFLINE:
            raise fields.wrong(f"numbers.{role}", "is not a role that is signed online")
    _check_signatures(trusted, view, proposed)
    return proposed


def _check_signatures(trusted: Trusted, view: View, proposed: Proposed) -> None:
    if proposed.root:
        members = {**before(trusted).keys(Root.type), **view.keys(Root.type)}
        for signature in proposed.root.signatures.values():
            check_signature(Root.type, proposed.root, signature, members)
    if proposed.targets:
        for signature in proposed.targets.signatures.values():
            check_signature(Targets.type, proposed.targets, signature, view.keys(Targets.type))


def _documents(fields: strict.Fields, targets: Targets) -> dict[str, bytes]:
    raw = fields.fields("documents")
    found = {}
    for path in raw.raw:
        data = _bytes(raw, path)
        file = targets.targets.get(path)
        if (
            file is None
            or file.length != len(data)
            or file.hashes.get("sha256") != hashlib.sha256(data).hexdigest()
        ):
            raise Rejected(
                f"the request's {path!r} is not the document that targets lists", TAMPERED
            )
        found[path] = data
    return found


def _metadata(where: str, data: bytes, kind: type[Any]) -> Any:
    strict.load(f"{DOCUMENT}: {where}", data, CAP)  # two readers must never see two documents
    metadata = parse_metadata(f"{DOCUMENT}: {where}", data)
    if not isinstance(metadata.signed, kind):
        raise FormatError(DOCUMENT, where, "is metadata of another role")
    return metadata


def _files(fields: strict.Fields, name: str, most: int) -> list[bytes]:
    found = []
    for index, item in enumerate(fields.items(name, most)):
        if not isinstance(item, str):
            raise fields.wrong(f"{name}[{index}]", "must be a string")
        found.append(item.encode())
    return found


def _bytes(fields: strict.Fields, name: str) -> bytes:
    value = fields.any(name)
    if not isinstance(value, str):
        raise fields.wrong(name, "must be a string")
    return value.encode()


def _text(what: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(what, "", "is not UTF-8 text") from error


def _texts(documents: Mapping[str, bytes]) -> dict[str, str]:
    return {path: _text(path, data) for path, data in documents.items()}


def _file(metadata: Metadata[Any] | None) -> str | None:
    return metadata.to_bytes(JSONSerializer(compact=True)).decode() if metadata else None
