"""modelward-repo export: a bundle for devices that no network reaches."""

from pathlib import Path

import click

from modelward.config.transfer import TransferSettings
from modelward.formats import strict
from modelward.transfer import patch
from modelward_repo.cli import options
from modelward_repo.export.choose import Chosen, Wanted, choose
from modelward_repo.export.have import Having
from modelward_repo.export.write import Written, write_archive, write_folder
from modelward_repo.storage.local import LocalStorage

ARCHIVE = ".tar"


@click.command()
@click.option(
    "--to",
    "target",
    required=True,
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A directory, such as one on a stick, or FILE.tar.",
)
@click.option("--channel", default="stable", show_default=True, help="The devices' channel.")
@click.option("--model", "models", multiple=True, help="Only this model; repeatable. Default: all.")
@click.option(
    "--have",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What a device has: its `modelward status --json`; repeatable, for several devices.",
)
@click.option("--no-patches", is_flag=True, help="Whole files only.")
@click.option("--dry-run", is_flag=True, help="Say what it would take, write nothing.")
@options.repository_option
@options.json_option
def export(
    target: Path,
    channel: str,
    models: tuple[str, ...],
    have: tuple[Path, ...],
    no_patches: bool,
    dry_run: bool,
    repository: Path,
) -> None:
    """Write a bundle for devices that no network reaches, to be carried on a stick.

    It holds the metadata, evidence and weights that bring devices of a channel to what it offers
    now. With --have, only the weights that one of those devices lacks, as patches where that is
    less. On the device, `modelward import` takes it through the same gates as any update; it is
    trusted no more than a server is, so who carries the stick does not matter.

    A directory is brought up to date: what is there already is kept, and an export that was
    interrupted goes on where it stopped. Import it before it expires, which is said at the end.

    \b
        modelward status --json > plant-7.json                       # on the device, once
        modelward-repo export --to /media/usb/bundle --have plant-7.json
        modelward import /media/usb/bundle                           # on the device
    """
    storage = LocalStorage(repository)
    wanted = Wanted(
        channel,
        tuple(dict.fromkeys(models)),
        tuple(map(Having.read, have)),
        frozenset() if no_patches else patch.METHODS,
        TransferSettings.memory,
    )
    chosen = choose(storage, wanted, options.now())
    _tell(chosen)
    written = None if dry_run else _write(storage, chosen, target)
    if written is None:
        options.say("Nothing was written.")
    else:
        kept = f", {written.kept} were there already" if written.kept else ""
        options.say(f"Wrote {written.copied} files ({written.length} bytes){kept}: {target}")
        options.say(f"  Import it before {strict.rfc3339(chosen.bundle.expires)}.")
    options.result(_as_json(chosen, written, target))


def _write(storage: LocalStorage, chosen: Chosen, target: Path) -> Written:
    total = chosen.bundle.length
    with options.progress("Copying") as progress:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(min(done, total), total)

        write = write_archive if target.suffix == ARCHIVE else write_folder
        return write(storage, chosen.bundle, target, advance)


def _tell(chosen: Chosen) -> None:
    made = chosen.bundle
    for model, version in made.models:
        options.say(f"  {model} {version}")
    if not made.models:
        options.say(f"  {made.channel} offers nothing yet")
    by_patch = f", {len(chosen.patched)} of them by patch" if chosen.patched else ""
    options.say(
        f"  {len(made.files)} files, {made.length} bytes; {chosen.weights} bytes of weights"
        f"{by_patch}, of {chosen.whole} that a device with nothing needs"
    )


def _as_json(chosen: Chosen, written: Written | None, target: Path) -> dict[str, object]:
    return {
        "to": str(target),
        "channel": chosen.bundle.channel,
        "models": dict(chosen.bundle.models),
        "timestamp": chosen.bundle.timestamp,
        "expires": strict.rfc3339(chosen.bundle.expires),
        "files": len(chosen.bundle.files),
        "length": chosen.bundle.length,
        "weights": chosen.weights,
        "weights_of_all": chosen.whole,
        "patched": dict(chosen.patched),
        "written": written.copied if written else 0,
        "written_bytes": written.length if written else 0,
        "kept": written.kept if written else 0,
        "removed": written.removed if written else 0,
    }
