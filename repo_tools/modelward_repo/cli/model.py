"""modelward-repo model: add models to a repository."""

from pathlib import Path

import click

from modelward_repo.cli import options
from modelward_repo.publish.create import Plan, add_model
from modelward_repo.roles.policy import role_name
from modelward_repo.roles.ring import KeyRing
from modelward_repo.storage.local import LocalStorage


@click.group()
def model() -> None:
    """Add models to a repository."""


@model.command()
@click.argument("name")
@click.option(
    "--policy",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The trust policy, as for `modelward-repo init`.",
)
@click.option(
    "--plaintext-keys", is_flag=True, help="Leave new keys unencrypted. For tests and demos only."
)
@options.repository_option
@options.keys_option
@options.passphrase_option
@options.json_option
def add(
    name: str,
    policy: Path,
    plaintext_keys: bool,
    repository: Path,
    keys: Path,
    passphrases: options.Passphrases,
) -> None:
    """Add the model NAME, with a role, policy and layout of its own.

    It takes the threshold of keys of targets, which are offline: bring them together for this. The
    key of the model's role is made if it is missing; keys of people never are, since they may
    merely lie elsewhere: their .pub files are enough.

    \b
        modelward-repo model add second-model --policy metadata/minimal.toml
    """
    plan = Plan.load(policy, (name,))
    ring = KeyRing(
        keys,
        passphrases,
        lambda: None if plaintext_keys else passphrases.new(),
        may_make=lambda key: key == role_name(name),
    )
    add_model(LocalStorage(repository), plan, name, ring, options.now())
    for key in ring.made:
        options.say(f"New key: {key.path}")
    options.say(f"The repository has the model {name} now. Nothing of it is released yet.")
    options.result({"model": name, "made": [str(key.path) for key in ring.made]})
