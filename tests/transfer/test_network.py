"""The way to a server: TLS with one's own authority and certificate, proxies, IPv6, redirects."""

import datetime as dt
import ipaddress
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelward.config.transfer import TransferSettings
from modelward.errors import Unavailable
from modelward.transfer.http import Http, Patience
from modelward.transfer.network import Network, parse
from modelward.transfer.pace import Pace
from modelward.transfer.post import post
from modelward.transfer.response import RECORD

HASTY = Patience(connect=2, first=2, tries=1)
NOW = dt.datetime.now(dt.UTC)
BODY = b"hello"


@dataclass
class Certified:
    """A certificate and its key, in one file."""

    path: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def certify(path: Path, name: str, issuer: Certified | None = None) -> Certified:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
            ),
            critical=False,
        )
    )
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certified(path, certificate, key)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Certified:
    return certify(tmp_path_factory.mktemp("ca") / "ca.pem", "an authority")


@pytest.fixture(scope="module")
def certified(tmp_path_factory, authority) -> Certified:
    return certify(tmp_path_factory.mktemp("server") / "server.pem", "a server", authority)


class Server:
    """Answers every request, and notes it; a proxy too, if it is asked to be one."""

    def __init__(
        self,
        answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        context: ssl.SSLContext | None = None,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> None:
        self.answer = answer
        self.requests: list[str] = []
        self.peers: list[object] = []
        self.answered = threading.Event()
        self.left = threading.Event()  # once somebody hung up
        self._context = context
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self._listener = socket.create_server((host, 0), family=family)
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # send all at once
        self.port = self._listener.getsockname()[1]
        scheme = "https" if context else "http"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}/x"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
                self.peers.append(connection.getpeercert())
            data = b""
            while True:
                data += connection.recv(4096)
                if not data:
                    self.left.set()
                    return
                while b"\r\n\r\n" in data:
                    request, _, data = data.partition(b"\r\n\r\n")
                    self.requests.append(request.decode())
                    if request.startswith(b"CONNECT "):
                        connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                        self._tunnel(connection, request.split(b" ")[1].decode())
                        return
                    connection.sendall(self.answer)
                    self.answered.set()

    def _tunnel(self, connection: socket.socket, target: str) -> None:
        address = urlsplit(f"//{target}")
        other = socket.create_connection((address.hostname, address.port))

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(4096):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)

        threading.Thread(target=pump, args=(other, connection), daemon=True).start()
        pump(connection, other)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    try:
        yield
    finally:
        for server in servers:
            server.close()


def server_context(certified: Certified, ask_for: Certified | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified.path)
    if ask_for:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ask_for.path)
    return context


def fetch(url: str, **settings: object) -> bytes:
    with Http(HASTY, network=Network(**settings)) as http:  # type: ignore[arg-type]
        return http.fetch(url, 100)


# --- TLS


def test_own_authority(certified, authority):
    server = Server(context=server_context(certified))
    with running(server):
        assert fetch(server.url, ca=authority.path) == BODY
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(server.url)


def test_all_records_that_have_come_are_read_at_once(certified, authority):
    length = 2 * RECORD - 100  # two records with the headers: they fit into the first window
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode()
    body = random.randbytes(length)
    server = Server(head + body, server_context(certified))
    buffer = memoryview(bytearray(2 * length))
    with running(server), Http(HASTY, network=Network(ca=authority.path)) as http:
        reader = http.open(server.url, 0, length, length)
        assert server.answered.wait(10)
        assert reader.readinto(buffer) == length
        assert buffer[:length] == body
        assert reader.readinto(buffer) == 0


def test_a_stall_is_noticed_after_the_records_that_have_come(certified, authority):
    length = 3 * RECORD
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode()
    server = Server(head + bytes(length - 1), server_context(certified))
    buffer = memoryview(bytearray(length))
    impatient = Patience(connect=0.2, first=2, tries=1)
    with running(server), Http(impatient, network=Network(ca=authority.path)) as http:
        reader = http.open(server.url, 0, length, length)
        filled = 0
        while filled < length - 1:
            filled += reader.readinto(buffer[filled:])
        with pytest.raises(Unavailable, match="timed out"):
            reader.readinto(buffer[filled:])


@pytest.mark.parametrize("kept", ["keep-alive", "close"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_whoever_waits_is_hung_up_on(certified, authority, scheme, kept):
    """Also where the server will close it, and its connection has let go of the socket."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: {kept}\r\n\r\n".encode()
    server = Server(head + b"begin", server_context(certified) if scheme == "https" else None)
    patient = Patience(connect=60, first=60, window=60, tries=1)
    with running(server), Http(patient, network=Network(ca=authority.path)) as http:
        reader = http.open(server.url, 0, 9, 9)
        buffer = memoryview(bytearray(9))
        filled = 0
        while filled < len(b"begin"):
            filled += reader.readinto(buffer[filled:])

        def wait() -> None:
            with suppress(Unavailable):
                reader.readinto(buffer[filled:])

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        time.sleep(0.1)
        assert waiting.is_alive()
        reader.close()
        waiting.join(5)
        assert not waiting.is_alive()
        assert server.left.wait(5)


def test_certificate_of_another_host(certified, authority):
    server = Server(context=server_context(certified))
    with running(server), pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(server.url.replace("127.0.0.1", "localhost"), ca=authority.path)


def test_own_certificate(tmp_path, certified, authority):
    device = certify(tmp_path / "device.pem", "a device", authority)
    server = Server(context=server_context(certified, ask_for=authority))
    with running(server):
        assert fetch(server.url, ca=authority.path, certificate=device.path) == BODY
        with pytest.raises(Unavailable):
            fetch(server.url, ca=authority.path)


def test_own_certificate_is_not_shown_to_whom_one_is_redirected_to(tmp_path, certified, authority):
    device = certify(tmp_path / "device.pem", "a device", authority)
    other = Server(context=server_context(certified))
    first = Server(
        f"HTTP/1.1 302 Found\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode(),
        context=server_context(certified, ask_for=authority),
    )
    with running(first, other):
        settings = {"ca": authority.path, "certificate": device.path}
        assert fetch(first.url, redirects=("127.0.0.1",), **settings) == BODY
    assert other.peers == [None]


@pytest.mark.parametrize("setting", ["ca", "certificate"])
def test_certificates_that_cannot_be_loaded(tmp_path, setting):
    (tmp_path / "empty").write_bytes(b"")
    for path in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(Unavailable, match="cannot be loaded") as problem:
            fetch("https://127.0.0.1:1/", **{setting: path})
        assert setting in problem.value.advice


def test_slow_handshake_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        with (
            Http(Patience(connect=0.2, tries=1)) as http,
            pytest.raises(Unavailable, match="timed out"),
        ):
            http.fetch(url, 100)


def test_sending_has_what_a_slow_handshake_leaves(certified, authority):
    context, stop = server_context(certified), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            time.sleep(2.4)
            with context.wrap_socket(connection, server_side=True):
                stop.wait(30)  # and reads nothing

        threading.Thread(target=serve, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/x"
        start = time.monotonic()
        with pytest.raises(Unavailable):
            post(url, bytes(32 << 20), Network(ca=authority.path), seconds=3.0)
        stop.set()
        assert time.monotonic() - start < 4.2  # 5.4, were it 3 seconds for each


# --- proxies


def test_proxy():
    proxy, server = Server(), Server(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    with running(proxy, server):
        assert fetch(server.url, proxy=f"http://127.0.0.1:{proxy.port}") == BODY
        host = urlsplit(server.url).netloc
        assert proxy.requests[0].startswith(f"GET {server.url} HTTP/1.1\r\nHost: {host}\r\n")
        assert "Proxy-Authorization" not in proxy.requests[0]
    assert not server.requests


def test_proxy_that_asks_who_one_is():
    proxy = Server()
    with running(proxy):
        fetch("http://example.com/x", proxy=f"http://me:a%20secret@127.0.0.1:{proxy.port}")
    assert "\r\nProxy-Authorization: Basic bWU6YSBzZWNyZXQ=" in proxy.requests[0]


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]")]
)
def test_tunnel_through_a_proxy(certified, authority, family, host):
    try:
        server = Server(context=server_context(certified), family=family)
    except OSError:
        pytest.skip("this machine has no IPv6")
    proxy = Server()
    with running(proxy, server):
        settings = {"ca": authority.path, "proxy": f"http://me:x@127.0.0.1:{proxy.port}"}
        assert fetch(server.url, **settings) == BODY
    assert proxy.requests[0].startswith(f"CONNECT {host}:{server.port} HTTP/1")
    assert "Proxy-Authorization" in proxy.requests[0]
    assert "Proxy-Authorization" not in server.requests[0]


@pytest.mark.parametrize("is_dripping", [False, True])
def test_a_proxy_and_tls_are_part_of_connecting(is_dripping):
    answer = b"HTTP/1.1 200 Connected\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(4096)
                connection.sendall(answer)
                while is_dripping:
                    connection.sendall(b"x")
                    time.sleep(0.05)
                time.sleep(2.4)
                connection.sendall(b"\r\n")
                connection.settimeout(30)
                while connection.recv(4096):
                    pass  # until the device gives up

        threading.Thread(target=serve, daemon=True).start()
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        patience = Patience(connect=3.0, first=6.0, tries=1)
        start = time.monotonic()
        with Http(patience, network=Network(proxy=proxy)) as http, pytest.raises(Unavailable):
            http.fetch("https://127.0.0.1:1/x", 100)
        assert time.monotonic() - start < 4.2  # 5.4, were it 3 seconds for each


def test_a_proxy_is_named_in_errors_and_its_secret_is_not():
    settings = TransferSettings.parse({"proxy": "http://me:secret@127.0.0.1:1"})
    network = Network.of(settings)
    assert "secret" not in f"{settings} {network}"
    for url in ("http://example.com/", "https://example.com/"):
        with Http(HASTY, network=network) as http, pytest.raises(Unavailable) as problem:
            http.fetch(url, 100)
        assert f"{url}, by the proxy 127.0.0.1:1:" in str(problem.value)
        assert "secret" not in str(problem.value)


# --- addresses


def test_ipv6():
    try:
        server = Server(family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with running(server):
        assert fetch(server.url) == BODY
        assert f"Host: [::1]:{server.port}" in server.requests[0]


@pytest.mark.parametrize(
    ("url", "port"),
    [
        *(("http://[::1]/", 80), ("https://[::1]/", 443), ("http://[::1]:8080/", 8080)),
        *(("http://a.example/", 80), ("https://a.example:8443/x", 8443)),
    ],
)
def test_ports(url, port):
    pace = Pace(url, HASTY, time.monotonic, None)
    assert Network().connect(parse(url), 1.0, pace).port == port


# --- redirects


def redirecting(location: str, code: int = 302) -> Server:
    return Server(
        f"HTTP/1.1 {code} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    )


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("listed", ["127.0.0.1", "with port"])
def test_redirect_to_a_host_that_is_listed(code, listed):
    target = Server()
    first = redirecting(target.url, code)
    with running(first, target):
        hosts = listed.replace("with port", f"127.0.0.1:{target.port}")
        assert fetch(first.url, redirects=(hosts,)) == BODY
        with pytest.raises(Unavailable, match=f"answered {code}"):
            fetch(first.url, redirects=("elsewhere.example", "127.0.0.1:1"))
        assert len(target.requests) == 1


@pytest.mark.parametrize(
    "location",
    [
        *(
            "file:///etc/passwd",
            "ftp://cdn.example/x",
            "//",
            "",
            "http://[",
            "gopher://cdn.example",
        ),
        *("http://169.254.169.254/latest/meta-data/", "http://cdn.example.evil/x"),
        *("http://me@cdn.example/x", "https://evil@127.0.0.1:1/x", "javascript:0"),
    ],
)
def test_redirect_elsewhere(location):
    first = redirecting(location)
    with running(first), pytest.raises(Unavailable, match="answered 302") as problem:
        fetch(first.url, redirects=("cdn.example",))
    assert repr(location) in problem.value.reason
    assert "`redirects`" in problem.value.advice


def test_redirect_from_https_to_http(certified, authority):
    plain = Server()
    first = Server(
        f"HTTP/1.1 302 Found\r\nLocation: {plain.url}\r\nContent-Length: 0\r\n\r\n".encode(),
        context=server_context(certified),
    )
    with running(first, plain), pytest.raises(Unavailable, match="answered 302"):
        fetch(first.url, ca=authority.path, redirects=("127.0.0.1",))
    assert not plain.requests


def test_redirect_loop():
    server = Server()
    server.answer = redirecting(server.url).answer
    with running(server), pytest.raises(Unavailable, match="more than 5 times"):
        fetch(server.url, redirects=("127.0.0.1",))
    assert len(server.requests) == 6
