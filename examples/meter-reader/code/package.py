"""Assemble the bundle that is released: copies of the files named, and nothing else.

OUT_BUNDLE/model.onnx, OUT_BUNDLE/metrics.json and OUT_BUNDLE/golden.json (of that file),
OUT_BUNDLE/float/metrics.json (of the model it was converted from) and OUT_BUNDLE/ticket.json.
OUT_BUNDLE must be new or empty.
"""

import argparse
import shutil
import sys
from pathlib import Path


def package(sources: dict[str, Path], bundle: Path) -> None:
    """Copy each of `sources` to its path in `bundle`, byte for byte.

    Raises:
        OSError: A source is missing or unreadable, or `bundle` cannot be written.
        ValueError: `bundle` has something in it.
    """
    missing = [str(source) for source in sources.values() if not source.is_file()]
    if missing:
        raise FileNotFoundError(f"no such file: {', '.join(missing)}")
    if bundle.exists() and any(bundle.iterdir()):
        raise ValueError(f"{bundle} is not empty: remove it, or name another directory")
    for path, source in sources.items():
        (bundle / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, bundle / path)


def main() -> str | None:
    """Run the command; a returned text is the error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edge", metavar="DIR", type=Path, required=True, help="holds model.onnx")
    parser.add_argument(
        "--metrics", metavar="FILE", type=Path, required=True, help="what evaluate_edge.py wrote"
    )
    parser.add_argument(
        "--golden",
        metavar="FILE",
        type=Path,
        required=True,
        help="what evaluate_edge.py wrote, too",
    )
    parser.add_argument(
        "--float-metrics", metavar="FILE", type=Path, required=True, help="what evaluate.py wrote"
    )
    parser.add_argument(
        "--ticket", metavar="FILE", type=Path, required=True, help="what opened the release"
    )
    parser.add_argument("bundle", metavar="OUT_BUNDLE", type=Path, help="directory to write")
    arguments = parser.parse_args()
    sources = {
        "model.onnx": arguments.edge / "model.onnx",
        "metrics.json": arguments.metrics,
        "golden.json": arguments.golden,
        "float/metrics.json": arguments.float_metrics,
        "ticket.json": arguments.ticket,
    }
    try:
        package(sources, arguments.bundle)
    except (OSError, ValueError) as error:
        return f"package: {error}"
    print(f"package: {len(sources)} files in {arguments.bundle}")
    return None


if __name__ == "__main__":
    sys.exit(main())
