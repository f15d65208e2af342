"""Real PKCS#11 tokens, in software: SoftHSM2. Tests that need them skip by name without it."""

import contextlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
MODULE = next((place for place in PLACES if Path(place).is_file()), "")
SO_PIN = "87654321"

needs_softhsm = pytest.mark.skipif(
    not (MODULE and shutil.which("softhsm2-util")),
    reason="SoftHSM2 is not installed: apt-get install softhsm2 opensc",
)


@dataclass(frozen=True)
class SoftHsm:
    """Tokens in a directory."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> "SoftHsm":
        (directory / "tokens").mkdir(parents=True)
        (directory / "softhsm2.conf").write_text(f"directories.tokendir = {directory}/tokens\n")
        return cls(directory)

    @property
    def env(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.directory / "softhsm2.conf"), "PYKCS11LIB": MODULE}

    def token(self, label: str, pin: str) -> str:
        """Make a token and return its label."""
        args = ["--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", SO_PIN]
        subprocess.run(
            ["softhsm2-util", *args], env=self.env, check=True, capture_output=True, timeout=30
        )
        unload()
        return label


def unload() -> None:
    """Have the next use of the module read its configuration anew."""
    with contextlib.suppress(ImportError):
        import pkcs11  # noqa: PLC0415

        pkcs11.unload(MODULE)
