//! Properties of the envelope on a token: what was sealed opens, and nothing else does.
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

use std::collections::BTreeMap;

use keywright_hsm::{Connector, Dek, KeyRef, KeySpec, Lane, ObjectId, Token, fake::FakeDevice};
use keywright_service::{
    envelope::{Binding, Context, Header, ITEM_OVERHEAD, Kind, Opener, Schedule, wrap_aad},
    key::{KeyId, TenantId, VersionNumber},
};
use proptest::prelude::*;

/// A key version on the fake token.
struct Place {
    tenant: TenantId,
    key: KeyId,
    version: VersionNumber,
    on_token: KeyRef,
}

/// An envelope with its items.
struct Sealed {
    header: Header,
    items: Vec<Vec<u8>>,
}

fn place(token: &mut dyn Token, tenant: u8, key: u8, version: u32) -> Place {
    let id = ObjectId::random().unwrap();
    Place {
        tenant: TenantId([tenant; 16]),
        key: KeyId([key; 16]),
        version: VersionNumber::new(version).unwrap(),
        on_token: token.generate(id, KeySpec::Aes256, "p").unwrap().key,
    }
}

fn context(pairs: &BTreeMap<String, String>) -> Context {
    Context::new(pairs).unwrap()
}

fn seal(
    token: &mut dyn Token,
    at: &Place,
    salt: [u8; 16],
    context: &Context,
    items: &[(Vec<u8>, Vec<u8>)],
) -> Sealed {
    let mut bytes = [0; 32];
    token.random(&mut bytes).unwrap();
    let dek = Dek::take(&mut bytes);
    let aad = wrap_aad(Kind::Items, at.key, at.tenant, at.version);
    let wrapped = token.wrap(&at.on_token, &aad, &dek).unwrap();
    let binding = Binding {
        kind: Kind::Items,
        key_id: at.key,
        tenant: at.tenant,
        salt,
        context,
    };
    let schedule = Schedule::derive(&dek, &binding).unwrap();
    let header = Header::assemble(
        Kind::Items,
        at.key,
        salt,
        schedule.commitment(),
        at.version,
        &wrapped,
    );
    let mut sealer = schedule.sealer().unwrap();
    let items = items
        .iter()
        .map(|(aad, plaintext)| {
            let mut out = vec![0; plaintext.len() + ITEM_OVERHEAD];
            sealer.seal(aad, plaintext, &mut out).unwrap();
            out
        })
        .collect();
    Sealed { header, items }
}

/// As the service does it: the wrap AAD comes from where the caller is, not from the
/// header.
fn opener(token: &mut dyn Token, at: &Place, context: &Context, header: &Header) -> Option<Opener> {
    let version = VersionNumber::new(header.key_version())?;
    let aad = wrap_aad(header.kind(), header.key_id(), at.tenant, version);
    let dek = token.unwrap(&at.on_token, &aad, &header.wrapped()).ok()?;
    Schedule::verify(&dek, header, at.tenant, context)
        .ok()?
        .opener()
        .ok()
}

fn open(opener: &Opener, aad: &[u8], item: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; item.len().checked_sub(ITEM_OVERHEAD)?];
    opener.open(aad, item, &mut out).ok()?;
    Some(out)
}

/// Every tenant × key × context × item against every other: what belongs together opens,
/// nothing else does.
#[test]
fn swap_matrix() {
    const N: u8 = 4;
    const ITEMS: usize = 8;
    let device = FakeDevice::new();
    let mut token = device.connect(Lane::Admin).unwrap();
    let contexts: Vec<Context> = [
        BTreeMap::new(),
        BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        BTreeMap::from([("ab".to_owned(), String::new())]),
        BTreeMap::from([
            ("a".to_owned(), String::new()),
            ("b".to_owned(), String::new()),
        ]),
    ]
    .iter()
    .map(context)
    .collect();
    let mut places = Vec::new();
    for tenant in 1..=N {
        for key in 1..=N {
            places.push(place(token.as_mut(), tenant, key, 1));
        }
    }
    let items: Vec<(Vec<u8>, Vec<u8>)> = (0..ITEMS)
        .map(|i| (vec![u8::try_from(i).unwrap()], vec![9; i]))
        .collect();
    // The same salt everywhere: the other bindings must do without it.
    let salt = [5; 16];
    let mut all = Vec::new();
    for (p, at) in places.iter().enumerate() {
        for (c, context) in contexts.iter().enumerate() {
            all.push((p, c, seal(token.as_mut(), at, salt, context, &items)));
        }
    }
    let (mut opened, mut refused) = (0, 0);
    for (p, c, sealed) in &all {
        for (there, at) in places.iter().enumerate() {
            for (wanted, context) in contexts.iter().enumerate() {
                let opener = opener(token.as_mut(), at, context, &sealed.header);
                let same = there == *p && wanted == *c;
                assert_eq!(opener.is_some(), same, "{p}/{c} opened as {there}/{wanted}");
                refused += usize::from(!same);
                let Some(opener) = opener else { continue };
                // Items of every envelope, with the AAD of every item.
                for (p2, c2, other) in &all {
                    for (i, item) in other.items.iter().enumerate() {
                        for (j, (aad, plaintext)) in items.iter().enumerate() {
                            let out = open(&opener, aad, item);
                            let own = p2 == p && c2 == c && i == j;
                            assert_eq!(out.as_ref(), own.then_some(plaintext));
                            opened += usize::from(own);
                            refused += usize::from(!own);
                        }
                    }
                }
            }
        }
    }
    assert_eq!(opened, 64 * ITEMS);
    assert!(refused > 250_000, "{refused}");
}

fn pairs() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(".{0,12}", ".{0,12}", 0..6)
}

fn batch() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..80);
    proptest::collection::vec((bytes(), bytes()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Round trip; and after a rewrap to another version the payload opens as it is.
    #[test]
    fn what_was_sealed_opens_also_after_rewrap(
        context_pairs in pairs(),
        items in batch(),
        salt in any::<[u8; 16]>(),
        version in 1u32..,
    ) {
        let device = FakeDevice::new();
        let mut token = device.connect(Lane::Admin).unwrap();
        let old = place(token.as_mut(), 1, 2, version);
        let context = context(&context_pairs);
        let sealed = seal(token.as_mut(), &old, salt, &context, &items);
        let parsed = Header::parse(sealed.header.as_bytes()).unwrap();
        prop_assert_eq!(parsed, sealed.header);

        let new = place(token.as_mut(), 1, 2, version.checked_add(1).unwrap_or(1));
        let aad = |at: &Place| wrap_aad(Kind::Items, at.key, at.tenant, at.version);
        let dek = token.unwrap(&old.on_token, &aad(&old), &sealed.header.wrapped()).unwrap();
        let wrapped = token.wrap(&new.on_token, &aad(&new), &dek).unwrap();
        let moved = sealed.header.with_wrap(new.version, &wrapped);
        prop_assert_eq!(&moved.as_bytes()[..68], &sealed.header.as_bytes()[..68]);

        for (at, header) in [(&old, &sealed.header), (&new, &moved)] {
            let opener = opener(token.as_mut(), at, &context, header).unwrap();
            for ((aad, plaintext), item) in items.iter().zip(&sealed.items) {
                let out = open(&opener, aad, item);
                prop_assert_eq!(out.as_ref(), Some(plaintext));
            }
        }
        // The old wrap does not pass for the new version, nor the other way round.
        prop_assert!(opener(token.as_mut(), &new, &context, &sealed.header).is_none());
        prop_assert!(opener(token.as_mut(), &old, &context, &moved).is_none());
    }

    /// One flipped bit anywhere in header, item or AAD.
    #[test]
    fn one_flipped_bit_is_refused(
        items in batch(),
        pick in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
        what in 0..3,
    ) {
        let device = FakeDevice::new();
        let mut token = device.connect(Lane::Admin).unwrap();
        let at = place(token.as_mut(), 1, 2, 3);
        let context = context(&BTreeMap::new());
        let sealed = seal(token.as_mut(), &at, [7; 16], &context, &items);
        let n = pick.index(items.len());
        let (mut aad, mut item) = (items[n].0.clone(), sealed.items[n].clone());
        let mut header = *sealed.header.as_bytes();
        let flip = |bytes: &mut [u8]| {
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        };
        match what {
            0 => flip(&mut header),
            1 => flip(&mut item),
            _ if aad.is_empty() => aad.push(0),
            _ => flip(&mut aad),
        }
        let opened = Header::parse(&header)
            .ok()
            .filter(|h| h.key_id() == at.key)
            .and_then(|h| opener(token.as_mut(), &at, &context, &h))
            .and_then(|o| open(&o, &aad, &item));
        prop_assert_eq!(opened, None);
    }
}
