"""A certificate authority of its own for each test control plane (`control_plane.py`): certificates for a day, in one folder."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = dt.timedelta(days=1)
ANY_CLOCK = dt.timedelta(hours=1)
"""Valid from a little earlier than now."""


class Authority:
    """Signs what it is asked to sign. `certificate` is the file that everybody trusts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.crt"
        folder.mkdir(parents=True, mode=0o700)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("tests", "")
        signed = _builder(self._name, self._name, self._key.public_key())
        signed = signed.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate.write_bytes(signed.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, file: str, *, user: str, group: str = "", hosts: Sequence[str] = ()) -> tuple[Path, Path]:
        """A certificate and its key, as files `<file>.crt` and `<file>.key`.

        Args:
            file: how to name them.
            user: the common name, which is whom Kubernetes takes the bearer for.
            group: the organisation, which Kubernetes takes for the bearer's group.
            hosts: names of a server; 127.0.0.1 is added.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        signed = _builder(_name(user, group), self._name, key.public_key()).add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        if hosts:
            names = [*(x509.DNSName(host) for host in hosts), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            signed = signed.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return self._write(file, signed.sign(self._key, hashes.SHA256()), key)

    def client(self, file: str, *, user: str, group: str = "") -> ssl.SSLContext:
        """What a Python client of a server of ours needs to speak as `user`."""
        certificate, key = self.issue(file, user=user, group=group)
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.load_cert_chain(certificate, key)
        return context

    def _write(self, file: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
        paths = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].touch(mode=0o600)
        paths[1].write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        )
        return paths


def _name(user: str, group: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    return x509.Name([*attributes, *([x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else [])])


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=public,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - ANY_CLOCK,
        not_valid_after=now + LIFE,
    )
