"""The command `modelward-repo sign-model`."""

from pathlib import Path

import click

from modelward_repo.cli import options
from modelward_repo.cli.hashing import hashing_bar
from modelward_repo.roles.signers import open_signer
from modelward_repo.supply_chain import model_signature
from modelward_repo.supply_chain.files import replace_file


@click.command("sign-model")
@click.argument("bundle", type=click.Path(path_type=Path, file_okay=False, exists=True))
@options.key_option("Your private key, model-signing.key (P-256)")
@click.option("--name", help="What to call the model. Default: BUNDLE's name.")
@options.passphrase_option
@options.json_option
def sign_model(bundle: Path, key: str, name: str | None, passphrases: options.Passphrases) -> None:
    """Sign the files of BUNDLE as an OpenSSF model signature, in BUNDLE/model.sig.

    Devices demand such a signature where the trust policy names `signers` for a model. Anybody
    else can verify it with the reference tool, `model_signing verify key`. Sign before `package`
    is attested: the signature is one of the release's files.

    \b
        modelward-repo key create packager/model-signing --scheme ecdsa-sha2-nistp256
        modelward-repo sign-model bundle --key keys/packager/model-signing.key
    """
    signer = open_signer(key, passphrases)
    with hashing_bar() as progress:
        data = model_signature.sign_model(bundle, name or bundle.resolve().name, signer, progress)
    target = bundle / model_signature.FILE
    replace_file(target, data)
    options.say(f"{target}: signed with {key}")
    options.result({"file": str(target), "keyid": signer.public_key.keyid})
