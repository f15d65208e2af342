"""modelward-repo completion: print shell completion."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes this command in SHELL.

    \b
        modelward-repo completion bash >> ~/.bashrc
    """
    from modelward_repo.cli import COMPLETE, PROGRAM, root  # noqa: PLC0415 - they load this module

    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"{shell} is not supported")
    click.echo(script(root, {}, PROGRAM, COMPLETE).source())
