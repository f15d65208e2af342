"""Write the versions of the libraries that decide the results, one `name==version` a line.

They are read from the environment this runs in; nothing is looked up elsewhere.
"""

import argparse
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "protobuf",
    "scikit-learn",
    "scipy",
    "skl2onnx",
    "threadpoolctl",
)


def main() -> str | None:
    """Run the command; a returned text is the error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write")
    arguments = parser.parse_args()
    try:
        lines = [f"{name}=={version(name)}\n" for name in LIBRARIES]
        arguments.out.write_text("".join(lines), encoding="utf-8")
    except PackageNotFoundError as error:
        return f"environment: {error.name} is not installed"
    except OSError as error:
        return f"environment: {error}"
    print(f"environment: {len(lines)} versions in {arguments.out}")
    return None


if __name__ == "__main__":
    sys.exit(main())
