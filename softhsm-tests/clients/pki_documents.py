"""Certificates, CRLs and OCSP answers on disk, as service/tests/common/documents.rs and
pki_live.py keep them: one directory each with document.der, chain-0.der (its issuer) up to
the root, about.json, and for an OCSP answer request.der."""

import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

KINDS = ("root", "intermediate", "leaf", "responder", "crl", "crl-shard", "ocsp", "ocsp-error")


@dataclass
class Document:
    folder: Path
    kind: str
    profile: str
    # Unix seconds: when the clock of its issuer was there.
    at: int
    source: str
    der: bytes
    chain: list
    request: bytes | None
    # For a list: the certificates of its issuer, whom it may speak for; and end entities
    # below those that are authorities, each with the list of its own issuer, all good now.
    others: list = field(default_factory=list)
    below: list = field(default_factory=list)

    @property
    def moment(self):
        return datetime.fromtimestamp(self.at, timezone.utc)

    @property
    def issuer(self):
        return self.chain[0]

    @property
    def certificate(self):
        return x509.load_der_x509_certificate(self.der)

    @property
    def crl(self):
        return x509.load_der_x509_crl(self.der)

    @property
    def answer(self):
        return ocsp.load_der_ocsp_response(self.der)

    def is_now(self):
        """Is it good by the system's clock?"""
        now = datetime.now(timezone.utc)
        if self.kind in ("crl", "crl-shard"):
            begin, end = self.crl.last_update_utc, self.crl.next_update_utc
        elif self.kind == "ocsp":
            begin, end = self.answer.this_update_utc, self.answer.next_update_utc
            return begin <= now < end and all(
                c.not_valid_before_utc <= now < c.not_valid_after_utc
                for c in [*self.answer.certificates, *self.chain])
        else:
            begin, end = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        return begin <= now < end and all(
            c.not_valid_before_utc <= now < c.not_valid_after_utc for c in self.chain)

    def pem(self, name, certificates):
        """The path of these as one PEM file beside the document."""
        path = self.folder / name
        path.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in certificates))
        return path

    def __str__(self):
        of = f" of profile {self.profile}" if self.profile else ""
        return f"{self.kind}{of} from {self.source} ({self.folder})"


def purposes(certificate):
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return set()


def is_ca(certificate):
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def kind_of(kind, der):
    """What the keeper calls a certificate or an answer is several things to a judge."""
    if kind == "ocsp":
        good = ocsp.load_der_ocsp_response(der).response_status
        return "ocsp" if good is ocsp.OCSPResponseStatus.SUCCESSFUL else "ocsp-error"
    if kind != "certificate":
        return kind
    certificate = x509.load_der_x509_certificate(der)
    if is_ca(certificate):
        return "root" if certificate.issuer == certificate.subject else "intermediate"
    return "responder" if Eku.OCSP_SIGNING in purposes(certificate) else "leaf"


def read(folder):
    about = json.loads((folder / "about.json").read_text())
    der = (folder / "document.der").read_bytes()
    count = len(list(folder.glob("chain-*.der")))
    chain = [x509.load_der_x509_certificate((folder / f"chain-{n}.der").read_bytes())
             for n in range(count)]
    request = folder / "request.der"
    return Document(
        folder=folder, kind=kind_of(about["kind"], der), profile=about["profile"],
        at=about["at"], source=about["from"], der=der, chain=chain,
        request=request.read_bytes() if request.exists() else None)


def read_all(folder):
    found = [read(path.parent) for path in sorted(folder.glob("*/about.json"))]
    of = {}
    for document in found:
        if document.kind in ("leaf", "responder", "intermediate"):
            of.setdefault(document.issuer, []).append(document.certificate)
    for document in found:
        if document.kind in ("crl", "crl-shard"):
            document.others = of.get(document.issuer, [])
    full = {d.issuer: d for d in found if d.kind == "crl" and d.is_now()}
    for leaf in (d for d in found if d.kind == "leaf" and len(d.chain) > 1 and d.is_now()):
        own, number = full.get(leaf.issuer), leaf.certificate.serial_number
        if own and own.crl.get_revoked_certificate_by_serial_number(number) is None:
            for above in found:
                if above.kind == "crl" and above.issuer == leaf.chain[1]:
                    above.below.append((leaf, own))
    return found


def keep(folder, kind, der, chain, source, profile="", request=None, at=None):
    """Writes one, with its chain as DER from the issuer up to the root."""
    home = folder / hashlib.sha256(der + (request or b"")).hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True)
    (home / "document.der").write_bytes(der)
    for n, above in enumerate(chain):
        (home / f"chain-{n}.der").write_bytes(above)
    if request is not None:
        (home / "request.der").write_bytes(request)
    at = int(time.time()) if at is None else at
    (home / "about.json").write_text(
        json.dumps({"kind": kind, "profile": profile, "at": at, "from": source}))
    return home
