#!/usr/bin/env python3
"""Writes keywright.json: our own envelope vectors, from a second implementation.

It shares nothing with the Rust code: the format of docs/envelope.md written down in
Python on the package `cryptography`. The output is a promise: regenerate it only to
add vectors, never to change one. Run: python3 generate.py > keywright.json
"""

import hashlib
import json

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand


class Draw:
    """Reproducible bytes: SHA-256 in counter mode over a seed."""

    def __init__(self, seed):
        self.seed, self.count = seed.encode(), 0

    def bytes(self, n):
        out = b""
        while len(out) < n:
            out += hashlib.sha256(self.seed + self.count.to_bytes(8, "big")).digest()
            self.count += 1
        return out[:n]

    def below(self, n):
        return int.from_bytes(self.bytes(8), "big") % n

    def pick(self, options):
        return options[self.below(len(options))]


def label(text):
    return text.encode().ljust(16, b"\0")


def canonical(context):
    pairs = sorted((k.encode(), v.encode()) for k, v in context.items())
    out = len(pairs).to_bytes(2, "big")
    for key, value in pairs:
        out += len(key).to_bytes(2, "big") + key + len(value).to_bytes(2, "big") + value
    return out


def expand(key, info, length):
    return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(key)


def wrap(v, kek, version, iv):
    aad = (label("KW1 kekwrap") + bytes([1, 1, v["kind"], 1]) + v["key_id"] + v["tenant_id"]
           + version.to_bytes(4, "big"))
    return bytes([1, 0, 0, 0]) + version.to_bytes(4, "big") + iv + AESGCM(kek).encrypt(iv, v["dek"], aad)


def seal(v):
    """Fixed part of the header, items, exported keys."""
    first = bytes([1, 1, v["kind"], 0])
    info = (label("KW1 derive") + first + v["key_id"] + v["tenant_id"] + v["salt"]
            + hashlib.sha256(canonical(v["context"])).digest())
    okm = expand(v["dek"], info, 76)
    key, base, commitment = okm[:32], okm[32:44], okm[44:]
    items = []
    for index, (aad, plaintext) in enumerate(v["plain"]):
        nonce = base[:8] + bytes(a ^ b for a, b in zip(base[8:], index.to_bytes(4, "big")))
        items.append(index.to_bytes(4, "big") + AESGCM(key).encrypt(nonce, plaintext, aad))
    exported = {str(n): expand(key, label("KW1 export") + n.to_bytes(2, "big"), n).hex()
                for n in (16, 32, 64)}
    return first + v["key_id"] + v["salt"] + commitment, items, exported


def text(attached):
    import base64
    return "kw1." + base64.urlsafe_b64encode(attached).rstrip(b"=").decode()


SIZES = [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 255, 256, 257]
VERSIONS = [1, 2, 255, 256, 65535, 65536, 2**31, 2**32 - 1]
WORDS = ["app", "table", "row", "é", "日本", "", "a b", "\n", "z" * 63]


def context(draw, number):
    if number % 20 == 7:
        return {f"k{i:02}": draw.bytes(draw.below(20)).hex() for i in range(64)}
    return {draw.pick(WORDS) + str(i) * (i > 0): draw.pick(WORDS) for i in range(draw.below(5))}


def flip(data, bit):
    out = bytearray(data)
    out[bit // 8] ^= 1 << (bit % 8)
    return bytes(out)


def must_fail(draw, v, header, items, other):
    out = []

    def add(change, **fields):
        out.append({"change": change, **fields})

    # Byte 2 bit pattern 1 <-> 2 needs two flips, so one flipped bit anywhere must fail.
    for _ in range(4):
        bit = draw.below(len(header) * 8)
        add(f"header bit {bit} flipped", header=flip(header, bit).hex())
    if v["number"] % 10 == 0:
        for n in (0, 1, 67, 68, 76, 135, 137, 152, 272):
            add(f"header of {n} bytes", header=(header + header)[:n].hex())
        add("tail of another envelope", header=(header[:68] + other[68:]).hex())
        add("fixed part of another envelope", header=(other[:68] + header[68:]).hex())
        add("commitment of another envelope", header=(header[:36] + other[36:68] + header[68:]).hex())
        add("commitment all zero", header=(header[:36] + bytes(32) + header[68:]).hex())
        add("key version zero", header=(header[:72] + bytes(4) + header[76:]).hex())
        add("kind exchanged", header=(header[:2] + bytes([3 - v["kind"]]) + header[3:]).hex())
        add("another KEK", kek=draw.bytes(32).hex())
    add("another tenant", tenant_id=draw.bytes(16).hex())
    if v["context"]:
        key = sorted(v["context"])[0]
        less = {k: x for k, x in v["context"].items() if k != key}
        add("context: pair removed", context=less)
        add("context: value changed", context={**v["context"], key: v["context"][key] + "x"})
        add("context: key changed", context={**less, key + "x": v["context"][key]})
    else:
        add("context: an empty pair added", context={"": ""})
    if items:
        n = draw.below(len(items))
        item, (aad, _) = items[n], v["plain"][n]
        bit = 32 + draw.below((len(item) - 4) * 8)
        add(f"item {n} bit {bit} flipped", **{f"item_{n}": flip(item, bit).hex()})
        add(f"item {n} with another index", **{f"item_{n}": flip(item, draw.below(32)).hex()})
        add(f"item {n} one byte long", **{f"item_{n}": (item + b"\0").hex()})
        add(f"item {n} one byte short", **{f"item_{n}": item[:-1].hex()})
        add(f"item {n} empty", **{f"item_{n}": ""})
        add(f"item {n} with another AAD", **{f"aad_{n}": (aad + b"\0").hex()})
        if aad:
            add(f"item {n} without its AAD", **{f"aad_{n}": ""})
    return out


def vector(number, other):
    draw = Draw(f"Keywright vectors {number}")
    kind = 2 if number % 12 == 5 else 1
    count = 0 if kind == 2 else draw.pick([1, 1, 2, 3, 5])
    if number == 100:
        count = 300
    v = {
        "number": number,
        "kind": kind,
        "kek": draw.bytes(32),
        "key_version": draw.pick(VERSIONS),
        "dek": draw.bytes(32),
        "wrap_iv": draw.bytes(12),
        "key_id": draw.bytes(16),
        "tenant_id": draw.bytes(16),
        "salt": draw.bytes(16),
        "context": context(draw, number),
        "plain": [(draw.bytes(draw.pick([0, 0, 1, 8, 40])), draw.bytes(draw.pick(SIZES) if count < 9 else 4))
                  for _ in range(count)],
    }
    fixed, items, exported = seal(v)
    header = fixed + wrap(v, v["kek"], v["key_version"], v["wrap_iv"])
    out = {"name": f"keywright {number}"}
    for key in ("kind", "kek", "key_version", "dek", "wrap_iv", "key_id", "tenant_id", "salt", "context"):
        out[key] = v[key].hex() if isinstance(v[key], bytes) else v[key]
    out["header"] = header.hex()
    out["items"] = [{"aad": a.hex(), "plaintext": p.hex(), "item": i.hex()}
                    for (a, p), i in zip(v["plain"], items)]
    if items:
        out["text_of_item_0"] = text(header + items[0])
    else:
        out["exported"] = exported
    if number % 4 == 0:
        kek, iv, version = draw.bytes(32), draw.bytes(12), v["key_version"] % (2**32 - 1) + 1
        out["rewrapped"] = {"kek": kek.hex(), "key_version": version, "wrap_iv": iv.hex(),
                            "header": (fixed + wrap(v, kek, version, iv)).hex()}
    if number % 3 == 0 and other and count < 9:
        out["must_fail"] = must_fail(draw, v, header, items, other)
    return out, header


def main():
    vectors, other = [], None
    for number in range(1, 241):
        out, other = vector(number, other)
        vectors.append(out)
    lines = ",\n".join(json.dumps(v, ensure_ascii=False) for v in vectors)
    note = "made by generate.py beside this file; the shape is that of design.json"
    print('{"format": "Keywright envelope version 1", "note": %s, "vectors": [\n%s\n]}' % (json.dumps(note), lines))


if __name__ == "__main__":
    main()
