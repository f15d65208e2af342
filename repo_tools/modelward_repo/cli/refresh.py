"""modelward-repo refresh: sign what is about to expire anew."""

from pathlib import Path

import click

from modelward_repo.cli import options
from modelward_repo.publish.refresh import check_refreshable
from modelward_repo.publish.refresh import refresh as refresh_roles
from modelward_repo.publish.signing import online_signers, role_signers
from modelward_repo.publish.staging import Staging
from modelward_repo.storage.local import LocalStorage


@click.command()
@click.argument("roles", nargs=-1, metavar="[ROLE]...")
@options.repository_option
@options.keys_option
@options.passphrase_option
@options.json_option
def refresh(
    roles: tuple[str, ...], repository: Path, keys: Path, passphrases: options.Passphrases
) -> None:
    """Sign the timestamp anew, and the snapshot when it is half expired.

    Run it hourly: devices refuse a timestamp that is older than its validity, a day by default,
    because somebody may be hiding updates from them. Name other roles, such as channels or
    model-NAME, to renew their expiry as well; that takes their keys.

    \b
        modelward-repo refresh --repository my-repo
    """
    storage = LocalStorage(repository)
    now = options.now()
    staging = Staging.of(storage, now)
    named = {
        role: role_signers(staging, check_refreshable(role), keys, passphrases) for role in roles
    }
    signed = refresh_roles(storage, online_signers(staging, keys, passphrases), now, named)
    options.say(f"Signed anew: {', '.join(signed)}.")
    options.result({"signed": list(signed)})
