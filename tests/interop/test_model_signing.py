"""OpenSSF model signatures against the reference tool, in both directions.

`make interop` installs the tool into an environment of its own; where it is not to be had, this is
skipped by name.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from modelward.trust import model_signature
from modelward_repo.roles.keys import KeyFile
from modelward_repo.supply_chain.model_signature import FILE, SCHEME, sign_model

VECTOR = Path(__file__).parents[1] / "vectors/model_signature"
TOOL = os.environ.get("MODEL_SIGNING") or shutil.which("model_signing")

needs_tool = pytest.mark.skipif(
    TOOL is None, reason="the reference tool model_signing is not installed: `make interop` does"
)


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file but the signature."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != FILE
    }


def reference(folder: Path, public: Path) -> int:
    """Verify with the reference tool and return its exit code."""
    arguments = ["verify", "key", folder, "--signature", folder / FILE, "--public_key", public]
    return subprocess.run([str(TOOL), *map(str, arguments)], check=False).returncode


def test_signature_of_the_reference_tool_is_accepted() -> None:
    pem = (VECTOR / "public.pem").read_text("utf-8")
    signature = (VECTOR / "model" / FILE).read_bytes()
    assert model_signature.verify(signature, digests(VECTOR / "model"), [pem]) == pem


@needs_tool
def test_our_signature_is_accepted_by_the_reference_tool(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(VECTOR / "model", model)
    signer = KeyFile(tmp_path / "keys/packager/model-signing.key").generate(None, SCHEME)
    (model / FILE).write_bytes(sign_model(model, "model", signer))
    public = tmp_path / "public.pem"
    public.write_text(signer.public_key.keyval["public"], "utf-8")
    assert reference(model, public) == 0
    (model / "a.txt").write_text("poisoned", "utf-8")
    assert reference(model, public) != 0
