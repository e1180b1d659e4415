"""A client that shares no code with Keywright: encrypts with grpcio, and the command
line decrypts; then the other way round. Once with stubs compiled from the .proto files,
once with nothing but server reflection. A JOSE library accepts the keys and signatures."""

import base64
import os
import pathlib
import subprocess
import sys
import tempfile

import grpc
import jwt
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("KEYWRIGHT_BIN", ROOT / "target" / "debug"))
KEY = "python/client"
ITEMS = [b"one", b"", "Zoë ✓".encode(), bytes(range(256)).replace(b"\n", b"")]


def start(data):
    daemon = subprocess.Popen(
        [BIN / "keywrightd", "dev", "--data", data, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in daemon.stdout:
        if line.startswith("ready on "):
            break
    else:
        sys.exit("the daemon did not start")
    env = dict(line.split("=", 1) for line in (data / "client.env").read_text().splitlines())
    return daemon, env


def channel(env):
    read = lambda name: pathlib.Path(env[name]).read_bytes()
    credentials = grpc.ssl_channel_credentials(
        read("KEYWRIGHT_CA"), read("KEYWRIGHT_KEY"), read("KEYWRIGHT_CERT"))
    return grpc.secure_channel(env["KEYWRIGHT_ADDR"], credentials)


def stubs(folder):
    """The .proto files, compiled as any user would."""
    files = [str(p.relative_to(ROOT / "proto")) for p in (ROOT / "proto").rglob("*.proto")]
    code = protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={folder}",
                        f"--grpc_python_out={folder}", *files])
    assert code == 0, "protoc failed"
    sys.path.insert(0, str(folder))
    from keywright.v1 import crypto_pb2, crypto_pb2_grpc, keys_pb2, keys_pb2_grpc
    return crypto_pb2, crypto_pb2_grpc, keys_pb2, keys_pb2_grpc


def command(env, *args, data):
    done = subprocess.run([BIN / "keywright", *args], input=data, capture_output=True,
                          env={**os.environ, **env}, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def to_token(attached):
    return "kw1." + base64.urlsafe_b64encode(attached).rstrip(b"=").decode()


def from_token(token):
    body = token.removeprefix("kw1.")
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


def with_stubs(env, folder):
    crypto_pb2, crypto_grpc, keys_pb2, keys_grpc = stubs(folder)
    batch = sys.modules["keywright.v1.batch_pb2"]
    with channel(env) as ch:
        keys, crypto = keys_grpc.KeysStub(ch), crypto_grpc.CryptoStub(ch)
        created = keys.CreateKey(keys_pb2.CreateKeyRequest(
            name=KEY, spec=keys_pb2.KEY_SPEC_AES_256, labels={"language": "python"}))
        assert created.key.primary_version == 1

        # Python encrypts, the command line decrypts.
        sealed = crypto.Encrypt(crypto_pb2.EncryptRequest(
            key=KEY, context={"app": "py"}, plaintexts=ITEMS, form=batch.FORM_ATTACHED))
        assert not sealed.errors
        tokens = "".join(to_token(item) + "\n" for item in sealed.items)
        opened = command(env, "decrypt", "--lines", "--context", "app=py", data=tokens.encode())
        assert opened == b"".join(item + b"\n" for item in ITEMS), opened

        # The command line encrypts, Python decrypts.
        lines = command(env, "encrypt", "--key", KEY, "--lines", data=b"from the shell\nsecond\n")
        items = [from_token(t) for t in lines.decode().split()]
        opened = crypto.Decrypt(crypto_pb2.DecryptRequest(items=items, form=batch.FORM_ATTACHED))
        assert list(opened.plaintexts) == [b"from the shell", b"second"]

        # Errors carry their reason.
        try:
            crypto.Decrypt(crypto_pb2.DecryptRequest(
                items=items, form=batch.FORM_ATTACHED, context={"wrong": "context"}))
            sys.exit("a wrong context was accepted")
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.INVALID_ARGUMENT, e
            details = dict(e.trailing_metadata())["grpc-status-details-bin"]
            assert b"DECRYPTION_FAILED" in details, details


def jose(env):
    """A JSON Web Token, signed in the HSM, checked with the JWK by a JOSE library."""
    from keywright.v1 import crypto_pb2 as c, crypto_pb2_grpc, keys_pb2 as k, keys_pb2_grpc
    b64 = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    rows = [
        (k.KEY_SPEC_EC_P256, "ES256", c.SIGNATURE_SCHEME_ECDSA_SHA_256),
        (k.KEY_SPEC_EC_P384, "ES384", c.SIGNATURE_SCHEME_ECDSA_SHA_384),
        (k.KEY_SPEC_ED25519, "EdDSA", c.SIGNATURE_SCHEME_ED25519),
        (k.KEY_SPEC_RSA_2048, "PS256", c.SIGNATURE_SCHEME_RSA_PSS_SHA_256),
        (k.KEY_SPEC_RSA_2048, "RS512", c.SIGNATURE_SCHEME_RSA_PKCS1_SHA_512),
    ]
    with channel(env) as ch:
        keys, crypto = keys_pb2_grpc.KeysStub(ch), crypto_pb2_grpc.CryptoStub(ch)
        for n, (spec, alg, scheme) in enumerate(rows):
            name = f"python/jwt-{n}"
            keys.CreateKey(k.CreateKeyRequest(name=name, spec=spec))
            public = jwt.PyJWK.from_json(
                keys.GetPublicKey(k.GetPublicKeyRequest(name=name)).jwk, algorithm=alg)
            head = b64(b'{"alg":"%s","kid":"%s"}' % (alg.encode(), public.key_id.encode()))
            body = b64(b'{"sub":"keywright"}')
            algorithm = c.SignatureAlgorithm(scheme=scheme)
            if alg.startswith("ES"):  # RFC 7518 §3.4: r||s; only ECDSA has two encodings
                algorithm.encoding = c.SIGNATURE_ENCODING_RAW
            signature = crypto.Sign(c.SignRequest(
                key=name, inputs=[f"{head}.{body}".encode()], algorithm=algorithm)).signatures[0]
            token = f"{head}.{body}.{b64(signature)}"
            assert jwt.decode(token, public, algorithms=[alg])["sub"] == "keywright", alg
            other = b64(b'{"sub":"else"}')
            forged = f"{head}.{other}.{b64(signature)}"
            try:
                jwt.decode(forged, public, algorithms=[alg])
                sys.exit(f"{alg}: a forged token was accepted")
            except jwt.InvalidSignatureError:
                pass


def by_reflection(env):
    with channel(env) as ch:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(ch))
        message = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        request, response = message("keywright.v1.EncryptRequest"), message("keywright.v1.EncryptResponse")
        encrypt = ch.unary_unary("/keywright.v1.Crypto/Encrypt",
                                 request_serializer=request.SerializeToString,
                                 response_deserializer=response.FromString)
        sealed = encrypt(request(key=KEY, plaintexts=[b"by reflection"], form=2))
        opened = command(env, "decrypt", "--lines", data=to_token(sealed.items[0]).encode())
        assert opened == b"by reflection", opened


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        daemon, env = start(folder / "data")
        try:
            with_stubs(env, folder)
            by_reflection(env)
            jose(env)
        finally:
            daemon.terminate()
            daemon.wait()
    print("python client: encrypts, the command line decrypts, and the other way round ... ok")
    print("python client: a JOSE library takes the JWKs and the signatures made with them ... ok")


if __name__ == "__main__":
    main()
