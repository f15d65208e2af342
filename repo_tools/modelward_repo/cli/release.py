"""modelward-repo release: release a folder in one go."""

import secrets
from pathlib import Path

import click

from modelward.errors import UsageError
from modelward.formats.names import check_name, check_version
from modelward.formats.ticket import Ticket
from modelward_repo.cli import channel as channel_cli
from modelward_repo.cli import options
from modelward_repo.cli.preparing import prepare_options, watch
from modelward_repo.cli.publish import as_json, tell
from modelward_repo.publish import channel as channels
from modelward_repo.publish import folder as folders
from modelward_repo.publish.bundle import read_bundle
from modelward_repo.publish.cache import Cache
from modelward_repo.publish.prepare import Options
from modelward_repo.publish.release import (
    Keys,
    Preparation,
    Published,
    Request,
    next_counter,
    publish,
    released,
)
from modelward_repo.publish.signing import role_signers
from modelward_repo.publish.staging import Staging
from modelward_repo.roles.policy import CHANNELS, role_name
from modelward_repo.storage.local import LocalStorage
from modelward_repo.supply_chain.hasher import hash_files


@click.command()
@click.argument("model")
@click.argument("version")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--channel", default="stable", show_default=True, help="The channel to offer it in.")
@prepare_options
@options.repository_option
@options.keys_option
@options.passphrase_option
@options.json_option
def release(
    model: str,
    version: str,
    folder: Path,
    channel: str,
    prepare: Options,
    repository: Path,
    keys: Path,
    passphrases: options.Passphrases,
) -> None:
    """Release FOLDER as VERSION of MODEL in one go: package, approve, publish, offer.

    For models with layouts/minimal.toml, where all keys are at hand. What it does, and who signs
    it, is what `attest`, `publish` and `channel set` do one by one on the machines of those who
    hold the keys.

    \b
        modelward-repo release my-model 1.0.0 FOLDER --repository my-repo
    """
    try:
        check_name(model)
        check_version(version)
    except ValueError as error:
        raise UsageError(str(error)) from error
    folders.check_folder(folder)
    now = options.now()
    storage = LocalStorage(repository)
    staging = Staging.of(storage, now)
    ticket = Ticket(model, version, next_counter(released(staging, model)), secrets.token_hex(16))
    channels.read(staging, channel)
    terms = folders.Terms.of(staging, model)
    people = folders.functionaries(terms, keys, passphrases)
    signers = Keys.load(storage, model, keys, passphrases, now)
    channel_keys = channels.ChannelKeys(
        role_signers(staging, CHANNELS, keys, passphrases), signers.online
    )

    done = _already(staging, ticket, folder, prepare.cache)
    if done is None:
        with options.progress("Hashing") as progress:
            hash_files(folder, ["."], progress, prepare.cache)  # before it gets a second name
        with folders.workspace(folder, ticket, repository, prepare.cache) as place:
            with options.progress("Hashing") as progress:
                evidence = folders.attest_steps(
                    place,
                    terms,
                    people,
                    now,
                    progress=progress,
                    told=_tell_signed,
                    known=prepare.cache,
                )
                bundle = read_bundle(place / folders.BUNDLE, progress, prepare.cache)
            request = Request(model, version, bundle, evidence)
            done = publish(
                storage,
                request,
                signers,
                now,
                meter=options.progress,
                preparation=Preparation(prepare, watch()),
            )
        options.say(f"publish: signed with {role_name(model)}, snapshot and timestamp")
    tell(done)
    offer = channels.Offer(channel, model, version)
    moved = channels.set_version(storage, offer, channel_keys, now)
    if moved.before != version:
        options.say("channel: signed with channels, snapshot and timestamp")
    channel_cli.tell(offer, moved, as_json(done))


def _already(staging: Staging, ticket: Ticket, folder: Path, cache: Cache) -> Published | None:
    """Find out whether an interrupted run got as far as publishing."""
    for release in released(staging, ticket.model):
        if release.version == ticket.version:
            with options.progress("Hashing") as progress:
                if folders.is_released(release, folder, progress, cache):
                    return Published(release, already=True)
            raise UsageError(
                f"{release.model} {release.version} is published already, with other content",
                "a published version never changes: release this folder under a new version",
            )
    return None


def _tell_signed(person: folders.Functionary) -> None:
    options.say(f"{person.step}: signed with {person.key.path}")
