"""The log as publishers use it: what is published is logged first, and waits for its witnesses.

Everything that a waiting snapshot needs lies in the repository already: its files under their own
names, its root and itself in the log's archive, and its leaf as the log's last. So there is no
other record of what waits than the log itself, and nothing to lose.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, Timestamp

from modelward.errors import FormatError, Gate, ModelwardError, Unavailable, UsageError
from modelward.formats import strict
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.leaf import REPOSITORY_FIELD, Leaf, RoleDigest
from modelward.formats.log_policy import FIELD as LOG_FIELD
from modelward.formats.log_policy import LogPolicy
from modelward.formats.note import SignatureType, VerifierKey
from modelward.formats.policy import Key
from modelward.formats.tlog_proof import FIELD as PROOF_FIELD
from modelward.formats.tlog_proof import MAX_TAIL, TimestampProof, TlogProof
from modelward_repo.log.add_checkpoint import check_url
from modelward_repo.log.cosigning import Collect, Collector, Tree
from modelward_repo.log.places import CHECKPOINT, WITNESSES, archive_path
from modelward_repo.log.writer import LogWriter, last_entry, signed_tree
from modelward_repo.roles import metadata as tuf
from modelward_repo.storage import Storage

KEY = "log"  # KEYS/<holder>/log.key
TIMESTAMP_CAP = 16_384  # bytes: what clients of TUF take for a timestamp
_URLS_CAP = 65_536


class Waiting(Unavailable):
    """A change is signed and logged, but too few witnesses have seen it for devices to take it."""


@dataclass(frozen=True)
class LogKey:
    """What it takes to log something.

    Attributes:
        signer: The log's key.
        collect: Asks the witnesses.
    """

    signer: Signer
    collect: Collect = field(default_factory=Collector)

    def sign(self, data: bytes) -> bytes:
        """Sign with the log's key."""
        return bytes.fromhex(self.signer.sign(data).signature)


@dataclass(frozen=True)
class Ledger:
    """The log of a repository.

    Attributes:
        storage: The repository.
        repository: The repository's id.
        policy: Whose log, and which witnesses.
    """

    storage: Storage
    repository: str
    policy: LogPolicy

    @classmethod
    def of(cls, storage: Storage, root: Root) -> "Ledger | None":
        """Return the log that a root demands; None if it demands none.

        Raises:
            ModelwardError: What root says of it makes no sense.
        """
        policy = log_policy(root)
        return cls(storage, repository_id(root), policy) if policy else None

    def leaf(self, root: tuple[int, bytes], snapshot: tuple[int, bytes]) -> Leaf:
        """Return the leaf for a root and a snapshot, each a version and the file."""
        return Leaf(
            self.repository,
            *(
                RoleDigest(version, hashlib.sha256(data).hexdigest())
                for version, data in (root, snapshot)
            ),
        )

    def append(self, leaf: Leaf, documents: Collection[bytes], key: LogKey) -> None:
        """Archive what a leaf names, and log it. Logging the newest leaf again does nothing.

        Raises:
            ModelwardError: The log is damaged, or the key is another one.
            StorageError: Something could not be written.
        """
        writer = LogWriter(self.storage, self.policy.vkey)
        for document in documents:
            self.storage.write_new(archive_path(hashlib.sha256(document).hexdigest()), document)
        if writer.last() != leaf.to_bytes():
            writer.append([leaf.to_bytes()], key.sign)

    def is_last(self, leaf: Leaf) -> bool:
        """Tell whether this is the newest leaf."""
        return LogWriter(self.storage, self.policy.vkey).last() == leaf.to_bytes()

    def prove(
        self, timestamp: Metadata[Timestamp], key: LogKey, signers: Sequence[Signer]
    ) -> bytes:
        """Sign a timestamp again, with a proof of the last leaf and fresh cosignatures.

        Args:
            timestamp: The timestamp, with its version and expiry; the proof is put into it.
            key: What asks the witnesses.
            signers: Whoever signs it.

        Returns:
            Its file.

        Raises:
            Waiting: Too few witnesses cosigned.
            ModelwardError: No proof fits.
        """
        signed = timestamp.signed
        proof: TimestampProof | None = self._prove(key, signed.expires)
        while proof:
            signed.unrecognized_fields[PROOF_FIELD] = proof.to_dict()
            data = tuf.sign(timestamp, signed.version, signed.expires, signers)
            if len(data) < TIMESTAMP_CAP:
                return data
            proof = _shortened(proof, self.policy)
        raise ModelwardError(
            f"no proof of the log fits into a timestamp of {TIMESTAMP_CAP} bytes",
            "have fewer witnesses in the quorum, or some of them cosign with Ed25519 keys",
        )

    def _prove(self, key: LogKey, not_after: datetime) -> TimestampProof:
        """Have witnesses cosign the newest tree, and return the proof for its last leaf.

        Args:
            key: What asks the witnesses.
            not_after: Cosignatures from later than this do not count.

        Raises:
            Waiting: Too few of them did.
        """
        writer = LogWriter(self.storage, self.policy.vkey)
        if writer.signed is None:
            raise RuntimeError("nothing was logged")
        tree = Tree(
            writer.signed,
            self.policy,
            read_urls(self.storage),
            self._seen(),
            writer.consistency,
            not_after,
        )
        collected = key.collect(tree)
        if not self.policy.is_quorum(collected.cosigned):
            raise _waiting(self.policy, collected.cosigned, collected.problems)
        self.storage.replace(CHECKPOINT, collected.signed.to_bytes())
        index = writer.size - 1
        proof = TlogProof(index, writer.inclusion(index), collected.signed)
        return TimestampProof(proof, writer.tail(MAX_TAIL))

    def _seen(self) -> int:
        """Return the size of the tree that witnesses have probably cosigned last."""
        if not self.storage.exists(CHECKPOINT):
            return 0
        seen = SignedCheckpoint.parse(self.storage.read(CHECKPOINT)).checkpoint
        return seen.size if seen.origin == self.policy.origin else 0


def waiting(storage: Storage, root: Root, timestamp: Timestamp) -> Leaf | None:
    """Return the leaf of what is logged and not yet published, or None.

    Args:
        storage: The repository.
        root: The root that is published.
        timestamp: The timestamp that is published.

    Raises:
        ModelwardError: The log is damaged.
    """
    signed = signed_tree(storage)
    entry = last_entry(storage, signed.checkpoint.size) if signed else None
    if entry is None:
        return None
    leaf = Leaf.parse(entry)
    logged = (leaf.root.version, leaf.snapshot.version)
    published = (root.version, timestamp.snapshot_meta.version)
    unproven = (
        LOG_FIELD in root.unrecognized_fields and PROOF_FIELD not in timestamp.unrecognized_fields
    )
    return leaf if logged > published or (logged == published and unproven) else None


def log_policy(root: Root) -> LogPolicy | None:
    """Return what a root says of the log, or None.

    Raises:
        ModelwardError: It makes no sense.
    """
    value = root.unrecognized_fields.get(LOG_FIELD)
    if value is None:
        return None
    try:
        return LogPolicy.parse(value)
    except FormatError as error:
        error.gate = Gate.LOG
        raise


def repository_id(root: Root) -> str:
    """Return what a repository is called in its log.

    Raises:
        ModelwardError: Root does not say.
    """
    found = root.unrecognized_fields.get(REPOSITORY_FIELD)
    if not isinstance(found, str) or not strict.SHA256.fullmatch(found):
        raise ModelwardError(
            f"root names a log, but has no {REPOSITORY_FIELD!r} of 64 hex digits to log under",
            "set the log anew in a ceremony: `modelward-repo ceremony` adds it",
        )
    return found


def log_keyid(vkey: VerifierKey) -> str:
    """Return the id of the log's key as key files have it."""
    return Key("", "ed25519", "ed25519", vkey.public_key.hex()).fingerprint()


def log_vkey(origin: str, key: Key) -> VerifierKey:
    """Return a key file's key as the key of a log.

    Raises:
        UsageError: It is not an Ed25519 key.
    """
    if key.scheme != "ed25519":
        raise UsageError(f"a log's key must be an ed25519 key, not {key.scheme}")
    return VerifierKey(origin, SignatureType.ED25519, bytes.fromhex(key.public))


def _shortened(proof: TimestampProof, policy: LogPolicy) -> TimestampProof | None:
    """Return a proof with one thing less that devices can do without; None if there is none.

    Cosignatures beyond the quorum go first, the longest of them; then the tail, whose absence
    costs devices a request.
    """
    signed = proof.proof.checkpoint
    names = {(key.name, key.key_id): name for name, key in policy.witnesses.items()}
    lines = signed.note.signatures
    for line in sorted(lines, key=lambda line: -len(line.signature)):
        rest = tuple(one for one in lines if one is not line)
        cosigned = {names.get((one.name, one.key_id), "") for one in rest}
        if (line.name, line.key_id) in names and policy.is_quorum(cosigned):
            fewer = SignedCheckpoint.new(signed.checkpoint, *rest)
            inner = TlogProof(proof.proof.index, proof.proof.hashes, fewer)
            return TimestampProof(inner, proof.tail)
    return TimestampProof(proof.proof, proof.tail[1:]) if proof.tail else None


def read_urls(storage: Storage) -> dict[str, str]:
    """Return where witnesses are reached, by name.

    Raises:
        FormatError: The file is ill-formed.
    """
    if not storage.exists(WITNESSES):
        return {}
    fields = strict.Fields(
        "witnesses.json", strict.load("witnesses.json", storage.read(WITNESSES), _URLS_CAP)
    )
    return {name: fields.checked(name, check_url) for name in fields.raw}


def write_urls(storage: Storage, urls: Mapping[str, str]) -> None:
    """Say where witnesses are reached. Nothing depends on it but reaching them."""
    storage.replace(WITNESSES, strict.dump(dict(urls)))


def _waiting(policy: LogPolicy, cosigned: Collection[str], problems: Mapping[str, str]) -> Waiting:
    who = ", ".join(sorted(cosigned)) or "nobody"
    why = "".join(f"; {name}: {reason}" for name, reason in sorted(problems.items()))
    return Waiting(
        f"it is signed and logged, but too few witnesses cosigned the log: {policy.quorum} must, "
        f"{who} did{why}",
        "what was published before stays in force, and nothing is lost: `modelward-repo log "
        "publish` asks them again",
    )
