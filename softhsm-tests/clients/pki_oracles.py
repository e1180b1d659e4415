"""What others say of our certificates, CRLs and OCSP answers: OpenSSL, GnuTLS, NSS, pyca's
cryptography, rustls-webpki and pkilint judge all that the tests pki and pki_http obtained, and all that a
real daemon signed on SoftHSM2. First each judge
must refuse documents that are bad on purpose."""

import argparse
import collections
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pki_bad
import pki_documents
import pki_live
import pki_verifiers as by
from pki_documents import KINDS
from pki_lint import Linter
from python_client import ROOT

CERTIFICATES = ("root", "intermediate", "leaf", "responder")
LISTS = ("crl", "crl-shard")
SHARD = by.NotApplicable("refuses every critical extension that it does not know, and the issuing "
                         "distribution point of a shard must be critical (RFC 5280 5.2.5); for it "
                         "there is the full list")
# Fewer of a kind, and the collecting is broken.
LEAST = {"root": 40, "intermediate": 45, "leaf": 90, "responder": 12, "crl": 80, "crl-shard": 70,
         "ocsp": 90, "ocsp-error": 3}


def judges(linter):
    """For each oracle and kind of document: who judges."""
    table = {oracle: {} for oracle in ("OpenSSL", "GnuTLS", "webpki", "NSS", "cryptography", "pkilint")}
    for kind in CERTIFICATES:
        table["OpenSSL"][kind] = by.openssl_certificate
        table["GnuTLS"][kind] = by.gnutls_certificate
        table["webpki"][kind] = by.webpki_certificate
        table["cryptography"][kind] = by.pyca_certificate
    for kind in LISTS:
        table["OpenSSL"][kind] = by.openssl_crl
        table["GnuTLS"][kind] = by.gnutls_crl
        table["webpki"][kind] = by.webpki_crl
        table["cryptography"][kind] = by.pyca_crl
    table["NSS"]["crl"] = by.nss_crl
    table["NSS"]["crl-shard"] = lambda _: SHARD
    for library, name in (("OpenSSL", "openssl"), ("GnuTLS", "gnutls"), ("cryptography", "pyca")):
        table[library]["ocsp"] = getattr(by, f"{name}_ocsp")
        table[library]["ocsp-error"] = getattr(by, f"{name}_ocsp_error")
    for kind in KINDS:
        table["pkilint"][kind] = linter.judge
    return table


def judged(judge, document):
    try:
        return judge(document)
    except by.Refused:
        raise
    except Exception as e:  # A judge that cannot read it has not accepted it.
        raise by.Refused(f"{type(e).__name__}: {e}") from e


def verdicts(table, document):
    """Each oracle: content (None), not applicable, or what it refuses."""
    said = {}
    for oracle, kinds in table.items():
        if document.kind not in kinds:
            continue
        try:
            said[oracle] = judged(kinds[document.kind], document)
        except by.Refused as e:
            said[oracle] = e
    return said


def self_check(table, documents, folder):
    """Bad on purpose: who must refuse it, does."""
    wrong, covered, count = [], {("NSS", "crl-shard"), ("webpki", "root"), ("webpki", "intermediate")}, 0
    for what, document, refusing in pki_bad.make(documents, folder):
        said = verdicts(table, document)
        count += len(refusing)
        for oracle in refusing:
            covered.add((oracle, document.kind))
            if not isinstance(said[oracle], by.Refused):
                wrong.append(f"{oracle} does not refuse {what}: {said[oracle]}")
        if not refusing:
            wrong += [f"{what}: {oracle}: {verdict}" for oracle, verdict in said.items() if verdict]
    wrong += [f"it is not known whether {oracle} would refuse a bad {kind}"
              for oracle, kinds in table.items() for kind in kinds if (oracle, kind) not in covered]
    return wrong, count


def suite(folder):
    """The tests' own documents."""
    folder.mkdir(exist_ok=True)
    cargo = ["cargo", "test", "--locked", "-q", "-p", "keywright-service",
             "--test", "pki", "--test", "pki_http", "--test", "acme"]
    done = subprocess.run(cargo, cwd=ROOT, env={**os.environ, "KEYWRIGHT_PKI_DOCUMENTS": str(folder)},
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the tests pki, pki_http and acme failed:\n{done.stdout}{done.stderr}")


def show(table, counts):
    """Documents of each kind; passed by each oracle, and those it cannot judge."""
    head = ["", "documents", *table]
    rows = [head]
    for kind in KINDS:
        row = [kind, str(counts[kind, "all"])]
        for oracle in table:
            passed, skipped = counts[kind, oracle, "passed"], counts[kind, oracle, "not"]
            row.append(f"{passed}" + (f" +{skipped} n/a" if skipped else "") if passed or skipped else "-")
        rows.append(row)
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    for row in rows:
        print("  " + "  ".join(cell.rjust(width) if n else cell.ljust(width)
                               for n, (cell, width) in enumerate(zip(row, widths))))


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--documents", type=Path, help="judge these, and make none")
    only = arguments.parse_args().documents
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if only is None:
            suite(folder / "suite")
            pki_live.make(folder, folder / "live")
            documents = [d for name in ("suite", "live") for d in pki_documents.read_all(folder / name)]
        else:
            documents = pki_documents.read_all(only)
        linter = Linter()
        table = judges(linter)
        wrong, checks = self_check(table, documents, folder / "bad")
        linter.used = [0] * len(linter.used)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            all_said = list(pool.map(lambda d: verdicts(table, d), documents))
    counts, reasons = collections.Counter(), collections.Counter()
    for document, said in zip(documents, all_said):
        counts[document.kind, "all"] += 1
        for oracle, verdict in said.items():
            if isinstance(verdict, by.Refused):
                wrong.append(f"{oracle} refuses {document}: {verdict}")
            elif verdict is None:
                counts[document.kind, oracle, "passed"] += 1
            else:
                counts[document.kind, oracle, "not"] += 1
                reasons[oracle, document.kind, verdict] += 1
    show(table, counts)
    for (oracle, kind, why), count in sorted(reasons.items()):
        print(f"  n/a: {oracle}, {count} {kind}: {why}")
    if only is None:
        wrong += [f"only {counts[kind, 'all']} documents of kind {kind}, not {least}"
                  for kind, least in LEAST.items() if counts[kind, "all"] < least]
        wrong += [f"pkilint_ignored.toml: {code} was never needed" for code in linter.unused()]
    if wrong:
        sys.exit("\n".join(["pki oracles:", *wrong]))
    print(f"pki oracles: {len(documents)} documents, nothing refused; "
          f"{checks} times a bad one was, as it must be ... ok")


if __name__ == "__main__":
    main()
