"""What bringing one large file over TLS costs: ours, and curl, from one nginx with a private CA.

    make bench ARGS=transfer_tls

As `transfer`: the file is in the page cache, every program is a process of its own, and all of them
believe the one authority that was made for this.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import page
from tests.bench.transfer import ROOT, Taken, compared, make_file, nginx, run, shuffled
from tests.bench.transfer_peers import blob_url

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")


def main(arguments: list[str]) -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(prog="transfer_tls", description=__doc__)
    parser.add_argument("--mib", type=int, default=2048, help="size of the file")
    parser.add_argument("--rounds", type=int, default=3, help="how often, in turn")
    options = parser.parse_args(arguments)
    with TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        place = Path(folder)
        file, sha256 = make_file(place / "www", options.mib)
        with nginx(place, certify(place)) as url:
            programs = commands(url, sha256, options.mib, place / "to")
            taken: dict[str, list[Taken]] = {name: [] for name in programs}
            for _ in range(options.rounds):
                for name in shuffled(programs):
                    taken[name].append(run(programs[name], place / "to", file))
                    print(f"  {name}: {taken[name][-1]}", flush=True)
    report(taken, options)


def certify(place: Path) -> Path:
    """Make an authority, `ca.pem`, and a server's certificate by it; return the latter."""
    server = place / "server.pem"
    make = ("openssl", "req", "-x509", *KEY)
    ours = ("-keyout", place / "ca.key", "-out", place / "ca.pem", "-subj", "/CN=an authority")
    subprocess.run([*make, *ours], check=True, capture_output=True)
    subprocess.run(
        [
            *(*make, "-CA", place / "ca.pem", "-CAkey", place / "ca.key", "-subj", "/CN=a server"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"),
            *("-keyout", place / "server.key", "-out", server),
        ],
        check=True,
        capture_output=True,
    )
    server.write_bytes(server.read_bytes() + (place / "server.key").read_bytes())
    return server


def commands(url: str, sha256: str, mib: int, to: Path) -> dict[str, list[str]]:
    """Return the programs to compare, by name."""
    ours = [sys.executable, "-m", "tests.bench.transfer_peers", "tls"]
    ca = to.parent / "ca.pem"
    curl = f"curl -sS --tlsv1.3 --cacert {ca} -o {to}/model {blob_url(url, sha256)}"
    return {
        "modelward": [*ours, url, sha256, str(mib << 20), str(to)],
        "`curl -o`": ["sh", "-c", curl],
        "curl, then `openssl dgst`": ["sh", "-c", f"{curl} && openssl dgst -sha256 {to}/model"],
    }


def report(taken: dict[str, list[Taken]], options: argparse.Namespace) -> None:
    """Write the page."""
    command = f'make bench ARGS="transfer_tls --mib {options.mib} --rounds {options.rounds}"'
    how = f"{options.mib} MiB; medians (best to worst) of {options.rounds} rounds, shuffled"
    table = compared("To a disk, over TLS 1.3", taken, options.mib)
    page.write("transfer_tls", [page.measured(command, how), "", *table])
