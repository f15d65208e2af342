"""modelward's own documents in plain words."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from modelward.formats import channel as channels
from modelward.formats import floors, policy, release, strict, ticket
from modelward.formats.channel import Channel, Rollout
from modelward.formats.chunks import ChunkIndex
from modelward.formats.floors import Floors, RoleFloor
from modelward.formats.policy import FleetPolicy, Key, ModelPolicy
from modelward.formats.release import Release
from modelward.formats.ticket import Ticket
from modelward_repo.documents.description import Description, clean
from modelward_repo.roles import request
from modelward_repo.roles.holders import Holder, signed_name
from modelward_repo.roles.keys import sslib_key
from modelward_repo.roles.request import Request
from modelward_repo.roles.state import owner_names

KEY_CAP = 65_536
_WHO = "who published it: the file is not signed itself; TUF's targets metadata names its digest"
_LATEST = (
    "that it is what the repository says now: `modelward-repo target PATH` gets that, verified"
)


def describe_release(data: bytes) -> Description:
    """Describe release.json.

    Raises:
        FormatError: It is ill-formed.
    """
    found = Release.parse(data)
    requires = found.requires
    lines = [
        f"A release: {found.model} {found.version}, number {found.counter} of this model's.",
        (
            f"  published {strict.rfc3339(found.released)}, {found.length} bytes in "
            f"{len(found.files)} files"
        ),
        *(
            f"    {file.path}  {file.blob.length} bytes  {file.format}  {file.blob.sha256[:16]}"
            for file in found.files
        ),
        (
            f"  ticket: nonce {clean(found.ticket.nonce)}, "
            f"commit {clean(found.ticket.commit) or 'none'}"
        ),
    ]
    needs = [
        *([f"machine {' or '.join(map(clean, requires.hardware))}"] if requires.hardware else []),
        *(f"{clean(name)} {clean(spec)}" for name, spec in requires.runtime),
        *(f"model {name} {version}" for name, version in requires.components),
    ]
    lines.append(f"  a device needs {', '.join(needs) or 'nothing in particular'}")
    lines += [f"  {len(found.patches)} patches"] * bool(found.patches)
    return Description(
        "release",
        tuple(lines),
        (
            _WHO,
            "the model's files: they are not here, only their digests",
            (
                "the supply chain: its evidence is another file; `modelward-repo inspect` shows "
                "it, a device or `publish --dry-run` verifies it"
            ),
        ),
    )


def describe_channel(data: bytes) -> Description:
    """Describe a channel.

    Raises:
        FormatError: It is ill-formed.
    """
    found = Channel.parse(data)
    lines = [f"The channel {found.name}: which version of a model is meant for its devices."]
    for model, entry in sorted(found.models.items()):
        before = f", before that {entry.previous}" if entry.previous else ""
        lines.append(f"  {model} {entry.version}{before}")
        if entry.revoked:
            lines.append(f"    revoked: {', '.join(map(clean, entry.revoked))}")
        if entry.rollout:
            lines += _rollout(entry.rollout)
    if not found.models:
        lines.append("  it offers nothing yet")
    return Description("channel", tuple(lines), (_WHO, _LATEST))


def describe_fleet_policy(data: bytes) -> Description:
    """Describe policy.json.

    Raises:
        FormatError: It is ill-formed.
    """
    found = FleetPolicy.parse(data)
    return Description(
        "fleet policy",
        (
            "The policy for the whole fleet.",
            f"  channels: {', '.join(found.channels)}",
            f"  formats that a release's files may have: {', '.join(found.formats)}",
        ),
        (_WHO, _LATEST),
    )


def describe_model_policy(data: bytes) -> Description:
    """Describe policies/<model>.json.

    Raises:
        FormatError: It is ill-formed.
    """
    found = ModelPolicy.parse(data)
    names = owner_names(data)
    lines = [
        f"The policy for the model {found.model}: what its releases must prove.",
        f"  its layout: {found.threshold} of {len(found.owners)} owners must sign",
        *(
            f"    {Holder(keyid, names.get(keyid), signed=False)} ({key.scheme})"
            for keyid, key in found.owners.items()
        ),
    ]
    for gate in found.metrics:
        bounds = (
            *([f"at least {gate.least}"] if gate.least is not None else []),
            *([f"at most {gate.most}"] if gate.most is not None else []),
        )
        lines.append(f"  {gate.file}: {gate.name} {' and '.join(bounds)}")
    if found.signers:
        lines.append(f"  an OpenSSF model signature by one of {len(found.signers)} keys")
    if found.health.describe():
        lines.append(f"  on devices: {found.health.describe()}")
    return Description("model policy", tuple(lines), (_WHO, _LATEST))


def describe_ticket(data: bytes) -> Description:
    """Describe a ticket.

    Raises:
        FormatError: It is ill-formed.
    """
    found = Ticket.parse(data)
    fields = found.to_dict()
    lines = [f"A ticket: one run of a supply chain is to become {found.model} {found.version}."]
    lines += [
        f"  {name}: {clean(fields[name]) or 'none'}"
        for name in fields
        if name not in ("schema", "model", "version")
    ]
    return Description(
        "ticket",
        tuple(lines),
        ("who opened it: its step's link says so, under a signature",
         "that any step took it: the links' materials say so"),
    )  # fmt: skip


def describe_floors(data: bytes) -> Description:
    """Describe a device's floors.

    Raises:
        FormatError: It is ill-formed, or torn.
    """
    found = Floors.parse(data)

    def role(name: str, floor: RoleFloor | None) -> str:
        who = ", ".join(key[:8] for key in sorted(floor.signers)) if floor else ""
        return f"  {name} {floor.version}, signed by {who}" if floor else f"  {name}: none yet"

    return Description(
        "floors of a device",
        (
            "A device's floors: the oldest versions that it still accepts.",
            f"  root {found.root}",
            role("timestamp", found.timestamp),
            role("snapshot", found.snapshot),
            *(f"  {name} {version}" for name, version in sorted(found.listed.items())),
            *(f"  releases of {name}: from number {number}"
              for name, number in sorted(found.releases.items())),
        ),
        (
            "that the device acted upon these versions: whoever can write there can change it",
            "which repository they are of: floors do not say",
        ),
        ("its checksum: the write was complete",),
    )  # fmt: skip


def describe_request(data: bytes) -> Description:
    """Describe a signing request, briefly: `ceremony show` does it thoroughly.

    Raises:
        FormatError: It is ill-formed.
        Refused: Something in it does not hold.
    """
    found = Request.parse(data)
    return Description(
        "signing request",
        (
            (
                "A signing request of a ceremony. `modelward-repo ceremony show FILE` shows what "
                "it changes."
            ),
            (
                f"  of repository {found.repository[:16]}, made {strict.rfc3339(found.created)} "
                "by its proposer's clock"
            ),
            f"  note: {clean(found.note) or 'none'}",
            *(f"  asked for: {clean(change)}" for change in found.changes),
        ),
        (
            "that it is about your repository: compare with a root that you know",
            "that the changes are those asked for: `ceremony show` works them out anew",
        ),
        ("that it holds by itself: roots, targets and documents belong together",),
    )


def describe_key(data: bytes) -> Description:
    """Describe a public key file.

    Raises:
        FormatError: It is ill-formed.
    """
    fields = strict.Fields("public key", strict.load("public key", data, KEY_CAP))
    key = Key.from_fields(fields.sha256("keyid"), fields)
    named = sslib_key(key)
    named.unrecognized_fields.update(fields.raw)
    holder = signed_name(named)
    return Description(
        "public key",
        (
            f"A public key: {key.scheme}.",
            f"  key id {key.keyid}",
            *(f"  {line}" for line in key.public.splitlines()),
            *([f"  holder: {holder}"] if holder else []),
        ),
        ("whose it is: have its holder read the key id to you",
         "that anybody holds its private half: `modelward-repo key test` shows that"),
        ("its id is the hash of the key",),
    )  # fmt: skip


def describe_chunks(data: bytes) -> Description:
    """Describe a chunk index.

    Raises:
        FormatError: It is ill-formed.
    """
    found = ChunkIndex.parse(data)
    longest = max((chunk.length for chunk in found), default=0)
    return Description(
        "chunk index",
        (
            f"{len(found)} chunks of at most {longest} bytes, of a file of {found.length} bytes.",
            f"  the whole file: sha256 {found.sha256}",
        ),
        ("that the chunks are those of that file: a device hashes the whole file as well", _WHO),
        content={"length": found.length, "sha256": found.sha256, "chunks": len(found)},
    )


def describe_unknown(content: Mapping[str, Any]) -> Description:
    """Describe a document of a schema that is not known here, field by field."""
    schema = clean(content["schema"])
    return Description(
        "document",
        (
            f"A document of the schema {schema}, which this command knows nothing about:",
            *(
                f"  {clean(name)}: {clean(strict.dump(value).decode().strip())}"
                for name, value in content.items()
            ),
        ),
        ("anything: not even its form",),
    )


def _rollout(rollout: Rollout) -> Iterator[str]:
    words = [*(["HALTED"] * rollout.halted), *(["urgent"] * rollout.urgent)]
    note = f" ({', '.join(words)})" if words else ""
    yield f"    rollout from {strict.rfc3339(rollout.not_before)}{note}"
    for stage in rollout.stages:
        labels = "; ".join(
            f"{clean(name)} {' or '.join(map(clean, values))}"
            for name, values in stage.labels.items()
        )
        yield (
            f"      after {stage.after}: {stage.ppm / 10_000:g} % of the fleet"
            + (f" with {labels}" if labels else "")
            + (", once promoted" if stage.promotion else "")
        )
    yield from _list("      only at", rollout.windows)


def _list(title: str, items: Iterable[str]) -> Iterator[str]:
    text = ", ".join(map(clean, items))
    if text:
        yield f"{title} {text}"


def sha256(data: bytes) -> str:
    """Return the digest that people compare files by."""
    return hashlib.sha256(data).hexdigest()


BY_SCHEMA: Mapping[str, Callable[[bytes], Description]] = {
    release.SCHEMA: describe_release,
    channels.SCHEMA: describe_channel,
    policy.FLEET_SCHEMA: describe_fleet_policy,
    policy.MODEL_SCHEMA: describe_model_policy,
    ticket.SCHEMA: describe_ticket,
    floors.SCHEMA: describe_floors,
    request.SCHEMA: describe_request,
}
