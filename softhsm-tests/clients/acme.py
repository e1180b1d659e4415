"""Unmodified ACME clients, certbot and lego, against the real daemon on SoftHSM2: account
with external account binding, issue over http-01, dns-01 and tls-alpn-01, renew, revoke.
The daemon answers every fifth good nonce with badNonce; names are looked up at a small DNS
server here, for which every host is 127.0.0.1."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("KEYWRIGHT_BIN", ROOT / "target" / "debug"))
PROFILE = """name = "{name}"
version = 1
issuers = ["dev-issuer"]
[validity]
default = "{ttl}"
max = "{ttl}"
[key]
allow = ["ec-p256", "ec-p384", "rsa-2048", "rsa-4096"]
[[san.dns]]
match = "any-depth-under"
value = "dev.example"
wildcard = true
[usage]
eku = ["serverAuth"]
[extensions]
crl_dp = false
[acme]
networks = ["127.0.0.0/8"]
"""


class Names(threading.Thread):
    """A resolver: A is 127.0.0.1 for every name, TXT is what hooks put into `folder`."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder = folder
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def run(self):
        while True:
            question, peer = self.socket.recvfrom(512)
            labels, at = [], 12
            while question[at]:
                labels.append(question[at + 1:at + 1 + question[at]].decode())
                at += 1 + question[at]
            kind = question[at + 2]
            data = []
            if kind == 1:
                data = [bytes([127, 0, 0, 1])]
            elif kind == 16:
                file = self.folder / ".".join(labels).lower()
                lines = file.read_bytes().split() if file.exists() else []
                data = [bytes([len(line)]) + line for line in lines]
            records = b"".join(
                b"\xc0\x0c\0" + bytes([kind]) + b"\0\1\0\0\0\x3c" + len(d).to_bytes(2, "big") + d
                for d in data)
            head = question[:2] + b"\x81\x80\0\1" + len(data).to_bytes(2, "big") + b"\0\0\0\0"
            self.socket.sendto(head + question[12:at + 5] + records, peer)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Daemon:
    """`keywrightd dev`, twice: once to make everything, then with an ACME door."""

    def __init__(self, folder, resolver):
        self.data = folder / "data"
        self.log = folder / "daemon.log"
        self.http, self.tls, port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{port}/acme/dev/directory"
        self.start()
        self.stop()
        file = self.data / "keywrightd.toml"
        text = file.read_text().replace("[tls]", f'acme = "127.0.0.1:{port}"\n\n[tls]', 1)
        file.write_text(text + f"""
[acme]
url = "https://127.0.0.1:{port}"
resolver = "127.0.0.1:{resolver}"
[acme.testing]
http01_port = {self.http}
tls_alpn01_port = {self.tls}
bad_nonce_every = 5
""")
        self.start()
        lines = (self.data / "client.env").read_text().splitlines()
        self.env = {**os.environ, **dict(line.split("=", 1) for line in lines)}
        self.ca = self.data / "ca.pem"

    def start(self):
        self.process = subprocess.Popen(
            [BIN / "keywrightd", "dev", "--data", self.data, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=self.log.open("ab"), text=True)
        for line in self.process.stdout:
            if line.startswith("ready on "):
                return
        sys.exit("the daemon did not start:\n" + self.log.read_text())

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def bad_nonces(self):
        return self.log.read_text().count("badNonce")

    def cli(self, *args, code=0):
        done = subprocess.run([BIN / "keywright", *args], capture_output=True, text=True,
                              env=self.env, check=False)
        assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def acme_key(self, *profiles):
        args = [arg for name in profiles for arg in ("--profile", name)]
        made = self.cli("pki", "acme-key", "create", "--output", "json",
                        "--identity", "spiffe://dev.keywright/developer", *args)
        key = json.loads(made)
        return key["kid"], key["hmac_key"]


def run(command, env, good=True):
    """What the client said; fails unless it did as it should."""
    done = subprocess.run([str(c) for c in command], env=env, capture_output=True, text=True,
                          check=False, timeout=300)
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == good, f"{command}\n{said}"
    return said


def checked(daemon, leaf, chain, host, days=None):
    """The certificate is good by our own verifier and by OpenSSL; its serial."""
    root = daemon.data / "root.pem"
    daemon.cli("pki", "bundle", "--roots", "--out", root)
    daemon.cli("pki", "verify", leaf, "--chain", chain, "--root", root, "--dns", host)
    run(["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", host,
         "-CAfile", root, "-untrusted", chain, leaf], daemon.env)
    if days is not None:
        end = ["openssl", "x509", "-in", leaf, "-noout", "-checkend"]
        run([*end, days * 86400 - 7200], daemon.env)
        run([*end, days * 86400 + 7200], daemon.env, good=False)
    said = run(["openssl", "x509", "-in", leaf, "-noout", "-serial"], daemon.env)
    return said.strip().removeprefix("serial=").lower()


def revoked(daemon, leaf, chain):
    crl = daemon.data / "dev-issuer.crl"
    daemon.cli("pki", "crl", "--issuer", "dev-issuer", "--out", crl)
    daemon.cli("pki", "verify", leaf, "--chain", chain, "--root", daemon.data / "root.pem",
               "--crl", crl, code=6)


def hook(path, text):
    path.write_text("#!/bin/sh\nset -eu\n" + text)
    path.chmod(0o700)
    return path


def certbot(daemon, folder, texts):
    env = {**daemon.env, "REQUESTS_CA_BUNDLE": str(daemon.ca)}
    places = [arg for name in ("config", "work", "logs")
              for arg in (f"--{name}-dir", folder / "certbot" / name)]
    base = [pathlib.Path(sys.executable).parent / "certbot"]
    tail = ["--server", daemon.url, "-n", *places]
    account = ["--agree-tos", "--register-unsafely-without-email"]
    alone = ["--standalone", "--http-01-port", daemon.http, "--http-01-address", "127.0.0.1"]
    host, wild = "bot.dev.example", "wild.dev.example"
    issue = [*base, "certonly", *alone, "-d", host, *tail]
    kid, key = daemon.acme_key("week", "day")
    before = daemon.bad_nonces()

    said = run([*issue, *account], env, good=False)
    assert "external account" in said.lower(), said
    wrong = key[:-2] + ("AA" if key[-2:] != "AA" else "QQ")
    said = run([*issue, *account, f"--eab-kid={kid}", f"--eab-hmac-key={wrong}"], env, good=False)
    assert "MAC is of another key" in said, said
    run([*issue, *account, f"--eab-kid={kid}", f"--eab-hmac-key={key}"], env)
    live = folder / "certbot" / "config" / "live" / host
    leaf, chain = live / "cert.pem", live / "chain.pem"
    first = checked(daemon, leaf, chain, host, days=7)

    run([*base, "renew", "--force-renewal", "--no-random-sleep-on-renew", *places], env)
    second = checked(daemon, leaf, chain, host, days=7)
    assert first != second, "certbot renewed nothing"
    # It asks when to renew (RFC 9773), and not now.
    said = run([*base, "renew", "--no-random-sleep-on-renew", *places], env)
    assert "not due" in said or "not yet due" in said, said
    run([*base, "revoke", "--cert-path", leaf, "--reason", "superseded",
         "--no-delete-after-revoke", *tail], env)
    revoked(daemon, leaf, chain)

    run([*base, "certonly", *alone, "-d", "short.dev.example", "--required-profile", "day", *tail],
        env)
    live = folder / "certbot" / "config" / "live" / "short.dev.example"
    checked(daemon, live / "cert.pem", live / "chain.pem", "short.dev.example", days=1)

    put = hook(folder / "put", f'echo "$CERTBOT_VALIDATION" >> {texts}/_acme-challenge.$CERTBOT_DOMAIN\n')
    take = hook(folder / "take", f"rm -f {texts}/_acme-challenge.$CERTBOT_DOMAIN\n")
    run([*base, "certonly", "--manual", "--preferred-challenges", "dns", "--manual-auth-hook", put,
         "--manual-cleanup-hook", take, "-d", wild, "-d", f"*.{wild}", *tail], env)
    live = folder / "certbot" / "config" / "live" / wild
    checked(daemon, live / "cert.pem", live / "chain.pem", f"any.{wild}")
    # Here the key of the certificate is what proves the right.
    run([*base, "revoke", "--cert-path", live / "cert.pem", "--key-path", live / "privkey.pem",
         "--reason", "keycompromise", "--no-delete-after-revoke", *tail], env)
    revoked(daemon, live / "cert.pem", live / "chain.pem")

    run([*base, "update_account", "-m", "new@dev.example", *tail], env)
    run([*base, "unregister", *tail], env)
    return daemon.bad_nonces() - before


def lego(daemon, folder, texts):
    env = {**daemon.env, "LEGO_CA_CERTIFICATES": str(daemon.ca)}
    kid, key = daemon.acme_key("week")
    path = folder / "lego"
    before = daemon.bad_nonces()

    def base(host, *how, email="a@dev.example"):
        return ["lego", "--server", daemon.url, "--path", path, "--email", email, "--accept-tos",
                "-d", host, *how]

    eab = ["--eab", f"--kid={kid}", f"--hmac={key}"]
    http = ["--http", "--http.port", f"127.0.0.1:{daemon.http}"]
    tls = ["--tls", "--tls.port", f"127.0.0.1:{daemon.tls}"]
    said = run([*base("no.dev.example", *http), "run"], env, good=False)
    assert "external account" in said.lower(), said
    wrong = ["--eab", f"--kid={kid}", "--hmac=" + key[:-2] + ("AA" if key[-2:] != "AA" else "QQ")]
    said = run([*base("no.dev.example", *http, *wrong, email="w@dev.example"), "run"], env, good=False)
    assert "unauthorized" in said, said

    put = hook(folder / "exec", f'name="${{2%.}}"\nif [ "$1" = present ]\n'
               f'then echo "$3" >> {texts}/"$name"\nelse rm -f {texts}/"$name"\nfi\n')
    env["EXEC_PATH"] = str(put)
    env["EXEC_POLLING_INTERVAL"] = "1"
    for host, how, type_ in [
        ("go.dev.example", http, "ec256"),
        ("alpn.dev.example", tls, "ec384"),
        ("*.go.dev.example", ["--dns", "exec", "--dns.disable-cp"], "rsa2048"),
    ]:
        command = [*base(host, *how, *eab), "--key-type", type_]
        run([*command, "run"], env)
        file = host.replace("*", "_")
        leaf = path / "certificates" / f"{file}.crt"
        chain = path / "certificates" / f"{file}.issuer.crt"
        name = host.replace("*", "any")
        first = checked(daemon, leaf, chain, name, days=7)
        run([*command, "renew", "--days", "90", "--no-random-sleep"], env)
        assert checked(daemon, leaf, chain, name, days=7) != first, f"lego did not renew {host}"
        run([*command, "revoke", "--keep", "--reason", "4"], env)
        revoked(daemon, leaf, chain)
    # Another name than the profile's.
    said = run([*base("go.elsewhere.example", *http, *eab), "run"], env, good=False)
    assert "rejectedIdentifier" in said, said
    return daemon.bad_nonces() - before


def main():
    if not shutil.which("lego"):
        sys.exit("lego is not installed; run .ci/setup (Debian: apt-get install lego)")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        texts = folder / "texts"
        texts.mkdir()
        names = Names(texts)
        names.start()
        daemon = Daemon(folder, names.port)
        try:
            for name, ttl in (("week", "7d"), ("day", "24h")):
                (folder / "profile.toml").write_text(PROFILE.format(name=name, ttl=ttl))
                daemon.cli("pki", "profile", "put", folder / "profile.toml")
            for client in (certbot, lego):
                refused = client(daemon, folder, texts)
                assert refused > 3, f"only {refused} forced badNonce for {client.__name__}"
                print(f"{client.__name__}: issued, renewed, revoked; {refused} times badNonce")
        except BaseException:
            print(daemon.log.read_text()[-6000:], file=sys.stderr)
            raise
        finally:
            daemon.stop()


if __name__ == "__main__":
    main()
