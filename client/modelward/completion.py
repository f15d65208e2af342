"""Completion scripts for shells, made from the command line's own definition."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """What can be completed after a command.

    Attributes:
        summary: What the command does.
        options: Its long options, each with its help.
        words: What its argument must be one of; empty where it may be anything.
    """

    summary: str
    options: tuple[tuple[str, str], ...]
    words: tuple[str, ...]


Commands = Mapping[str, Command]


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return a completion script.

    Args:
        parser: The command line.
        shell: ``bash``, ``zsh`` or ``fish``.
    """
    commands = _commands(parser)
    if shell == "fish":
        return _fish(commands)
    text = _bash(commands)
    return f"autoload -U +X bashcompinit && bashcompinit\n{text}" if shell == "zsh" else text


def _commands(parser: argparse.ArgumentParser) -> Commands:
    """Return every command with what can be completed after it."""
    # argparse has no public way to list what it was told.
    subparsers = next(
        action
        for action in parser._actions  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
    )
    summaries = {action.dest: action.help or "" for action in subparsers._choices_actions}  # noqa: SLF001
    return {
        name: Command(
            summaries.get(name, ""),
            tuple(
                (option, action.help or "")
                for action in command._actions  # noqa: SLF001
                for option in action.option_strings
                if option.startswith("--")
            ),
            tuple(
                str(word)
                for action in command._get_positional_actions()  # noqa: SLF001
                for word in action.choices or ()
            ),
        )
        for name, command in subparsers.choices.items()
    }


def _bash(commands: Commands) -> str:
    cases = "\n".join(
        f'    {name}) words="{" ".join((*command.words, *dict(command.options)))}";;'
        for name, command in commands.items()
    )
    return f"""_modelward() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words
  case "${{COMP_WORDS[1]}}" in
{cases}
    *) words="{" ".join(commands)} --help";;
  esac
  [ "$COMP_CWORD" -eq 1 ] && words="{" ".join(commands)} --help"
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _modelward modelward
"""


def _fish(commands: Commands) -> str:
    lines = []
    for name, command in commands.items():
        lines.append(
            f"complete -c modelward -n __fish_use_subcommand "
            f"-a {name} -d {_quoted(command.summary)}"
        )
        after = f"complete -c modelward -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{after} -a {word}" for word in command.words]
        lines += [f"{after} -l {option[2:]} -d {_quoted(text)}" for option, text in command.options]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
