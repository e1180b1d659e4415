"""OpenSSL, GnuTLS, NSS and pyca's cryptography, each asked about one document. A judge
returns None when it is content, NotApplicable with the reason, or raises Refused."""

import subprocess
import tempfile
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp, verification
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

from pki_documents import is_ca, purposes
from python_client import BIN

PURPOSES = {Eku.SERVER_AUTH: "sslserver", Eku.CLIENT_AUTH: "sslclient"}


class Refused(Exception):
    pass


class NotApplicable(str):
    pass


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True,
                          errors="replace", check=False, stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode, done.stdout + done.stderr


def must(words, says, never=()):
    """Exit code 0, and these words; some tools say no and exit with 0."""
    code, said = run(*words)
    if code != 0 or says not in said or any(word in said for word in never):
        raise Refused(f"{' '.join(str(w) for w in words)}: {code}: {said.strip()}")
    return said


def clock(d):
    """For tools that have only the system's: tests move theirs."""
    return [] if d.is_now() else ["faketime", f"@{d.at}"]


def chain_files(d):
    """The root as trust, and what lies between it and the document."""
    between = d.pem("between.pem", d.chain[:-1])
    return d.pem("root.pem", d.chain[-1:]), ["-untrusted", between] if d.chain[:-1] else []


# OpenSSL

def openssl_certificate(d):
    root, between = chain_files(d)
    leaf = d.pem("document.pem", [d.certificate])
    wanted = [PURPOSES[p] for p in PURPOSES if p in purposes(d.certificate)]
    wanted += {"responder": ["ocsphelper"], "root": ["crlsign"], "intermediate": ["crlsign"]}.get(d.kind, [])
    if not wanted:
        raise Refused("no purpose that OpenSSL knows")
    for purpose in wanted:
        must(["openssl", "verify", "-x509_strict", "-check_ss_sig", "-auth_level", "2",
              "-attime", d.at, "-purpose", purpose, "-CAfile", root, *between, leaf], ": OK")


def openssl_crl(d):
    every = d.pem("every.pem", d.chain)
    path = d.folder / "document.pem"
    path.write_bytes(d.crl.public_bytes(Encoding.PEM))
    must(["openssl", "crl", "-in", path, "-noout", "-verify", "-CAfile", every], "verify OK")
    root, between = chain_files(d)
    for certificate in d.others:
        moment = max(d.at, int(certificate.not_valid_before_utc.timestamp()))
        end = min(certificate.not_valid_after_utc, d.crl.next_update_utc)
        if in_scope(d.crl, certificate) and moment <= end.timestamp():
            about(d.crl, certificate, "certificate revoked", [
                "openssl", "verify", "-x509_strict", "-crl_check", "-attime", moment, "-CAfile", root,
                *between, "-CRLfile", path, d.pem("other.pem", [certificate])])


def about(crl, certificate, revoked, words):
    """A list says that a certificate is revoked if it is on it, else that it is good."""
    code, said = run(*words)
    listed = crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
    if (listed and (code == 0 or revoked not in said)) or (not listed and code != 0):
        raise Refused(f"about {certificate.serial_number:x}, listed: {listed}: {said.strip()}")


def in_scope(crl, certificate):
    """A shard speaks for those certificates that name it as distribution point."""
    try:
        ours = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return True
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return False
    return any(name in ours.full_name for point in points for name in point.full_name)


def openssl_ocsp(d):
    asked = ocsp.load_der_ocsp_request(d.request)
    every = d.pem("every.pem", d.chain)
    issuer = d.pem("issuer.pem", d.chain[:1])
    said = must(
        [*clock(d), "openssl", "ocsp", "-issuer", issuer, f"-{asked.hash_algorithm.name}",
         "-serial", hex(asked.serial_number), "-no_nonce", "-respin", d.folder / "document.der",
         "-CAfile", every],
        "Response verify OK", never=["WARNING"])
    status = d.answer.certificate_status.name.lower()
    if f"{asked.serial_number:x}: {status}" not in said.lower():
        raise Refused(f"{status}: {said}")


def openssl_ocsp_error(d):
    # It has no exit code that tells an error it read from one of its own.
    _, said = run("openssl", "ocsp", "-respin", d.folder / "document.der", "-noverify", "-resp_text")
    if f"Responder Error: {error_name(d)} ({d.answer.response_status.value})" not in said:
        raise Refused(said.strip())


def error_name(d):
    return d.answer.response_status.name.replace("_", "").lower()


# GnuTLS

def gnutls_certificate(d):
    root = d.pem("root.pem", d.chain[-1:])
    path = [d.certificate] if d.kind == "root" else [d.certificate, *d.chain[:-1]]
    whole = d.pem("whole.pem", path)
    wanted = [[]] if d.kind in ("root", "intermediate") else [
        ["--verify-purpose", p.dotted_string] for p in sorted(purposes(d.certificate), key=str)]
    for purpose in wanted:
        must([*clock(d), "certtool", "--verify", "--load-ca-certificate", root, *purpose, "--infile", whole],
             "Chain verification output: Verified.")


def gnutls_crl(d):
    path = d.folder / "document.pem"
    path.write_bytes(d.crl.public_bytes(Encoding.PEM))
    issuer = d.pem("issuer.pem", d.chain[:1])
    must([*clock(d), "certtool", "--verify-crl", "--load-ca-certificate", issuer, "--infile", path],
         "Verification output: Verified.")


def gnutls_ocsp(d):
    issuer = d.pem("issuer.pem", d.chain[:1])
    must([*clock(d), "ocsptool", "--verify-response", "--load-trust", issuer,
          "--load-response", d.folder / "document.der"], "Verifying OCSP Response: Success.")


def gnutls_ocsp_error(d):
    said = must(["ocsptool", "--response-info", "--load-response", d.folder / "document.der"],
                "Response Status: ")
    if f"response status: {error_name(d)}" not in said.lower():
        raise Refused(said)


# rustls-webpki, which is what `keywright pki verify` asks

KEYWRIGHT = [BIN / "keywright", "pki", "verify"]


def webpki_paths(d):
    root, between = chain_files(d)
    return [*(["--chain", between[1]] if between else []), "--root", root]


def webpki_certificate(d):
    if d.kind in ("root", "intermediate"):
        return NotApplicable("verifies end entities; authorities are judged in the chains above them")
    must([*clock(d), *KEYWRIGHT, d.pem("document.pem", [d.certificate]), *webpki_paths(d)], "valid;")


def good_end_entities(d, at_least=timedelta()):
    """Those a list can be judged about, which are good for so long; and those below an authority on it."""
    now = datetime.now(timezone.utc) if d.is_now() else d.moment
    others = [c for c in d.others if in_scope(d.crl, c) and not is_ca(c)
              and c.not_valid_before_utc <= now < c.not_valid_after_utc - at_least]
    return others, d.below[:3] if d.is_now() else []


def webpki_crl(d):
    others, below = good_end_entities(d)
    if not (others or below):
        return NotApplicable("judges a list only about an end entity that is good, of which there is none; "
                             "the Rust tests read it")
    path = d.folder / "webpki.crl"
    path.write_bytes(d.der)
    for certificate in others:
        about(d.crl, certificate, "it is revoked", [
            *clock(d), *KEYWRIGHT, d.pem("webpki-other.pem", [certificate]), *webpki_paths(d), "--crl", path])
    # What an authority's list says of authorities is heard through those below them.
    for leaf, own in below:
        (d.folder / "own.crl").write_bytes(own.der)
        chain = ["--chain", d.pem("own.pem", leaf.chain[:-1]), "--root", d.pem("root.pem", d.chain[-1:])]
        about(d.crl, leaf.chain[0], "it is revoked", [
            *clock(d), *KEYWRIGHT, d.pem("webpki-leaf.pem", [leaf.certificate]), *chain,
            "--crl", d.folder / "own.crl", "--crl", path])


# NSS

def nss_crl(d):
    if any(isinstance(c.public_key(), ed25519.Ed25519PublicKey) for c in d.chain):
        return NotApplicable("takes no certificate with an Ed25519 key (this release, 3.87)")
    db = f"sql:{tempfile.mkdtemp(dir=d.folder)}"
    must(["certutil", "-N", "-d", db, "--empty-password"], "")
    for n, certificate in enumerate(d.chain):
        path = d.pem(f"nss-{n}.pem", [certificate])
        must(["certutil", "-A", "-d", db, "-n", f"n{n}", "-t", "CT,C,C", "-a", "-i", path], "")
    must([*clock(d), "crlutil", "-I", "-d", db, "-i", d.folder / "document.der"], "",
         never=["unable to import", "error", "SEC_ERROR"])
    must([*clock(d), "crlutil", "-L", "-d", db, "-n", "n0"], "CRL Info", never=["SEC_ERROR"])


# pyca cryptography

def directly(certificate, issuer):
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError) as e:
        raise Refused(f"not issued by {issuer.subject.rfc4514_string()}: {e!r}") from e


def pyca_certificate(d):
    path = [d.certificate] if d.kind == "root" else [d.certificate, *d.chain]
    for lower, upper in zip(path, [*path[1:], path[-1]]):
        directly(lower, upper)
    for extension in d.certificate.extensions:
        repr(extension.value)
    if d.kind != "leaf":
        return None
    builder = verification.PolicyBuilder().time(d.moment).store(verification.Store([d.chain[-1]]))
    between = d.chain[:-1]
    usage = purposes(d.certificate)
    names = d.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    try:
        if Eku.CLIENT_AUTH in usage:
            builder.build_client_verifier().verify(d.certificate, between)
        if Eku.SERVER_AUTH in usage:
            dns = names.get_values_for_type(x509.DNSName)
            asked = [x509.DNSName(name.replace("*", "any")) for name in dns]
            asked += [x509.IPAddress(ip) for ip in names.get_values_for_type(x509.IPAddress)]
            for name in asked:
                builder.build_server_verifier(name).verify(d.certificate, between)
    except verification.VerificationError as e:
        if "Forbidden public key algorithm" in str(e) and "Ed25519" in str(e):
            return NotApplicable("its path validation takes no issuer with an Ed25519 key (the "
                                 "CA/Browser Forum's BR 7.1.3.1 has none); each signature was verified")
        raise Refused(f"path validation: {e}") from e
    return None


def pyca_crl(d):
    crl = d.crl
    if not crl.is_signature_valid(d.issuer.public_key()):
        raise Refused("the signature is wrong")
    if crl.issuer != d.issuer.subject:
        raise Refused("of another issuer")
    for entry in crl:
        for extension in entry.extensions:
            repr(extension.value)
    aki = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    ski = d.issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    if aki.key_identifier != ski.digest:
        raise Refused("the authority key identifier is not the issuer's")
    sharded = [e for e in crl.extensions if isinstance(e.value, x509.IssuingDistributionPoint)]
    if (d.kind == "crl-shard") != (len(sharded) == 1) or not all(e.critical for e in sharded):
        raise Refused("issuing distribution point (RFC 5280 5.2.5)")


def pyca_ocsp(d):
    answer, asked = d.answer, ocsp.load_der_ocsp_request(d.request)
    signer = next((c for c in answer.certificates), d.issuer)
    if signer != d.issuer:
        directly(signer, d.issuer)
        if purposes(signer) != {Eku.OCSP_SIGNING}:
            raise Refused("the signer is not for OCSP")
        signer.extensions.get_extension_for_class(x509.OCSPNoCheck)
    key, tbs, digest = signer.public_key(), answer.tbs_response_bytes, answer.signature_hash_algorithm
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(answer.signature, tbs, ec.ECDSA(digest))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(answer.signature, tbs)
        else:
            key.verify(answer.signature, tbs, padding.PKCS1v15(), digest)
    except InvalidSignature as e:
        raise Refused("the signature is wrong") from e
    what = lambda o: (o.serial_number, o.issuer_name_hash, o.issuer_key_hash, o.hash_algorithm.name)
    if what(answer) != what(asked):
        raise Refused("about another certificate")
    if not answer.this_update_utc <= d.moment <= answer.next_update_utc:
        raise Refused("not of its moment")
    nonce = lambda o: [e.value.nonce for e in o.extensions if isinstance(e.value, x509.OCSPNonce)]
    if nonce(answer) != nonce(asked):
        raise Refused("the nonce is not echoed (RFC 9654 2.1)")


def pyca_ocsp_error(d):
    repr(d.answer.response_status)
