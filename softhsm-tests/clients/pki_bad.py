"""Documents that are bad on purpose, and who must refuse each: a judge that is content with
everything must be found out."""

import dataclasses
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku
from cryptography.x509.oid import NameOID

from pki_documents import Document
from pki_verifiers import good_end_entities

CERTIFICATES = ("root", "intermediate", "leaf", "responder")
LIBRARIES = ("OpenSSL", "GnuTLS", "cryptography")


def flipped(der, signature=None):
    """The last bit of the signature is the other one."""
    end = len(der) if signature is None else der.rindex(signature) + len(signature)
    return der[:end - 1] + bytes([der[end - 1] ^ 1]) + der[end:]


def one_of_each(documents):
    """For each kind, one for each kind of key that its issuer has."""
    found = {}
    for document in documents:
        if document.kind == "ocsp-error" or document.is_now():
            key = document.issuer.public_key()
            bits = getattr(key, "key_size", 0)
            found.setdefault((document.kind, type(key).__name__, bits), document)
    return found


def judges_end_entities(document):
    # Some live for minutes: they must still be good when it is their turn.
    return document.kind in ("leaf", "responder") or document.kind.startswith("crl") and any(
        good_end_entities(document, at_least=timedelta(minutes=10)))


def in_place(document, folder, der, **changes):
    folder = folder / f"{len(list(folder.iterdir()))}"
    folder.mkdir()
    (folder / "document.der").write_bytes(der)
    return dataclasses.replace(document, folder=folder, der=der, **changes)


def make(documents, folder):
    """What is wrong with it, the document, and the oracles that must say so."""
    folder.mkdir(exist_ok=True)
    for (kind, key, bits), document in one_of_each(documents).items():
        if kind == "ocsp-error":
            bad, refusing = document.der[:-1], [*LIBRARIES, "pkilint"]
        elif kind == "ocsp":
            bad, refusing = flipped(document.der, document.answer.signature), LIBRARIES
        else:
            bad, refusing = flipped(document.der), list(LIBRARIES)
            # pkilint verifies certificates only, and not with every algorithm.
            refusing += ["pkilint"] if kind in CERTIFICATES and "Ed25519" not in key else []
            refusing += ["webpki"] if judges_end_entities(document) else []
            refusing += ["NSS"] if kind == "crl" and "Ed25519" not in key else []
        yield f"a {kind} of {key} {bits} with one bit flipped", in_place(document, folder, bad), refusing
        if kind == "ocsp":
            yield "an answer that ends before it begins", in_place(document, folder, backwards(document)), [
                "pkilint", "OpenSSL", "cryptography"]
        if kind == "crl-shard" and "Ed25519" not in key:
            yield "a shard, to NSS", in_place(document, folder, document.der, kind="crl"), ["NSS"]
    for what, document, refusing in made_elsewhere(folder):
        yield what, document, refusing


def backwards(document):
    end = document.answer.next_update_utc
    text = end.strftime("%Y%m%d%H%M%SZ").encode()
    return document.der.replace(text, b"2001" + text[4:])


def made_elsewhere(folder):
    """Leaves and a list of a CA that is less careful than ours."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Careless")])
    root = certificate(root_key, subject, root_key, [
        (x509.BasicConstraints(True, None), True), (usage(ca=True), True)])
    san = x509.SubjectAlternativeName([x509.DNSName("a.example")])
    good = [(san, True), (usage(ca=False), True), (x509.ExtendedKeyUsage([Eku.SERVER_AUTH]), False)]
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
    leaves = [
        # The control: without it, who refuses all of these leaves would seem attentive.
        ("a good leaf of a stranger", good, []),
        ("a leaf that may sign certificates", [good[0], (usage(ca=True), True), good[2]],
         ["OpenSSL", "cryptography", "pkilint"]),
        ("a leaf whose names are not critical without a subject", [(san, False), *good[1:]],
         ["OpenSSL", "cryptography", "pkilint"]),
        ("a leaf with a critical extension that nobody knows", [*good, (unknown, True)], LIBRARIES),
    ]
    now = int(datetime.now(timezone.utc).timestamp())
    for what, extensions, refusing in leaves:
        leaf = certificate(key, x509.Name([]), root_key, extensions, subject)
        home = folder / f"{len(list(folder.iterdir()))}"
        home.mkdir()
        yield what, Document(home, "leaf", "", now, what, leaf.public_bytes(Encoding.DER), [root], None), refusing
    begin = datetime.now(timezone.utc) - timedelta(minutes=5)
    naked = (x509.CertificateRevocationListBuilder().issuer_name(subject).last_update(begin)
             .next_update(begin + timedelta(days=1)).sign(root_key, hashes.SHA256()))
    for kind in ("crl", "crl-shard"):
        home = folder / f"naked-{kind}"
        home.mkdir()
        yield ("a list without number and key identifier",
               Document(home, kind, "", now, "naked", naked.public_bytes(Encoding.DER), [root], None),
               ["pkilint", "cryptography"])


def usage(ca):
    return x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca,
                         content_commitment=False, key_encipherment=False, data_encipherment=False,
                         key_agreement=False, encipher_only=False, decipher_only=False)


def certificate(key, subject, signer, extensions, issuer=None):
    begin = datetime.now(timezone.utc) - timedelta(minutes=5)
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject)
               .public_key(key.public_key()).serial_number(x509.random_serial_number())
               .not_valid_before(begin).not_valid_after(begin + timedelta(days=1)))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    ski = x509.SubjectKeyIdentifier.from_public_key
    aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(ski(key.public_key()), False).add_extension(aki, False)
    return builder.sign(signer, hashes.SHA256())
