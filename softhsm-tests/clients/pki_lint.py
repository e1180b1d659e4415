"""pkilint, in process: what it finds at WARNING or above, and is not on the reasoned list of
pkilint_ignored.toml, is a failure. An entry of the list that is never used is one too."""

import re
import tomllib
from pathlib import Path

from pkilint import pkix
from pkilint.bin import lint_pkix_signer_signee_cert_chain as chain_linter
from pkilint.loader import (
    RFC5280CertificateDocumentLoader, RFC5280CertificateListDocumentLoader,
    RFC6960OCSPResponseDocumentLoader)
from pkilint.pkix import certificate, crl, extension, name, ocsp
from pkilint.validation import ValidationFindingSeverity as Severity

from cryptography.hazmat.primitives.serialization import Encoding
from pki_verifiers import Refused

LIST = Path(__file__).with_name("pkilint_ignored.toml")


def decoders():
    return [pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS)]


class Linter:
    """The four linters of the pkilint commands, made once: each takes 0.5 s to make."""

    def __init__(self):
        self.certificate = certificate.create_pkix_certificate_validator_container(
            certificate.create_decoding_validators(
                name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
            [certificate.create_issuer_validator_container([]),
             certificate.create_validity_validator_container(),
             certificate.create_subject_validator_container([]),
             certificate.create_extensions_validator_container([]),
             certificate.create_spki_validator_container([])])
        self.crl = crl.create_pkix_crl_validator_container(
            decoders(),
            [crl.create_issuer_validator_container([]),
             crl.create_validity_validator_container([]),
             crl.create_extensions_validator_container([])])
        self.ocsp = ocsp.create_pkix_ocsp_response_validator_container(
            [ocsp.create_response_decoder(), *decoders()], [])
        self.chain = (chain_linter.create_decoder_validation_container(),
                      chain_linter.create_issuer_validation_container(),
                      chain_linter.create_subject_validation_container())
        self.ignored = tomllib.loads(LIST.read_text())["ignored"]
        for entry in self.ignored:
            assert set(entry) == {"code", "kinds", "where", "says", "reason"}, entry
        self.used = [0] * len(self.ignored)

    def findings(self, d):
        """All of WARNING and above."""
        if d.kind in ("crl", "crl-shard"):
            results = self.crl.validate(
                RFC5280CertificateListDocumentLoader().load_der_document(d.der).root)
        elif d.kind in ("ocsp", "ocsp-error"):
            results = self.ocsp.validate(
                RFC6960OCSPResponseDocumentLoader().load_der_document(d.der).root)
        else:
            load = RFC5280CertificateDocumentLoader().load_der_document
            results = self.certificate.validate(load(d.der).root) + self.lint_chain(d, load)
        for result in results:
            for found in result.finding_descriptions:
                if found.finding.severity <= Severity.WARNING:
                    yield result.node.path, found.finding.code, found.message or ""

    def lint_chain(self, d, load):
        both = {}
        above = d.issuer.public_bytes(Encoding.DER)
        both["issuer"] = issuer = load(above, "issuer", "issuer", both)
        both["subject"] = subject = load(d.der, "subject", "subject", both)
        decode, of_issuer, of_subject = self.chain
        return (decode.validate(issuer.root) + decode.validate(subject.root)
                + of_issuer.validate(issuer.root) + of_subject.validate(subject.root))

    def ignores(self, d, where, code, text):
        for n, entry in enumerate(self.ignored):
            if (entry["code"] == code and d.kind in entry["kinds"]
                    and entry["where"] in where.split(".") and re.fullmatch(entry["says"], text)):
                self.used[n] += 1
                return True
        return False

    def judge(self, d):
        found = [f"{code} at {where}: {text}" for where, code, text in self.findings(d)
                 if not self.ignores(d, where, code, text)]
        if found:
            raise Refused("; ".join(found))

    def unused(self):
        return [entry["code"] for entry, used in zip(self.ignored, self.used) if not used]
