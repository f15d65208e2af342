"""modelward-repo serve: serve a repository over HTTP."""

from pathlib import Path

import click

from modelward.errors import UsageError
from modelward_repo.cli import options


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes any free one and says which.",
)
@click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes."
)
@click.option(
    "--fleet",
    type=click.Path(path_type=Path, file_okay=False),
    help="Private folder for device reports. Default: <directory>-fleet beside it.",
)
@options.json_option
def serve(directory: Path, host: str, port: int, workers: int, fleet: Path | None) -> None:
    """Serve the repository in DIRECTORY over HTTP, until it is told to stop.

    Devices trust nothing that a server says, so any static file server will do as well, and so
    will a mirror or a content delivery network in front. Reports of devices that were registered
    with `modelward-repo device add` are taken at /reports.

    \b
        modelward-repo serve my-repo --port 8080
    """
    from modelward_repo.server.run import serve as run  # noqa: PLC0415 - starts slowly, forks

    if not (directory / "metadata/timestamp.json").is_file():
        raise UsageError(f"{directory} is not a repository", "make one with `modelward-repo init`")

    def ready(url: str) -> None:
        options.say(f"serving {directory} on {url}")
        options.result({"directory": str(directory), "url": url})

    run(directory, host, port, workers, ready, fleet)
