"""TLS in front of a plain server, with certificates of an authority of our own: the embedded Redis speaks none."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CLIENT_HELLO = b"\x16"
"""The first byte of whoever speaks TLS: https://www.rfc-editor.org/rfc/rfc8446#section-5.1"""


@dataclass(frozen=True, slots=True)
class Authority:
    """One that signs certificates. `path` is its own, in PEM."""

    path: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def server(self, folder: Path, *hosts: str) -> ssl.SSLContext:
        """A server's context, with a certificate for `hosts`: names and addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.signed(folder, *hosts))
        return context

    def signed(self, folder: Path, *hosts: str) -> Path:
        """A new key with its certificate, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_general_name(host) for host in hosts]
        signed = (
            _builder("redis", self.certificate.subject, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        file = folder / f"{hosts[0]}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
        return file


def authority(folder: Path, name: str = "an authority of the tests") -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(name, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name.replace(' ', '-')}.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(path, certificate, key)


@contextmanager
def terminating(context: ssl.SSLContext, behind: str | int, *, takes_plain: bool = False) -> Iterator[int]:
    """The port on loopback that speaks TLS for `behind`: a Unix socket, or a port. `takes_plain`: that port, too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop = asyncio.new_event_loop()
        terminator = _Terminator(context, behind, takes_plain)
        serving = loop.create_task(terminator.serve(listener))
        thread = threading.Thread(target=_run, args=(loop, serving), name="terminator")
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            loop.call_soon_threadsafe(serving.cancel)
            thread.join()


@dataclass(frozen=True, slots=True)
class _Terminator:
    context: ssl.SSLContext
    behind: str | int
    takes_plain: bool

    async def serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as connections:
            while True:
                accepted, _ = await loop.sock_accept(listener)
                connections.create_task(self._join(accepted))

    async def _join(self, accepted: socket.socket) -> None:
        # Whoever does not like the certificate, or is killed, leaves without a word.
        with suppress(OSError):
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            speaks_tls = not self.takes_plain or await _first_byte(accepted) == CLIENT_HELLO
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, accepted, ssl=self.context if speaks_tls else None
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            if isinstance(self.behind, str):
                back_reader, back_writer = await asyncio.open_unix_connection(self.behind)
            else:
                back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.behind)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, back_writer))
                both.create_task(_pump(back_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while block := await reader.read(65536):
                writer.write(block)
                await writer.drain()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _first_byte(accepted: socket.socket) -> bytes:
    """What the other side says first; it stays to be read."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(accepted, lambda: readable.done() or readable.set_result(None))
    try:
        await readable
    finally:
        loop.remove_reader(accepted)
    return accepted.recv(1, socket.MSG_PEEK)


def _run(loop: asyncio.AbstractEventLoop, serving: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(serving)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _usage() -> x509.KeyUsage:
    """Of an authority: it signs certificates."""
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
