"""modelward-repo channel: say which version of a model is meant for whom."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from modelward_repo.cli import options
from modelward_repo.publish import channel as channels
from modelward_repo.publish.signing import online_signers, role_signers
from modelward_repo.publish.staging import Staging
from modelward_repo.roles.policy import CHANNELS
from modelward_repo.storage.local import LocalStorage


@click.group()
def channel() -> None:
    """Say which version of a model is meant for whom."""


@channel.command("set")
@click.argument("channel")
@click.argument("model")
@click.argument("version")
@options.repository_option
@options.keys_option
@options.passphrase_option
@options.json_option
def set_version(
    channel: str,
    model: str,
    version: str,
    repository: Path,
    keys: Path,
    passphrases: options.Passphrases,
) -> None:
    """Offer VERSION of MODEL to the devices that follow CHANNEL.

    The version must be published. It takes the keys of channels, snapshot and timestamp.

    \b
        modelward-repo channel set stable meter-reader 1.2.0
    """
    storage = LocalStorage(repository)
    now = options.now()
    staging = Staging.of(storage, now)
    channels.read(staging, channel)  # a misspelt channel should not cost a passphrase
    signers = channels.ChannelKeys(
        role_signers(staging, CHANNELS, keys, passphrases),
        online_signers(staging, keys, passphrases),
    )
    offer = channels.Offer(channel, model, version)
    tell(offer, channels.set_version(storage, offer, signers, now))


def tell(
    offer: channels.Offer, moved: channels.Moved, published: Mapping[str, Any] | None = None
) -> None:
    """Tell people what setting a channel did, after publishing or not."""
    changed = moved.before != offer.version
    if changed:
        was = f", before it offered {moved.before}" if moved.before else ""
        options.say(f"{offer.channel} offers {offer.model} {offer.version} now{was}.")
    else:
        options.say(f"{offer.channel} offers {offer.model} {offer.version} already: nothing to do.")
    if moved.backwards:
        options.say(
            f"  Note: {offer.version} was published before {moved.before}. Devices that run "
            f"{moved.before} refuse to go back;\n  publish the old content as a new version to "
            "take them there."
        )
    options.result(
        {
            "channel": offer.channel,
            "model": offer.model,
            **asdict(moved.entry),
            "changed": changed,
            "backwards": moved.backwards,
            **({"release": published} if published else {}),
        }
    )


@channel.command()
@click.argument("channel", required=False)
@options.repository_option
@options.json_option
def show(channel: str | None, repository: Path) -> None:
    """Show what CHANNEL, or every channel, offers."""
    staging = Staging.of(LocalStorage(repository), options.now())
    shown = [
        channels.read(staging, name) for name in ([channel] if channel else channels.names(staging))
    ]
    for document in shown:
        options.say(f"{document.name}:" + ("" if document.models else " offers nothing yet"))
        for model, entry in sorted(document.models.items()):
            previous = f" (before: {entry.previous})" if entry.previous else ""
            revoked = f", revoked: {', '.join(entry.revoked)}" if entry.revoked else ""
            options.say(f"  {model:<24} {entry.version}{previous}{revoked}")
    options.result(
        {
            document.name: {model: asdict(entry) for model, entry in document.models.items()}
            for document in shown
        }
    )
