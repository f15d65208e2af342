"""Channels: which published version of a model is meant for whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Signer
from tuf.api.metadata import Targets

from modelward.errors import UsageError
from modelward.formats import channel as channels
from modelward.formats import release as releases
from modelward.formats.channel import Channel, Entry
from modelward.formats.policy import FleetPolicy
from modelward.formats.release import Release
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.roles.policy import CHANNELS, role_name
from modelward_repo.storage import Storage


@dataclass(frozen=True)
class ChannelKeys:
    """What signs a channel.

    Attributes:
        channels: Signers of the role `channels`.
        online: Signers of snapshot and timestamp.
    """

    channels: Sequence[Signer]
    online: Online


@dataclass(frozen=True)
class Offer:
    """What a channel is to offer.

    Attributes:
        channel: The channel.
        model: The model.
        version: The version; must be published.
    """

    channel: str
    model: str
    version: str


@dataclass(frozen=True)
class Moved:
    """What setting a channel did.

    Attributes:
        entry: What the channel says of the model now.
        before: The version it offered before, or None.
        backwards: Whether devices that run `before` will refuse it as older.
    """

    entry: Entry
    before: str | None
    backwards: bool


def set_version(storage: Storage, offer: Offer, keys: ChannelKeys, now: datetime) -> Moved:
    """Offer a version of a model in a channel.

    Args:
        storage: The repository.
        offer: What to offer where.
        keys: What signs the change.
        now: The time to count expiry from.

    Raises:
        UsageError: There is no such channel or release, or the channel has revoked it.
        Refused: A device would refuse the result.
        Waiting: It is logged, but too few witnesses cosigned; the channel is as it was.
    """
    with storage.lock():
        staging = Staging.of(storage, now)
        document = read(staging, offer.channel)
        release = _release(staging, offer.model, offer.version)
        old = document.models.get(offer.model)
        if old and old.version == offer.version:
            staging.resume(keys.online)
            return Moved(old, old.version, backwards=False)
        if old and offer.version in old.revoked:
            raise UsageError(
                f"{offer.model} {offer.version} is revoked in {offer.channel}",
                "publish and set a newer version",
            )
        before = old.version if old else None
        entry = Entry(offer.version, before, old.revoked if old else ())
        changed = Channel(offer.channel, {**document.models, offer.model: entry})
        path = channels.target_path(offer.channel)
        added = {path: changed.to_bytes()}
        staging.put_targets(CHANNELS, staging.targets(CHANNELS), added, keys.channels)
        staging.finish(keys.online)
        with staging.as_device() as repository:
            Channel.parse(repository.target(path, channels.CAP) or b"")
        staging.commit()
    newer = before and _release(staging, offer.model, before).counter > release.counter
    return Moved(entry, before, backwards=bool(newer))


def read(staging: Staging, channel: str) -> Channel:
    """Return a channel's document.

    Raises:
        UsageError: There is no such channel.
    """
    data = staging.target(CHANNELS, channels.target_path(channel))
    if data is None:
        raise UsageError(
            f"there is no channel {channel!r}",
            f"choose one of {', '.join(names(staging))}",
        )
    return Channel.parse(data)


def names(staging: Staging) -> tuple[str, ...]:
    """Return the channels that the fleet's policy names."""
    policy = staging.target(Targets.type, FleetPolicy.TARGET)
    return FleetPolicy.parse(policy).channels if policy else ()


def _release(staging: Staging, model: str, version: str) -> Release:
    data = staging.target(role_name(model), releases.target_path(model, version))
    if data is None:
        raise UsageError(
            f"{model} {version} is not published",
            f"publish it first: modelward-repo publish {model} {version} BUNDLE --evidence ...",
        )
    return Release.parse(data)
