//! Signatures, MACs, OAEP and data keys over TLS on the fake token, checked with
//! libraries that share no code with the service.
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

#[path = "../common/mod.rs"]
mod common;
mod data_keys;
mod macs;
mod signatures;

use bytes::Bytes;
use common::{Appliance, encrypt, pairs, reason};
use keywright_client::{
    Client,
    proto::{self, *},
};
use tonic::Code;

/// An appliance, its user, and a key made by its administrator.
async fn with_key(spec: KeySpec, key_use: KeyUse) -> (Appliance, Client) {
    let it = Appliance::start().await;
    create(&it, "k", spec, key_use).await;
    let user = it.client("red", "user").await;
    (it, user)
}

async fn create(it: &Appliance, name: &str, spec: KeySpec, key_use: KeyUse) {
    let request = CreateKeyRequest {
        name: name.into(),
        spec: spec.into(),
        r#use: key_use.into(),
        ..Default::default()
    };
    let admin = it.client("red", "admin").await;
    admin.keys().create_key(request).await.unwrap();
}

async fn rotate(it: &Appliance) {
    let request = RotateKeyRequest { name: "k".into() };
    let admin = it.client("red", "admin").await;
    admin.keys().rotate_key(request).await.unwrap();
}

async fn public(user: &Client, version: u32) -> GetPublicKeyResponse {
    let request = GetPublicKeyRequest {
        name: "k".into(),
        version,
    };
    user.keys()
        .get_public_key(request)
        .await
        .unwrap()
        .into_inner()
}

fn bytes(items: &[&[u8]]) -> Vec<Bytes> {
    items.iter().map(|i| Bytes::copy_from_slice(i)).collect()
}
