//! The ciphertext format, bit for bit: every JSON file of `KEYWRIGHT_VECTORS_DIR`
//! (default: `service/testdata/envelope`), the positive vectors and every `must_fail`.
//!
//! Each positive vector is also opened by an oracle that shares no code with
//! Keywright: RustCrypto's `aes-gcm` and `hkdf` instead of aws-lc, and the format
//! written down a second time. A file that cannot be read is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "this is a test"
)]

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use keywright_hsm::{Dek, WrappedDek};
use keywright_service::{
    envelope::{Binding, Context, Header, ITEM_OVERHEAD, Kind, Schedule, wrap_aad},
    key::{KeyId, TenantId, VersionNumber},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

#[test]
fn envelope_vectors() {
    let dir = env::var_os("KEYWRIGHT_VECTORS_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/envelope"),
        PathBuf::from,
    );
    let (mut files, mut positive, mut negative) = (0, 0, 0);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    for path in entries.map(|e| e.unwrap().path()) {
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(
            json["format"],
            "Keywright envelope version 1",
            "{}",
            path.display()
        );
        files += 1;
        for vector in json["vectors"].as_array().unwrap() {
            let name = format!("{}: {}", path.display(), vector["name"]);
            check_positive(vector, &name);
            positive += 1;
            for change in vector["must_fail"].as_array().into_iter().flatten() {
                check_negative(vector, change, &name);
                negative += 1;
            }
        }
    }
    assert!(files > 0 && positive > 0, "no vectors in {}", dir.display());
    println!("{files} files, {positive} positive, {negative} negative");
}

/// What a vector says, or what it says after a change.
struct Vector<'a> {
    base: &'a Value,
    change: Option<&'a Value>,
}

impl Vector<'_> {
    fn field(&self, name: &str) -> &Value {
        self.change
            .and_then(|c| c.get(name))
            .unwrap_or(&self.base[name])
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        unhex(self.field(name))
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap()
    }

    fn kind(&self) -> Kind {
        match self.base["kind"].as_u64().unwrap() {
            1 => Kind::Items,
            2 => Kind::DataKey,
            other => panic!("kind {other}"),
        }
    }

    fn version(&self) -> VersionNumber {
        VersionNumber::new(u32::try_from(self.base["key_version"].as_u64().unwrap()).unwrap())
            .unwrap()
    }

    fn tenant(&self) -> TenantId {
        TenantId(self.array("tenant_id"))
    }

    fn key_id(&self) -> KeyId {
        KeyId(self.array("key_id"))
    }

    fn pairs(&self) -> BTreeMap<String, String> {
        serde_json::from_value(self.field("context").clone()).unwrap()
    }

    fn context(&self) -> Context {
        Context::new(&self.pairs()).unwrap()
    }

    /// AAD, plaintext and item of each item, after the change.
    fn items(&self) -> Vec<[Vec<u8>; 3]> {
        let items = self.base["items"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate();
        items
            .map(|(i, item)| {
                let changed = |field: &str| {
                    self.change
                        .and_then(|c| c.get(format!("{field}_{i}")))
                        .map_or_else(|| unhex(&item[field]), unhex)
                };
                [changed("aad"), unhex(&item["plaintext"]), changed("item")]
            })
            .collect()
    }
}

fn unhex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn dek(bytes: &[u8]) -> Dek {
    Dek::take(&mut bytes.try_into().unwrap())
}

/// The HSM's part, in software.
fn wrap(kek: &[u8], iv: &[u8; 12], aad: &[u8], dek: &[u8]) -> WrappedDek {
    let cipher = Aes256Gcm::new_from_slice(kek).unwrap();
    let sealed = cipher
        .encrypt(iv.into(), Payload { msg: dek, aad })
        .unwrap();
    WrappedDek::join(iv, sealed.as_slice().try_into().unwrap())
}

fn unwrap(kek: &[u8], aad: &[u8], wrapped: &WrappedDek) -> Option<Vec<u8>> {
    let (iv, sealed) = wrapped.parts();
    let cipher = Aes256Gcm::new_from_slice(kek).unwrap();
    cipher.decrypt(iv.into(), Payload { msg: sealed, aad }).ok()
}

fn check_positive(vector: &Value, name: &str) {
    let v = Vector {
        base: vector,
        change: None,
    };
    let context = v.context();
    let (key_id, tenant, version) = (v.key_id(), v.tenant(), v.version());

    // What we would write.
    let binding = Binding {
        kind: v.kind(),
        key_id,
        tenant,
        salt: v.array("salt"),
        context: &context,
    };
    let schedule = Schedule::derive(&dek(&v.bytes("dek")), &binding).unwrap();
    let aad = wrap_aad(v.kind(), key_id, tenant, version);
    let wrapped = wrap(&v.bytes("kek"), &v.array("wrap_iv"), &aad, &v.bytes("dek"));
    let header = Header::assemble(
        v.kind(),
        key_id,
        binding.salt,
        schedule.commitment(),
        version,
        &wrapped,
    );
    assert_eq!(
        hex::encode(header.as_bytes()),
        vector["header"],
        "{name}: header"
    );
    if v.kind() == Kind::DataKey {
        check_export(vector, &schedule, name);
    }
    let mut sealer = schedule.sealer().unwrap();
    for (i, [aad, plaintext, item]) in v.items().iter().enumerate() {
        let mut out = vec![0; plaintext.len() + ITEM_OVERHEAD];
        sealer.seal(aad, plaintext, &mut out).unwrap();
        assert_eq!(&out, item, "{name}: item {i}");
    }

    // What we read.
    assert_eq!(
        open(&v),
        Some(v.items().into_iter().map(|[_, p, _]| p).collect()),
        "{name}"
    );
    oracle::check(&v, name);
    check_text(&v, name);
    check_rewrapped(&v, &header, name);
}

fn check_export(vector: &Value, schedule: &Schedule, name: &str) {
    for (len, expected) in vector["exported"].as_object().unwrap() {
        let mut out = vec![0; len.parse().unwrap()];
        schedule.export(&mut out).unwrap();
        assert_eq!(hex::encode(&out), *expected, "{name}: exported {len}");
    }
}

fn check_text(v: &Vector<'_>, name: &str) {
    if let Some(text) = v.base.get("text_of_item_0") {
        let mut attached = v.bytes("header");
        attached.extend_from_slice(&v.items()[0][2]);
        let ours = format!("kw1.{}", BASE64_URL_SAFE_NO_PAD.encode(attached));
        assert_eq!(ours, text.as_str().unwrap(), "{name}: text");
    }
}

fn check_rewrapped(v: &Vector<'_>, before: &Header, name: &str) {
    let Some(after) = v.base.get("rewrapped") else {
        return;
    };
    let version =
        VersionNumber::new(u32::try_from(after["key_version"].as_u64().unwrap()).unwrap()).unwrap();
    let aad = wrap_aad(v.kind(), v.key_id(), v.tenant(), version);
    let iv: [u8; 12] = unhex(&after["wrap_iv"]).try_into().unwrap();
    let wrapped = wrap(&unhex(&after["kek"]), &iv, &aad, &v.bytes("dek"));
    let moved = before.with_wrap(version, &wrapped);
    assert_eq!(
        hex::encode(moved.as_bytes()),
        after["header"],
        "{name}: rewrapped"
    );
    assert_eq!(
        moved.as_bytes()[..68],
        before.as_bytes()[..68],
        "{name}: fixed part"
    );
    // The payload opens under the new header as it is.
    let change = serde_json::json!({ "header": after["header"], "kek": after["kek"] });
    let v = Vector {
        base: v.base,
        change: Some(&change),
    };
    assert_eq!(
        open(&v),
        Some(v.items().into_iter().map(|[_, p, _]| p).collect()),
        "{name}"
    );
}

fn check_negative(vector: &Value, change: &Value, name: &str) {
    for field in change.as_object().unwrap().keys() {
        let known = matches!(
            field.as_str(),
            "change" | "header" | "tenant_id" | "context" | "kek"
        ) || field.starts_with("item_")
            || field.starts_with("aad_");
        assert!(
            known,
            "{name}: this test does not know how to change {field:?}"
        );
    }
    let v = Vector {
        base: vector,
        change: Some(change),
    };
    assert_eq!(open(&v), None, "{name}: {} was accepted", change["change"]);
}

/// Header to plaintexts, the way the service does it; `None` when anything is refused.
fn open(v: &Vector<'_>) -> Option<Vec<Vec<u8>>> {
    let header = Header::parse(&v.bytes("header")).ok()?;
    // The service finds the tenant, and with it the wrap AAD, by the key id.
    let version = VersionNumber::new(header.key_version())?;
    let aad = wrap_aad(header.kind(), header.key_id(), v.tenant(), version);
    let dek = dek(&unwrap(&v.bytes("kek"), &aad, &header.wrapped())?);
    let opener = Schedule::verify(&dek, &header, v.tenant(), &v.context())
        .ok()?
        .opener()
        .ok()?;
    let mut plaintexts = Vec::new();
    for [aad, _, item] in v.items() {
        let mut out = vec![0xee; item.len().checked_sub(ITEM_OVERHEAD)?];
        let result = opener.open(&aad, &item, &mut out);
        if result.is_err() {
            assert!(
                out.iter().all(|b| *b == 0),
                "output must be zeroed on failure"
            );
        }
        result.ok()?;
        plaintexts.push(out);
    }
    Some(plaintexts)
}

/// The format a second time, from `docs/envelope.md`, on other crates.
mod oracle {
    use super::*;

    pub(super) fn check(v: &Vector<'_>, name: &str) {
        let header = v.bytes("header");
        let mut aad = label("KW1 kekwrap");
        aad.extend(&header[0..3]);
        aad.push(header[68]);
        aad.extend(&header[4..20]);
        aad.extend(v.bytes("tenant_id"));
        aad.extend(&header[72..76]);
        let kek = Aes256Gcm::new_from_slice(&v.bytes("kek")).unwrap();
        let dek = gcm_open(&kek, &header[76..88], &aad, &header[88..136]);
        assert_eq!(dek, v.bytes("dek"), "{name}: oracle's DEK");

        let mut info = label("KW1 derive");
        info.extend(&header[0..20]);
        info.extend(v.bytes("tenant_id"));
        info.extend(&header[20..36]);
        info.extend(Sha256::digest(canonical(&v.pairs())));
        let mut okm = [0; 76];
        Hkdf::<Sha256>::from_prk(&dek)
            .unwrap()
            .expand(&info, &mut okm)
            .unwrap();
        assert_eq!(okm[44..], header[36..68], "{name}: oracle's commitment");

        let cipher = Aes256Gcm::new_from_slice(&okm[..32]).unwrap();
        for [aad, plaintext, item] in v.items() {
            let mut nonce: [u8; 12] = okm[32..44].try_into().unwrap();
            for (n, i) in nonce[8..].iter_mut().zip(&item[..4]) {
                *n ^= i;
            }
            assert_eq!(
                gcm_open(&cipher, &nonce, &aad, &item[4..]),
                plaintext,
                "{name}: oracle"
            );
        }
    }

    fn gcm_open(cipher: &Aes256Gcm, iv: &[u8], aad: &[u8], msg: &[u8]) -> Vec<u8> {
        let iv: [u8; 12] = iv.try_into().unwrap();
        cipher.decrypt(&iv.into(), Payload { msg, aad }).unwrap()
    }

    fn label(text: &str) -> Vec<u8> {
        let mut out = text.as_bytes().to_vec();
        out.resize(16, 0);
        out
    }

    fn canonical(pairs: &BTreeMap<String, String>) -> Vec<u8> {
        let mut out = u16::try_from(pairs.len()).unwrap().to_be_bytes().to_vec();
        for text in pairs.iter().flat_map(|(k, v)| [k, v]) {
            out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            out.extend(text.as_bytes());
        }
        out
    }
}
