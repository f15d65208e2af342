"""The command line of `modelward-repo`: one module a group of commands, loaded when used."""

import importlib
import json
import sys
from collections.abc import Sequence

import click

from modelward.errors import ExitCode, ModelwardError
from modelward_repo import __version__
from modelward_repo.cli.options import Output

PROGRAM = "modelward-repo"
COMPLETE = "_MODELWARD_REPO_COMPLETE"

# Command -> module of this package, and the name of the command in it.
COMMANDS = {
    "init": "init:init",
    "model": "model:model",
    "key": "key:key",
    "ceremony": "ceremony:ceremony",
    "layout": "layout:layout",
    "ticket": "ticket:ticket",
    "manifest": "manifest:manifest",
    "attest": "attest:attest",
    "golden": "golden:golden",
    "sign-model": "sign_model:sign_model",
    "publish": "publish:publish",
    "channel": "channel:channel",
    "release": "release:release",
    "refresh": "refresh:refresh",
    "status": "status:status",
    "log": "log:log",
    "witness": "witness:witness",
    "diff": "diff:diff",
    "inspect": "inspect:inspect",
    "target": "target:target",
    "export": "export:export",
    "serve": "serve:serve",
    "device": "device:device",
    "reports": "reports:reports",
    "completion": "completion:completion",
}


class LazyGroup(click.Group):
    """Imports a command's module only when the command is used: start-up stays short."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order they are met in practice."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is not a command")
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM)
def root() -> None:
    """Make, publish and serve repositories of AI models that devices can trust.

    A first repository, with a folder that holds your model:

    \b
        modelward-repo init my-repo --policy metadata/minimal.toml --model my-model
        modelward-repo release my-model 1.0.0 FOLDER --repository my-repo
        modelward-repo serve my-repo
    """


def run(args: Sequence[str]) -> int:
    """Run one command and return its exit code; see `modelward.errors.ExitCode`."""
    own = args[: args.index("--")] if "--" in args else args
    output = Output(json="--json" in own)
    try:
        result = root.main(
            list(args),
            prog_name=PROGRAM,
            complete_var=COMPLETE,
            standalone_mode=False,
            obj=output,
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo(f"{PROGRAM}: interrupted", err=True)
        return ExitCode.ERROR
    except ModelwardError as error:
        _show(error, output)
        return error.exit_code
    except OSError as error:
        failure = ModelwardError(
            _reason(error), "check permissions and free space, then run it again"
        )
        _show(failure, output)
        return failure.exit_code
    return result if isinstance(result, int) else ExitCode.DONE


def main() -> None:
    """Run the command that the process was started with."""
    sys.exit(run(sys.argv[1:]))


def _reason(error: OSError) -> str:
    """Return what went wrong; of a copied folder, with the first file only."""
    match error.args:
        case [[(_, where, why), *_]]:  # a shutil.Error
            return f"{where}: {why}"
    return str(error)


def _show(error: ModelwardError, output: Output) -> None:
    if output.json:
        click.echo(json.dumps(error.to_dict(), indent=2))
        return
    where = f"refused at {error.gate}: " if error.gate else ""
    click.echo(f"{PROGRAM}: {where}{error.reason}", err=True)
    if error.advice:
        click.echo(f"  What to do: {error.advice}", err=True)
