"""modelward-repo golden: write down what a model answers, for devices to be held against."""

from pathlib import Path

import click

from modelward.formats.golden import FILE
from modelward_repo.cli import options
from modelward_repo.supply_chain.files import replace_file


@click.command()
@click.argument("model", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--inputs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An .npz file with an array for each input; repeatable. Default: made-up numbers.",
)
@click.option("--absolute", default=0.0, help="How far an output may be off on a device.")
@click.option("--relative", default=0.0, help="... and besides, as a part of its own size.")
@click.option(
    "--as", "name", metavar="PATH", help="The file's path in the release. Default: its name."
)
@click.option(
    *("--output", "-o"),
    type=click.Path(path_type=Path),
    help=f"Where to write it. Default: {FILE} beside the model.",
)
@options.json_option
def golden(
    model: Path,
    inputs: tuple[Path, ...],
    absolute: float,
    relative: float,
    name: str | None,
    output: Path | None,
) -> None:
    """Run the ONNX file MODEL here and write what it answers to golden.json.

    Every device must answer the same, within the tolerance, before it runs the release (gate 12).
    Let whoever evaluates the model do this, and have it approved with the other files.

    \b
        modelward-repo golden bundle/model.onnx --inputs seven.npz --absolute 0.01
    """
    from modelward_repo.publish import golden as making  # noqa: PLC0415 - numpy is slow to load

    cases = [making.read_inputs(path) for path in inputs]
    found = making.make(model, name or model.name, cases, absolute, relative)
    target = output or model.parent / FILE
    replace_file(target, found.to_bytes())
    options.say(f"{target}: {len(found.cases)} cases, {target.stat().st_size} bytes")
    if not inputs:
        options.say("  Its inputs are made up: better give real ones with --inputs.")
    options.result({"path": str(target), "cases": len(found.cases)})
