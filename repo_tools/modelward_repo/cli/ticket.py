"""The command `modelward-repo ticket`."""

import secrets
from pathlib import Path

import click

from modelward.errors import UsageError
from modelward.formats.names import check_name, check_version
from modelward.formats.ticket import FILE, Ticket
from modelward_repo.cli import options
from modelward_repo.publish.release import next_counter, released
from modelward_repo.publish.staging import Staging
from modelward_repo.storage.local import LocalStorage
from modelward_repo.supply_chain.files import create_file

NONCE = 16  # bytes


@click.command()
@click.argument("model")
@click.argument("version")
@click.option("--commit", default="", help="Revision of the training code that is to be used.")
@click.option(
    "--output",
    "-o",
    default=FILE,
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The ticket to write; it must not exist.",
)
@click.option(
    "--counter",
    type=click.IntRange(min=1),
    help="Its place among the model's releases. Default: the next, as the repository has it.",
)
@options.repository_option_if_any
@options.json_option
def ticket(
    model: str,
    version: str,
    commit: str,
    output: Path,
    counter: int | None,
    repository: Path | None,
) -> None:
    """Open a release: say that a run of the supply chain is to become MODEL in VERSION.

    Every step takes the ticket as a material, so evidence for one release can never be shown as
    evidence for another. Each call draws a fresh nonce: two runs for one version differ as well.
    The counter is the release's place in the model's history: devices never go below it.

    \b
        modelward-repo ticket meter-reader 1.0.0 --commit $(git rev-parse HEAD) -r repository
        modelward-repo ticket meter-reader 1.0.0 --counter 1
    """
    try:
        check_name(model)
        check_version(version)
    except ValueError as error:
        raise UsageError(str(error)) from error
    counter = counter or _next(model, repository)
    made = Ticket(model, version, counter, secrets.token_hex(NONCE), commit)
    Ticket.parse(made.to_bytes())  # whatever a device would refuse is refused here
    create_file(output, made.to_bytes())
    options.say(f"{output}: {model} {version}, release {made.counter}, nonce {made.nonce}")
    options.result({"file": str(output), "sha256": made.sha256(), **made.to_dict()})


def _next(model: str, repository: Path | None) -> int:
    if repository is None:
        raise UsageError(
            "which release of the model is this to be?",
            "name the repository with --repository, or say it with --counter",
        )
    staging = Staging.of(LocalStorage(repository), options.now())
    return next_counter(released(staging, model))
