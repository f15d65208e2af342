"""Completion scripts for shells, made from the command line's own definition."""

import argparse

Commands = dict[str, tuple[str, list[tuple[str, str]]]]


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
    """Return every command's summary and its options with their help."""
    # argparse has no public way to list what it was told.
    subparsers = next(
        action
        for action in parser._actions  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
    )
    summaries = {action.dest: action.help or "" for action in subparsers._choices_actions}  # noqa: SLF001
    return {
        name: (
            summaries.get(name, ""),
            [
                (option, action.help or "")
                for action in command._actions  # noqa: SLF001
                for option in action.option_strings
                if option.startswith("--")
            ],
        )
        for name, command in subparsers.choices.items()
    }


def _bash(commands: Commands) -> str:
    cases = "\n".join(
        f'    {name}) words="{" ".join(option for option, _ in options)}";;'
        for name, (_, options) in commands.items()
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
    for name, (summary, options) in commands.items():
        lines.append(
            f"complete -c modelward -n __fish_use_subcommand -a {name} -d {_quoted(summary)}"
        )
        lines += [
            f"complete -c modelward -n '__fish_seen_subcommand_from {name}' "
            f"-l {option[2:]} -d {_quoted(text)}"
            for option, text in options
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
