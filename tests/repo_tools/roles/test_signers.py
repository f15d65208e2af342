"""Keys by path and by URI: files, real PKCS#11 tokens, key services, an SSH agent."""

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import CryptoSigner, GCPSigner, Signer, SSlibKey
from securesystemslib.signer import Key as SecureKey

from modelward.errors import Unavailable, UsageError
from modelward_repo.roles import keys as key_module
from modelward_repo.roles import remote, tokens
from modelward_repo.roles.keys import KeyFile, find_signers, from_sslib, sslib_key
from modelward_repo.roles.ring import KeyRing
from modelward_repo.roles.signers import open_public, open_signer
from modelward_repo.roles.tokens import TokenKey
from tests.repo_tools.softhsm import MODULE, SoftHsm, needs_softhsm, unload

PIN = "314159"
ROOT_KEY = "pkcs11:token=alice;id=%02"


def nobody(what: Path | str) -> bytes:
    raise AssertionError(f"asked for {what}")


def pin(what: Path | str) -> bytes:
    assert isinstance(what, str)
    return PIN.encode()


def wrong(_what: Path | str) -> bytes:
    return b"271828"


def signs(signer: Signer) -> SecureKey:
    key = signer.public_key
    key.verify_signature(signer.sign(b"content"), b"content")
    return key


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_module, "KDF_ROUNDS", 1)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ed25519", "ecdsa-sha2-nistp384", "ml-dsa-65"])
def test_a_file_by_its_path(tmp_path: Path, scheme: str) -> None:
    file = KeyFile.of(tmp_path, "alice", "root")
    key = file.create(b"correct horse", scheme)
    assert key.keyid == key.fingerprint() == sslib_key(key).keyid
    asked: list[Path | str] = []

    def ask(what: Path | str) -> bytes:
        asked.append(what)
        return b"correct horse"

    assert signs(open_signer(str(file.path), ask)).keyid == key.keyid
    assert asked == [file.path]
    assert open_public(file.public_path, nobody) == key
    assert open_public(file.path, nobody) == key
    file.public_path.unlink()
    assert open_public(file.path, ask) == key


def test_mldsa_has_the_name_and_id_that_tuf_gives_it(tmp_path: Path) -> None:
    key = KeyFile.of(tmp_path, "alice", "root").create(None, "ml-dsa-65")
    assert (key.keytype, key.scheme) == ("ml-dsa", "ml-dsa-65/1")
    public = sslib_key(key)
    fresh = SSlibKey.from_crypto(public._crypto_key())
    assert (fresh.keyid, fresh.keytype, fresh.scheme) == (key.keyid, key.keytype, key.scheme)


# --- URIs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:token=YubiKey%20PIV%20%2315835999;id=%02",
        "pkcs11:token=alice;object=root;id=%0A%ff;type=private",
        "pkcs11:object=root?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/pin",
        "awskms:1234abcd-12ab-34cd-56ef-1234567890ab",
        "awskms:arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "awskms:alias/timestamp",
        "gcpkms:projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/3",
        "azurekms://my-vault.vault.azure.net/keys/timestamp/0123456789abcdef",
        "hv:timestamp/3",
        "ssh-agent:SHA256:" + "A" * 43,
    ],
)
def test_uris_that_make_sense(uri: str) -> None:
    assert remote.check_uri(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:",
        "pkcs11:token=alice",
        "pkcs11:token=alice;token=bob;id=%02",
        "pkcs11:token=alice;id=%02;type=public",
        "pkcs11:token=alice;id=%02;serial=12",
        "pkcs11:token=alice;id=%02;module-path=/x.so",
        "pkcs11:token=alice;id=%02?pin-source=|cat /run/pin",
        "pkcs11:token=alice;id=%02?pin-source=|cat",
        "pkcs11:token=alice;id=%02?pin-source=http://pin",
        "pkcs11:token=alice;id",
        "pkcs11:token=alice;id=%02\n",
        "awskms:",
        "awskms:a b",
        "gcpkms:projects/p/locations/global/keyRings/r/cryptoKeys/k",
        "azurekms:my-vault/keys/timestamp",
        "azurekms://elsewhere.example/keys/timestamp/1",
        "hv:a/b/c",
        "hv:a/0",
        "ssh-agent:alice",
        "pkcs11:id=%02;object=" + "x" * 3000,
        "file:/root.key",
        "root.key",
    ],
)
def test_uris_that_make_no_sense(uri: str) -> None:
    with pytest.raises(UsageError):
        remote.check_uri(uri)


def test_a_pin_in_a_uri_is_refused_and_not_repeated() -> None:
    for uri in (f"{ROOT_KEY}?pin-value={PIN}", f"{ROOT_KEY};pin-value={PIN}"):
        with pytest.raises(UsageError, match="pin-value in a pkcs11: URI is refused") as caught:
            open_signer(uri, nobody)
        assert PIN not in str(caught.value)


def test_a_token_uri_is_written_as_it_is_read() -> None:
    key = TokenKey("a;b=c?d&e%f #1/ü", b"\x02;", "key", "/a b/c.so", Path("/run/pin"))
    assert TokenKey.parse(str(key)) == key
    assert remote.check_uri(str(key)) == str(key)


@pytest.mark.parametrize(
    ("uri", "library", "extra"),
    [
        (ROOT_KEY, "pkcs11", "hsm"),
        ("ssh-agent:SHA256:" + "A" * 43, "paramiko", "ssh"),
    ],
)
def test_a_missing_library_is_told_by_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str, library: str, extra: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    (tmp_path / "module.so").touch()
    monkeypatch.setenv("PYKCS11LIB", str(tmp_path / "module.so"))
    with pytest.raises(UsageError, match="not installed here") as caught:
        open_signer(uri, nobody)
    assert caught.value.advice == f"pip install 'modelward-repo[{extra}]'"


@pytest.mark.parametrize(
    ("uri", "module", "flag", "extra"),
    [
        ("awskms:alias/x", "_aws_signer", "AWS_IMPORT_ERROR", "aws"),
        (
            "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
            "_gcp_signer",
            "GCP_IMPORT_ERROR",
            "gcp",
        ),
        ("azurekms://v.vault.azure.net/keys/k/1", "_azure_signer", "AZURE_IMPORT_ERROR", "azure"),
        ("hv:k/1", "_vault_signer", "VAULT_IMPORT_ERROR", "vault"),
    ],
)
def test_a_missing_client_of_a_service_is_told_by_its_extra(
    monkeypatch: pytest.MonkeyPatch, uri: str, module: str, flag: str, extra: str
) -> None:
    monkeypatch.setattr(f"securesystemslib.signer.{module}.{flag}", "not here")
    for key in (None, CryptoSigner.generate_ecdsa().public_key):
        with pytest.raises(UsageError, match=f"keys with a {uri.partition(':')[0]}: URI") as caught:
            remote.open_uri(uri, nobody, key)
        assert caught.value.advice == f"pip install 'modelward-repo[{extra}]'"


# --- .ref files -----------------------------------------------------------------------------------


def test_a_reference_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    file = KeyFile.of(tmp_path, "alice", "root")
    file.create(None)
    file.path.unlink()
    for text, problem in (
        (b"", "that is not the URI of a key"),
        (b"hv:a/1\nhv:b/1\n", "control character"),
        (b"\xff", "is not one line of text"),
        (b"hv:a/b/c\n", "makes no sense"),
    ):
        file.reference_path.write_bytes(text)
        with pytest.raises(UsageError, match=f"root.ref.*{problem}"):
            file.signer(nobody)


def test_a_key_that_is_both_here_and_elsewhere_is_refused(tmp_path: Path) -> None:
    file = KeyFile.of(tmp_path, "alice", "root")
    file.create(None)
    file.reference_path.write_text("hv:root/1\n")
    for path in (file.path, file.reference_path):
        with pytest.raises(UsageError, match=r"both a \.key and a \.ref file"):
            open_signer(path, nobody)


# --- PKCS#11 --------------------------------------------------------------------------------------


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoftHsm]:
    made = SoftHsm.make(tmp_path / "hsm")
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    made.token("alice", PIN)
    yield made
    unload()


@needs_softhsm
@pytest.mark.parametrize("scheme", tokens.CURVES)
def test_a_key_on_a_token(hsm: SoftHsm, tmp_path: Path, scheme: str) -> None:
    uri = remote.make_key("pkcs11:token=alice", scheme, pin)
    assert uri.startswith("pkcs11:token=alice;id=%01%")
    key = open_public(uri, nobody)
    assert key.scheme == scheme
    assert signs(open_signer(uri, pin)).keyid == key.keyid == key.fingerprint()

    file = KeyFile.of(tmp_path / "keys", "alice", "root")
    assert file.refer(uri, nobody) == file.public() == key
    assert file.reference_path.read_text() == f"{uri}\n"
    assert file.exists()
    assert not file.path.exists()
    for path in (file.path, file.reference_path):
        assert signs(open_signer(path, pin)).keyid == key.keyid
        assert open_public(path, nobody) == key


@needs_softhsm
def test_the_pin_is_asked_for_once_and_by_the_name_of_the_token(hsm: SoftHsm) -> None:
    asked: list[Path | str] = []

    def ask(what: Path | str) -> bytes:
        asked.append(what)
        return PIN.encode()

    remote.make_key(ROOT_KEY, "ecdsa-sha2-nistp256", pin)
    signer = open_signer(ROOT_KEY, ask)
    for _ in range(3):
        signs(signer)
    assert asked == ["PIN of the token 'alice'"]


@needs_softhsm
def test_the_pin_may_stand_in_a_file(hsm: SoftHsm, tmp_path: Path) -> None:
    remote.make_key(ROOT_KEY, "ecdsa-sha2-nistp256", pin)
    source = tmp_path / "pin"
    uri = f"{ROOT_KEY}?pin-source=file:{source}"
    with pytest.raises(UsageError, match=r"the PIN file .* cannot be read: No such file"):
        open_signer(uri, nobody)
    source.write_text(f"{PIN}\n")
    assert signs(open_signer(uri, nobody))
    source.write_text("\n")
    with pytest.raises(UsageError, match="is empty: nothing was tried"):
        open_signer(uri, nobody)


@needs_softhsm
def test_keys_on_a_token_are_found_by_label_too(hsm: SoftHsm) -> None:
    remote.make_key("pkcs11:token=alice;object=my root;id=%09".replace(" ", "%20"), *P256)
    key = open_public("pkcs11:token=alice;id=%09", nobody)
    assert open_public("pkcs11:object=my%20root", nobody) == key
    assert signs(open_signer("pkcs11:token=alice;object=my%20root", pin)).keyid == key.keyid
    exact, _ = remote.find_key("pkcs11:object=my%20root", nobody)
    assert exact == "pkcs11:token=alice;object=my%20root;id=%09"


P256 = ("ecdsa-sha2-nistp256", pin)


@needs_softhsm
def test_a_wrong_pin_is_told_and_not_quoted(hsm: SoftHsm) -> None:
    remote.make_key(ROOT_KEY, *P256)
    with pytest.raises(UsageError, match=r"^wrong PIN for the token 'alice'") as caught:
        open_signer(ROOT_KEY, wrong)
    assert "lock the token" in caught.value.advice
    assert "271828" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(UsageError, match="wrong PIN"):
        remote.make_key("pkcs11:token=alice", "ecdsa-sha2-nistp256", wrong)
    assert signs(open_signer(ROOT_KEY, pin))


@needs_softhsm
@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("PinLocked", UsageError, "the PIN of the token 'alice' is locked"),
        ("PinExpired", UsageError, "has expired"),
        ("UserPinNotInitialized", UsageError, "has no PIN yet"),
        ("DeviceRemoved", Unavailable, "was taken away"),
        ("GeneralError", Unavailable, "the token 'alice' failed: GeneralError"),
    ],
)
def test_what_tokens_may_answer(
    hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Exception], reason: str
) -> None:
    """SoftHSM locks no PIN and cannot be pulled out, so the answer is made up here."""
    import pkcs11  # noqa: PLC0415

    class Token:
        label = "alice"
        flags = pkcs11.TokenFlag.USER_PIN_LOCKED

        def open(self, **_options: Any) -> None:
            raise getattr(pkcs11, name)

    monkeypatch.setattr(tokens, "_token", lambda _key: Token())
    with pytest.raises(kind, match=reason):
        open_signer(f"{ROOT_KEY}?module-path={MODULE}", pin)


@needs_softhsm
@pytest.mark.parametrize(
    ("flag", "advice"),
    [
        ("USER_PIN_LOCKED", "the token is locked now"),
        ("USER_PIN_FINAL_TRY", "ONE try is left"),
        ("USER_PIN_COUNT_LOW", "be sure of the PIN"),
    ],
)
def test_how_near_a_token_is_to_locking(
    hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch, flag: str, advice: str
) -> None:
    import pkcs11  # noqa: PLC0415

    class Token:
        label = "alice"
        flags = pkcs11.TokenFlag[flag]

        def open(self, **_options: Any) -> None:
            raise pkcs11.PinIncorrect

    monkeypatch.setattr(tokens, "_token", lambda _key: Token())
    with pytest.raises(UsageError) as caught:
        open_signer(ROOT_KEY, pin)
    assert advice in caught.value.advice


@needs_softhsm
def test_a_token_that_is_absent_or_ambiguous(hsm: SoftHsm) -> None:
    with pytest.raises(Unavailable, match="'bob' is not here; tokens that are: 'alice'"):
        open_signer("pkcs11:token=bob;id=%02", nobody)
    hsm.token("carol", PIN)
    with pytest.raises(UsageError, match="2 tokens could be meant; there are 'alice', 'carol'"):
        open_signer("pkcs11:id=%02", nobody)
    hsm.token("carol", PIN)
    with pytest.raises(UsageError, match="2 tokens could be meant"):
        open_signer("pkcs11:token=carol;id=%02", nobody)


@needs_softhsm
def test_a_key_that_is_not_on_the_token(hsm: SoftHsm) -> None:
    with pytest.raises(UsageError, match="no such ECDSA key on the token 'alice'"):
        open_public(ROOT_KEY, pin)
    key = CryptoSigner.generate_ecdsa().public_key
    with pytest.raises(UsageError, match="no such ECDSA key on the token 'alice'"):
        remote.open_uri(ROOT_KEY, pin, key)
    with pytest.raises(UsageError, match="begins with a zero byte"):
        remote.make_key("pkcs11:token=alice;id=%00%02", *P256)


@needs_softhsm
def test_a_module_that_is_missing_or_none(
    hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PYKCS11LIB")
    with pytest.raises(UsageError, match="which PKCS#11 module"):
        open_signer(ROOT_KEY, nobody)
    assert "PYKCS11LIB" not in os.environ
    with pytest.raises(UsageError, match=r"there is no PKCS#11 module /nowhere\.so"):
        open_signer(f"{ROOT_KEY}?module-path=/nowhere.so", nobody)
    (tmp_path / "text.so").write_text("text")
    with pytest.raises(UsageError, match="that is no PKCS#11 module"):
        open_signer(f"{ROOT_KEY}?module-path={tmp_path}/text.so", nobody)
    uri = remote.make_key(f"{ROOT_KEY}?module-path={MODULE}", *P256)
    assert uri == f"{ROOT_KEY}?module-path={MODULE}"
    assert signs(open_signer(uri, pin))
    assert "PYKCS11LIB" not in os.environ


@needs_softhsm
def test_a_key_on_a_token_is_never_overwritten(hsm: SoftHsm) -> None:
    remote.make_key(ROOT_KEY, *P256)
    key = open_public(ROOT_KEY, nobody)
    with pytest.raises(UsageError, match="has something with this id already"):
        remote.make_key(ROOT_KEY, *P256)
    assert open_public(ROOT_KEY, nobody) == key


@needs_softhsm
def test_a_private_key_does_not_leave_its_token(hsm: SoftHsm) -> None:
    import pkcs11  # noqa: PLC0415

    remote.make_key(ROOT_KEY, *P256)
    with pkcs11.lib(MODULE).get_token(token_label="alice").open(user_pin=PIN) as session:
        key = session.get_key(pkcs11.ObjectClass.PRIVATE_KEY, id=b"\x02")
        assert key[pkcs11.Attribute.SENSITIVE]
        assert key[pkcs11.Attribute.NEVER_EXTRACTABLE]
        with pytest.raises(pkcs11.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]


@needs_softhsm
def test_a_token_with_another_key_than_promised_is_found_out(hsm: SoftHsm, tmp_path: Path) -> None:
    remote.make_key(ROOT_KEY, *P256)
    file = KeyFile.of(tmp_path / "keys", "alice", "root")
    file.refer(ROOT_KEY, nobody)
    remote.make_key("pkcs11:token=alice;id=%03", *P256)
    file.reference_path.write_text("pkcs11:token=alice;id=%03\n")
    with pytest.raises(UsageError, match="does not verify with the key"):
        file.signer(pin).sign(b"content")
    file.reference_path.unlink()
    with pytest.raises(UsageError, match="is another key than the one at"):
        file.refer("pkcs11:token=alice;id=%03", nobody)
    assert not file.reference_path.exists()


@needs_softhsm
def test_keys_made_with_other_tools_are_used(hsm: SoftHsm) -> None:
    if not shutil.which("pkcs11-tool"):
        pytest.skip("pkcs11-tool is not installed: apt-get install opensc")
    args = ["--login", "--pin", PIN, "--keypairgen", "--key-type", "EC:prime256v1", "--id", "0a"]
    subprocess.run(
        ["pkcs11-tool", "--module", MODULE, "--token-label", "alice", *args, "--label", "made"],
        check=True,
        capture_output=True,
    )
    unload()
    assert signs(open_signer("pkcs11:token=alice;object=made", pin))


@needs_softhsm
def test_rings_and_roles_find_keys_on_tokens(hsm: SoftHsm, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    on_token = KeyFile.of(keys, "alice", "root")
    on_token.refer(remote.make_key("pkcs11:token=alice", *P256), nobody)
    in_file = KeyFile.of(keys, "bob", "root")
    in_file.create(b"correct horse", "ml-dsa-65")
    ids = [on_token.public().keyid, in_file.public().keyid]

    def ask(what: Path | str) -> bytes:
        return b"correct horse" if isinstance(what, Path) else PIN.encode()

    found = find_signers(keys, "root", ids, 2, ask)
    assert [signs(signer).keyid for signer in found] == ids
    ring = KeyRing(keys, ask, lambda: None)
    on_token.public_path.unlink()
    assert [key.keyid for key in ring.publics(["alice", "bob"], "root")] == ids
    assert len(ring.signers(["alice", "bob"], "root", 2)) == 2
    assert not ring.made


# --- key services ---------------------------------------------------------------------------------


Answer = Callable[[BaseHTTPRequestHandler, Any], tuple[int, Any]]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[Answer]]]:
    """An HTTP server on this machine that answers as the test says; its address, the answer."""
    answers: list[Answer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, body = answers[0](self, json.loads(data) if data else None)
            text = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_args: Any) -> None: ...

    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", answers
    server.shutdown()
    thread.join()
    server.server_close()


def test_vault(
    service: tuple[str, list[Answer]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """HashiCorp's API as documented, played by a few lines; the client is the real hvac."""
    pytest.importorskip("hvac", reason="hvac is not installed: pip install 'modelward-repo[vault]'")
    address, answers = service
    private = ed25519.Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    asked: list[str] = []

    def vault(request: BaseHTTPRequestHandler, body: Any) -> tuple[int, Any]:
        asked.append(f"{request.command} {request.path}")
        if request.headers["X-Vault-Token"] != "hvs.secret":
            return 403, {"errors": ["permission denied"]}
        if request.path == "/v1/transit/keys/timestamp":
            public = {"public_key": base64.b64encode(raw).decode()}
            return 200, {"data": {"keys": {"9": {"public_key": "x"}, "10": public}}}
        assert request.path == "/v1/transit/sign/timestamp"
        assert body["key_version"] == 10
        signature = private.sign(base64.b64decode(body["input"]))
        return 200, {"data": {"signature": f"vault:v10:{base64.b64encode(signature).decode()}"}}

    answers.append(vault)
    monkeypatch.setenv("VAULT_ADDR", address)
    monkeypatch.setenv("VAULT_TOKEN", "hvs.secret")
    file = KeyFile.of(tmp_path, "online", "timestamp")
    key = file.refer("hv:timestamp", nobody)
    assert file.reference_path.read_text() == "hv:timestamp/10\n"
    assert key.public == raw.hex()
    assert signs(file.signer(nobody)).keyid == key.keyid
    assert asked == ["GET /v1/transit/keys/timestamp", "POST /v1/transit/sign/timestamp"]
    assert open_public("hv:timestamp/10", nobody) == key
    with pytest.raises(UsageError, match="newest version of this key, which is hv:timestamp/10"):
        open_signer("hv:timestamp/9", nobody)

    signer = file.signer(nobody)
    private = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(UsageError, match="does not verify with the key"):
        signer.sign(b"content")
    monkeypatch.setenv("VAULT_TOKEN", "hvs.wrong")
    with pytest.raises(Unavailable, match=r"asked of.*permission denied") as caught:
        file.signer(nobody).sign(b"content")
    assert "hvs." not in str(caught.value)


def test_aws(service: tuple[str, list[Answer]], monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's API as documented, played by a few lines; the client is the real boto3."""
    pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'modelward-repo[aws]'")
    address, answers = service
    private = ec.generate_private_key(ec.SECP256R1())
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    refuse: list[bool] = []

    def aws(request: BaseHTTPRequestHandler, body: Any) -> tuple[int, Any]:
        assert body["KeyId"] == "alias/timestamp"
        if request.headers["X-Amz-Target"] == "TrentService.GetPublicKey":
            public = base64.b64encode(der).decode()
            return 200, {"PublicKey": public, "SigningAlgorithms": ["ECDSA_SHA_256"]}
        assert request.headers["X-Amz-Target"] == "TrentService.Sign"
        assert (body["MessageType"], body["SigningAlgorithm"]) == ("DIGEST", "ECDSA_SHA_256")
        if refuse:
            return 400, {"__type": "AccessDeniedException", "message": "not authorized"}
        digest = base64.b64decode(body["Message"])
        signature = private.sign(digest, ec.ECDSA(Prehashed(SHA256())))
        return 200, {"Signature": base64.b64encode(signature).decode()}

    answers.append(aws)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", address)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame")
    signer = open_signer("awskms:alias/timestamp", nobody)
    assert signs(signer).scheme == "ecdsa-sha2-nistp256"
    refuse.append(True)
    with pytest.raises(Unavailable, match=r"AccessDenied.*not authorized") as caught:
        signer.sign(b"content")
    assert "sesame" not in str(caught.value)


def test_google_is_left_to_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is passed to securesystemslib is shown here: its client needs Google itself."""
    uri = "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
    inner = CryptoSigner.generate_ecdsa()
    passed: list[Any] = []

    def import_(keyid: str) -> tuple[str, SSlibKey]:
        passed.append(keyid)
        return f"gcpkms:{keyid}", inner.public_key

    def from_priv_key_uri(given: str, key: SSlibKey, _secrets: Any = None) -> Signer:
        passed.append((given, key.keyid))
        return inner

    monkeypatch.setattr(GCPSigner, "import_", import_)
    monkeypatch.setattr(GCPSigner, "from_priv_key_uri", from_priv_key_uri)
    assert signs(open_signer(uri, nobody)) == inner.public_key
    assert passed == [uri.removeprefix("gcpkms:"), (uri, inner.public_key.keyid)]


def test_keys_that_no_device_accepts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    key = CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256", size=2048).public_key
    monkeypatch.setattr(GCPSigner, "import_", lambda keyid: (f"gcpkms:{keyid}", key))
    uri = "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
    with pytest.raises(UsageError, match="rsa-pkcs1v15-sha256, which no device accepts"):
        open_public(uri, nobody)


def test_a_key_is_spelt_the_usual_way_whatever_a_service_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = CryptoSigner.generate_ecdsa().public_key
    pem = usual.keyval["public"].strip().replace("\n", "\r\n")
    odd = SSlibKey("0" * 64, usual.keytype, usual.scheme, {"public": pem})
    monkeypatch.setattr(GCPSigner, "import_", lambda keyid: (f"gcpkms:{keyid}", odd))
    uri = "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
    assert open_public(uri, nobody) == from_sslib(usual)


# --- SSH agent ------------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A real SSH agent; adds a key of a type, returns its URI."""
    pytest.importorskip("paramiko", reason="no paramiko: pip install 'modelward-repo[ssh]'")
    if not shutil.which("ssh-agent"):
        pytest.skip("ssh-agent is not installed: apt-get install openssh-client")
    socket = tmp_path / "agent"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout
    process.stdout.readline()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))

    def add(*kind: str) -> str:
        path = tmp_path / "-".join(kind)
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", *kind, "-f", path], check=True)
        subprocess.run(["ssh-add", "-q", path], check=True)
        shown = subprocess.run(
            ["ssh-keygen", "-lf", path], check=True, capture_output=True, text=True
        )
        path.unlink()
        return f"ssh-agent:{shown.stdout.split()[1]}"

    yield add
    process.terminate()
    process.wait(timeout=10)
    process.stdout.close()


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        (("ed25519",), "ed25519"),
        (("ecdsa", "-b", "256"), "ecdsa-sha2-nistp256"),
        (("ecdsa", "-b", "384"), "ecdsa-sha2-nistp384"),
    ],
)
def test_a_key_in_an_ssh_agent(
    agent: Callable[..., str], tmp_path: Path, kind: tuple[str, ...], scheme: str
) -> None:
    uri = agent(*kind)
    file = KeyFile.of(tmp_path / "keys", "alice", "root")
    key = file.refer(uri, nobody)
    assert key.scheme == scheme
    signer = file.signer(nobody)
    for _ in range(8):  # ECDSA's numbers are now and then shorter
        assert signs(signer).keyid == key.keyid == key.fingerprint()
    subprocess.run(["ssh-add", "-q", "-D"], check=True, capture_output=True)
    with pytest.raises(Unavailable, match="the SSH agent did not sign"):
        signer.sign(b"content")
    with pytest.raises(Unavailable, match=r"does not hold ssh-agent:SHA256.*it holds 0 keys"):
        file.signer(nobody)


def test_what_an_ssh_agent_cannot_do(
    agent: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="keys of the kind ssh-rsa in an SSH agent"):
        open_signer(agent("rsa", "-b", "2048"), nobody)
    uri = agent("ed25519")
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(Unavailable, match="it holds 0 keys"):
        open_signer(uri, nobody)
