"""modelward-repo init: make a repository."""

from datetime import datetime
from pathlib import Path

import click

from modelward.formats import strict
from modelward.trust.layout import FINAL_STEP
from modelward_repo.cli import options
from modelward_repo.publish.create import Plan, create_repository
from modelward_repo.publish.folder import PACKAGE
from modelward_repo.publish.ledger import Waiting
from modelward_repo.roles.policy import RoleTrust, role_name
from modelward_repo.roles.ring import KeyRing


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--policy",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The trust policy: who holds which role. metadata/minimal.toml is a good start.",
)
@click.option(
    "--model", "models", multiple=True, help="A model to add to the policy's; repeatable."
)
@click.option(
    "--plaintext-keys", is_flag=True, help="Leave new keys unencrypted. For tests and demos only."
)
@options.keys_option
@options.passphrase_option
@options.json_option
def init(
    directory: Path,
    policy: Path,
    models: tuple[str, ...],
    plaintext_keys: bool,
    keys: Path,
    passphrases: options.Passphrases,
) -> None:
    """Make a repository in DIRECTORY from a trust policy.

    Makes every key that is missing, one folder a holder, as if on separate machines; the roles
    root and targets with different keys; one role a model; and signs policies and layouts into
    the repository. All of it, or nothing.

    \b
        modelward-repo init my-repo --policy metadata/minimal.toml --model my-model
    """
    plan = Plan.load(policy, models)
    ring = KeyRing(keys, passphrases, lambda: None if plaintext_keys else passphrases.new())
    now = options.now()
    waiting = None
    try:
        create_repository(directory, plan, ring, now)
    except Waiting as error:  # it is made, and must not be made again
        waiting = error
    _tell(directory, plan, ring, now, plaintext=plaintext_keys)
    if waiting:
        raise waiting
    options.result(
        {
            "repository": str(directory),
            "root": str(directory / "metadata/1.root.json"),
            "keys": str(keys),
            "made": [str(key.path) for key in ring.made],
            "models": sorted(plan.policy.models),
            "channels": list(plan.policy.channels),
        }
    )


def _tell(directory: Path, plan: Plan, ring: KeyRing, now: datetime, *, plaintext: bool) -> None:
    policy = plan.policy
    _tell_keys(ring, plaintext=plaintext)
    options.say("\nWho signs what:")
    rows = [(name, role) for name, role in policy.roles.items()]
    rows += [(role_name(name), model.role) for name, model in policy.models.items()]
    for name, role in rows:
        options.say(f"  {name:<22} {_who(role):<34} valid until {_until(now, role)}")
    for name, model in policy.models.items():
        owners = ", ".join(model.owners)
        expires = strict.rfc3339(now + plan.layouts[name].expires)
        who = f"{model.owners_threshold} of {owners}"
        options.say(f"  {f'layout of {name}':<22} {who:<34} valid until {expires}")
    options.say(f"\nThe repository is {directory}. Next:")
    options.say(f"  - give every device {directory}/metadata/1.root.json: its anchor of trust")
    options.say("  - move the folders of those who hold root, targets and layouts offline")
    options.say("  - keep timestamp and snapshot fresh: `modelward-repo refresh`, hourly")
    for name, layout in plan.layouts.items():
        where = f"--repository {directory}"
        if [step.name for step in layout.steps] == [PACKAGE, FINAL_STEP]:
            options.say(f"  - release a folder: modelward-repo release {name} 1.0.0 FOLDER {where}")
        else:
            options.say(f"  - run the {len(layout.steps)} steps of {name}: modelward-repo ticket")


def _tell_keys(ring: KeyRing, *, plaintext: bool) -> None:
    if not ring.made:
        options.say(f"All keys were in {ring.keys} already.")
        return
    how = "NOT encrypted" if plaintext else "encrypted; change passphrases with ssh-keygen -p -f"
    options.say(f"New keys in {ring.keys} ({how}):")
    holders: dict[str, list[str]] = {}
    for key in ring.made:
        holders.setdefault(key.path.parent.name, []).append(key.path.stem)
    for holder, names in holders.items():
        options.say(f"  {holder + '/':<16} {', '.join(names)}")


def _who(role: RoleTrust) -> str:
    return f"{role.threshold} of {', '.join(role.holders)}"


def _until(now: datetime, role: RoleTrust) -> str:
    return strict.rfc3339(now + role.expires)
