"""Certificates, lists and OCSP answers of a real daemon on a SoftHSM2 token: every kind of
issuer key and every kind of profile, taken from the public HTTP door and kept for
pki_oracles.py. The clients of OpenSSL and GnuTLS ask for the OCSP answers themselves."""

import itertools
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

import pki_documents
from python_client import BIN

KEYS = ["ec-p256", "ec-p384", "rsa-3072", "rsa-4096", "ed25519"]
LEAF_KEYS = ["ec-p256", "ec-p384", "ec-p521", "ed25519", "rsa-2048", "rsa-3072", "rsa-4096"]

AUTHORITY = """
name = "{name}"
kind = "{kind}"
key = "{key}"
{more}
approvals = 1
[subject]
CN = "Oracle {name}"
O = "Example"
C = "CH"
[constraints]
{constraints}
[urls]
base = "http://pki.example.internal/dev"
ocsp = {ocsp}
"""

PROFILE = """
name = "{name}"
version = 1
issuers = ["{issuer}"]
[validity]
default = "24h"
max = "72h"
[key]
allow = ["ec-p256", "ec-p384", "ec-p521", "ed25519", "rsa-2048", "rsa-3072", "rsa-4096"]
{san}
[usage]
eku = [{eku}]
{more}
"""

NAMES = """
[[san.dns]]
match = "any-depth-under"
value = "dev.example"
wildcard = true
[san.ip]
cidrs = ["10.20.0.0/16", "2001:db8::/32"]
max = 2
"""
SPIFFE = """
[san]
max_total = 1
[san.uri]
spiffe = { trust_domain = "dev.keywright", path = "/{principal.name}", count = 1 }
"""
CLIENT, SERVER = '"clientAuth"', '"serverAuth"'
NO_REVOCATION = "[extensions]\nno_rev_avail = true\ncrl_dp = false"
# Profile: names, extended key usage, the rest, and what is asked for.
PROFILES = {
    "tls": (NAMES, f"{SERVER}, {CLIENT}", '[subject]\ncommon_name = "first-dns"\nfixed = { O = "Example" }',
            ["--dns", "a.dev.example", "--dns", "*.b.dev.example",
             "--ip", "10.20.3.4", "--ip", "2001:db8::1"]),
    "server": (NAMES, SERVER, "[extensions]\nocsp = true", ["--dns", "s.dev.example"]),
    "client": (NAMES, CLIENT, "", ["--dns", "c.dev.example"]),
    "short": (NAMES, f"{SERVER}, {CLIENT}", NO_REVOCATION, ["--dns", "m.dev.example"]),
    "svid": (SPIFFE, f"{SERVER}, {CLIENT}", NO_REVOCATION, ["--uri", "spiffe://dev.keywright/developer"]),
}


class Appliance:
    def __init__(self, folder, documents):
        self.folder, self.documents, self.count = folder, documents, itertools.count()
        self.daemon, said = self.start()
        self.door = re.search(r"pki +(http://[^/]+)/", said).group(1)
        env = (folder / "data" / "client.env").read_text()
        self.env = {**os.environ, **dict(line.split("=", 1) for line in env.splitlines())}

    def start(self):
        log = open(self.folder / "daemon.log", "ab")
        daemon = subprocess.Popen(
            [BIN / "keywrightd", "dev", "--data", self.folder / "data", "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=log, text=True)
        said = ""
        for line in daemon.stdout:
            said += line
            if line.startswith("ready on "):
                return daemon, said
        raise SystemExit(f"the daemon did not start: {said}{(self.folder / 'daemon.log').read_text()}")

    def stop(self):
        self.daemon.terminate()
        self.daemon.wait()

    def run(self, *words):
        done = subprocess.run([BIN / "keywright", *words], capture_output=True, env=self.env, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr.decode()}"
        return done.stdout

    def file(self, name, text=None):
        path = self.folder / name
        if text is not None:
            path.write_text(text)
        return path

    def get(self, path):
        with urllib.request.urlopen(f"{self.door}/dev/{path}") as reply:
            return reply.read()

    def list(self, path, entries):
        """The newest list, once it has so many entries."""
        for _ in range(200):
            try:
                der = self.get(path)
                if len(x509.load_der_x509_crl(der)) == entries:
                    return der
            except urllib.error.HTTPError as e:
                assert e.code == 404, path
            time.sleep(0.05)
        raise SystemExit(f"{path} has not {entries} entries within 10 s")

    def keep(self, kind, der, chain, profile="", request=None):
        pki_documents.keep(self.documents, kind, der, chain, "SoftHSM", profile, request)

    def authority(self, name, key, above, constraints="", **fields):
        """A ceremony; its certificate is kept. `above`: its chain, names and DER."""
        kind = "intermediate" if above else "root"
        if above:
            fields["parent"] = above[0][0]
        more = "\n".join(f"{k} = {json.dumps(v)}" for k, v in fields.items())
        text = AUTHORITY.format(name=name, kind=kind, key=key, more=more, constraints=constraints,
                                ocsp=json.dumps(kind == "root" or "shards" in fields))
        plan = json.loads(self.run("--output", "json", "pki", "ceremony", "plan",
                                   self.file(f"{name}.toml", text)))
        self.run("pki", "ceremony", "approve", plan["id"], "--digest", plan["digest"])
        self.run("pki", "ceremony", "commit", plan["id"])
        der = self.get(f"{name}.cer")
        chain = [der for _, der in above] or [der]
        self.keep("certificate", der, chain, "ceremony")
        return [(name, der), *above]

    def profile(self, name, issuer, san, eku, more):
        text = PROFILE.format(name=name, issuer=issuer, san=san, eku=eku, more=more)
        self.run("pki", "profile", "put", self.file(f"{name}.toml", text))

    def issue(self, profile, chain, asked, key="ec-p256"):
        number = next(self.count)
        out = self.folder / f"leaf-{number}.der"
        self.run("pki", "issue", "--profile", profile, *asked, "--key-type", key,
                 "--key-out", self.folder / f"leaf-{number}.key", "--out", out)
        der = out.read_bytes()
        self.keep("certificate", der, [der for _, der in chain], "live-" + profile.split("-")[0])
        return out

    def revoke(self, issuer, certificate, reason):
        serial = x509.load_der_x509_certificate(certificate).serial_number
        digits = f"{serial:x}"
        self.run("pki", "revoke", "--yes", "--issuer", issuer, "--serial", digits.zfill(len(digits) + len(digits) % 2),
                 "--reason", reason)

    def ask(self, chain, serial, expected, *options):
        """OpenSSL's client asks the door, verifies, and hears what is expected."""
        name = chain[0][0]
        issuer, root = self.folder / f"{name}.pem", self.folder / f"{name}-root.pem"
        pem = lambda der: x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
        issuer.write_bytes(pem(chain[0][1]))
        root.write_bytes(b"".join(pem(der) for _, der in chain))
        asked, answered = self.folder / f"{name}-asked.der", self.folder / f"{name}-answered.der"
        done = subprocess.run(
            ["openssl", "ocsp", "-issuer", issuer, *options[1:], "-serial", hex(serial), options[0],
             "-url", f"{self.door}/dev/ocsp/{name}", "-CAfile", root,
             "-reqout", asked, "-respout", answered], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "Response verify OK" in said, said
        assert f"{serial:x}: {expected}" in said.lower() and "WARNING" not in said, said
        ders = [der for _, der in chain]
        answer = ocsp.load_der_ocsp_response(answered.read_bytes())
        self.keep("ocsp", answered.read_bytes(), ders, request=asked.read_bytes())
        for responder in answer.certificates:
            self.keep("certificate", responder.public_bytes(Encoding.DER), ders, "ocsp")

    def ask_gnutls(self, chain, leaf):
        """And GnuTLS's, of a certificate that is good."""
        name = chain[0][0]
        pem = lambda file, der: self.file(f"{name}-{file}", x509.load_der_x509_certificate(der)
                                          .public_bytes(Encoding.PEM).decode())
        issuer = pem("gnutls.pem", chain[0][1])
        done = subprocess.run(
            ["ocsptool", f"--ask={self.door}/dev/ocsp/{name}", "--nonce",
             "--load-cert", pem("asked.pem", leaf), "--load-issuer", issuer,
             "--load-trust", issuer], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "Verifying OCSP Response: Success" in said, said
        assert "Certificate Status: good" in said, said


def hierarchy(it, key):
    """Root, issuer and one below it, all with keys of this kind, and what they sign."""
    root = it.authority(f"root-{key}", key, [], validity_days=3650)
    issuer = it.authority(f"int-{key}", key, root, validity_days=1825, path_len=1, shards=2)
    below = it.authority(
        f"sub-{key}", key, issuer, validity_days=365, path_len=0, constraints=
        'permitted_dns = ["dev.example"]\npermitted_ip = ["10.20.0.0/16", "2001:db8::/32"]\n'
        'excluded_dns = ["secret.dev.example"]\npermitted_uri_hosts = [".dev.keywright", "dev.keywright"]')
    gone = it.authority(f"gone-{key}", "ec-p256", root, validity_days=365, path_len=0)
    leaves = {}
    for name, (san, eku, more, asked) in PROFILES.items():
        it.profile(f"{name}-{key}", issuer[0][0], san, eku, more)
        leaves[name] = it.issue(f"{name}-{key}", issuer, asked)
    for kind in LEAF_KEYS if key == "ec-p256" else []:
        it.issue(f"tls-{key}", issuer, ["--dns", f"{kind}.dev.example"], kind)
    it.profile(f"below-{key}", below[0][0], *PROFILES["tls"][:3])
    it.issue(f"below-{key}", below, PROFILES["tls"][3])

    ders = lambda chain: [der for _, der in chain]
    paths = [f"{name}.crl" for name in (root[0][0], issuer[0][0], below[0][0])]
    for path, chain in zip(paths, (root, issuer, below)):
        it.keep("crl", it.list(path, 0), ders(chain))
    for shard in (1, 2):
        it.keep("crl-shard", it.list(f"int-{key}/{shard}.crl", 0), ders(issuer))
    revoked = ["superseded", "unspecified", "key-compromise", "cessation-of-operation"]
    taken = [it.issue(f"server-{key}", issuer, ["--dns", f"r{n}.dev.example"]).read_bytes()
             for n in range(len(revoked))]
    for reason, der in zip(revoked, taken):
        it.revoke(issuer[0][0], der, reason)
    it.revoke(root[0][0], gone[0][1], "cessation-of-operation")
    it.keep("crl", it.list(paths[0], 1), ders(root))
    it.keep("crl", it.list(paths[1], len(taken)), ders(issuer))
    for shard in (1, 2):
        it.keep("crl-shard", it.get(f"int-{key}/{shard}.crl"), ders(issuer))

    serial = lambda der: x509.load_der_x509_certificate(der).serial_number
    good = leaves["tls"].read_bytes()
    for nonce in ("-nonce", "-no_nonce"):
        it.ask(issuer, serial(good), "good", nonce)
        it.ask(issuer, serial(good), "good", nonce, "-sha256")
        for der in taken:
            it.ask(issuer, serial(der), "revoked", nonce)
        it.ask(issuer, 0x1234567890ABCDEF1234567890ABCDEF, "unknown", nonce)
        it.ask(root, serial(issuer[0][1]), "good", nonce)
        it.ask(root, serial(gone[0][1]), "revoked", nonce)
    it.ask_gnutls(issuer, good)


def make(folder, documents):
    it = Appliance(folder, documents)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda key: hierarchy(it, key), KEYS))
    finally:
        it.stop()
