//! `keywright.v1.Crypto` over TLS on the fake token: round trips in every layout, one bad
//! item among good ones, limits, rewrap, re-encrypt, random.
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
mod failures;
mod lease;
mod leased;
mod limits;
mod moves;
mod seal;
mod token;

use bytes::Bytes;
use common::{Appliance, encrypt, pairs, reason};
use keywright_client::proto::{
    DecryptRequest, EncryptRequest, EncryptResponse, Form, GenerateRandomRequest, NewContext,
    Packed, ReencryptRequest, RewrapRequest,
};
use keywright_hsm::fake::Fault;
use keywright_service::config::Limits;
use tonic::Code;

const KEY: &str = "payments/cards";

fn packed(items: &[&[u8]]) -> Option<Packed> {
    let lengths = items
        .iter()
        .map(|i| u32::try_from(i.len()).unwrap())
        .collect();
    Some(Packed {
        data: items.concat().into(),
        lengths,
    })
}

fn unpack(packed: &Packed) -> Vec<Bytes> {
    let mut at = 0;
    packed
        .lengths
        .iter()
        .map(|n| {
            let item = packed.data.slice(at..at + *n as usize);
            at += *n as usize;
            item
        })
        .collect()
}

fn items(response: &EncryptResponse) -> Vec<Bytes> {
    response
        .packed_items
        .as_ref()
        .map_or_else(|| response.items.clone(), unpack)
}

/// A detached response as a request to open it.
fn decrypt(sealed: &EncryptResponse) -> DecryptRequest {
    DecryptRequest {
        header: sealed.header.clone(),
        items: items(sealed),
        ..Default::default()
    }
}
