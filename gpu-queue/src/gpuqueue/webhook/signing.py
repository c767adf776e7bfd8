"""Keys and certificates: the one module that knows X.509."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gpuqueue.errors import ConfigError
from gpuqueue.webhook.rotation import HOUR, Authority

_EARLIER = dt.timedelta(seconds=HOUR)
"""Valid from a little before now: clocks differ."""


class Pair(msgspec.Struct, frozen=True):
    """A certificate and its private key, both PEM."""

    certificate: str
    key: str


def authority(*, now: float, expires: float) -> Pair:
    """A new authority, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"gpu-queue-webhook authority until {_time(expires):%Y-%m-%d}")
    builder = _builder(name, name, key, now, expires)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    return _pair(builder, key, key)


def issue(by: Pair, hosts: Sequence[str], *, now: float, expires: float) -> Pair:
    """A server's certificate, signed by `by`.

    Args:
        by: an authority.
        hosts: names or addresses by which the server is asked.
        now: the time (Unix).
        expires: until when it is valid; never longer than its authority.
    """
    parent, signing = x509.load_pem_x509_certificate(by.certificate.encode()), _key(by)
    key = ec.generate_private_key(ec.SECP256R1())
    expires = min(expires, parent.not_valid_after_utc.timestamp())
    builder = _builder(_name("gpu-queue-webhook"), parent.subject, key, now, expires)
    builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    return _pair(builder, key, signing)


def described(pair: Pair) -> Authority:
    """An authority's fingerprint and life."""
    certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
    made = certificate.not_valid_before_utc + _EARLIER
    return Authority(id=_id(certificate), made=made.timestamp(), expires=certificate.not_valid_after_utc.timestamp())


def fingerprints(bundle: bytes) -> frozenset[str]:
    """Of every certificate in a PEM file; none of one that holds nothing else."""
    try:
        return frozenset(_id(each) for each in x509.load_pem_x509_certificates(bundle))
    except ValueError:
        return frozenset()


def expiry(certificate: bytes) -> float:
    """When the first certificate of a PEM file ends (Unix).

    Raises:
        ConfigError: there is none.
    """
    try:
        return x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()
    except ValueError as error:
        raise ConfigError(f"no certificate: {error}") from error


def _id(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def _key(pair: Pair) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pair.key.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("the webhook's Secret holds a key that we have not made. Delete its data: new authorities are made")
    return key


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float, expires: float) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=_time(now) - _EARLIER,
        not_valid_after=_time(expires),
    )
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _pair(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, signing: ec.EllipticCurvePrivateKey) -> Pair:
    certificate = builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(certificate.decode(), private.decode())


def _usage(**uses: bool) -> x509.KeyUsage:
    none: dict[str, Any] = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**none | uses)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _time(unix: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix, dt.UTC)
