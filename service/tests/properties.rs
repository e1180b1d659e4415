//! Properties of the envelope on a token: what was sealed opens, and nothing else does;
//! of the states of a key, against a table of its own; and of every small format.
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

use std::{collections::BTreeMap, io::Write, sync::Arc};

use keywright_hsm::{
    Connector, Dek, KeyProof, KeyRef, KeySpec, Lane, ObjectId, Token, WrappedDek, fake::FakeDevice,
};
use keywright_service::{
    envelope::{Binding, Context, Header, ITEM_OVERHEAD, Kind, Opener, Schedule, wrap_aad},
    key::{
        Key, KeyId, KeyName, KeyState, KeyUse, KeyVersion, Labels, Rules, TenantId, VersionNumber,
        WrapCounter,
    },
    ops::Strings,
};
use proptest::{prelude::*, test_runner::TestRunner};
use sha2::{Digest, Sha256};

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

/// Runs a property so often and counts it.
fn property<S: Strategy>(
    total: &mut u32,
    cases: u32,
    strategy: S,
    holds: impl Fn(S::Value) -> Result<(), TestCaseError>,
) where
    S::Value: std::fmt::Debug,
{
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases));
    runner.run(&strategy, holds).unwrap();
    *total += cases;
}

#[test]
fn states_and_formats() {
    let mut n = 0;
    property(&mut n, 50_000, moves(), states_follow_the_table);
    property(&mut n, 15_000, header_bytes(), headers_read_and_write);
    property(&mut n, 5_000, pairs(), contexts_have_one_form);
    property(&mut n, 15_000, "[a-c/A_ -]{0,9}", names_are_paths);
    let long = "[a-z0-9]{60,66}(/[a-z0-9]{60,66}){0,4}";
    property(&mut n, 5_000, long, names_are_paths);
    let packed = (
        proptest::collection::vec(0u32..5, 0..6),
        0usize..12,
        any::<bool>(),
    );
    property(&mut n, 10_000, packed, packed_strings_add_up);
    let label = ("[a-bA._-]{0,3}", "[a-b\n ]{0,3}");
    property(&mut n, 5_000, label, labels_are_checked);
    let rules = (0..4000u32, any::<u64>(), any::<u64>(), 0..64u32);
    property(&mut n, 5_000, rules, rules_are_checked);
    // Past the capture of the test harness: the number is part of the result.
    let line = format!("properties: {n} cases of states and formats, 0 failed\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    assert!(n >= 100_000);
}

/// A move: which version (0: all), what, and to where.
type Move = (u32, u8, usize);

fn moves() -> impl Strategy<Value = Vec<Move>> {
    proptest::collection::vec((0u32..4, 0u8..6, 0usize..6), 1..14)
}

fn fresh(number: u32) -> KeyVersion {
    KeyVersion {
        number: VersionNumber::new(number).unwrap(),
        state: KeyState::Active,
        destroy_at_ms: None,
        brown_out_until_ms: None,
        on_token: KeyRef {
            object: ObjectId([0; 16]),
            spec: KeySpec::Aes256,
            proof: KeyProof::Wrapped(WrappedDek([0; 60])),
        },
        token_serial: String::new(),
        created_ms: 0,
        wraps: Arc::new(WrapCounter::new(0)),
        used: Arc::default(),
        lease: Arc::default(),
    }
}

/// The table of SP 800-57 once more, one letter for each state: Pre-activation, Active,
/// Suspended, Deactivated, Compromised, X destroyed.
const LEGAL: [&str; 15] = [
    "PA", "PC", "PX", "AS", "AD", "AC", "SA", "SD", "SC", "SX", "DA", "DS", "DC", "DX", "CX",
];
const LETTERS: [char; 6] = ['P', 'A', 'S', 'D', 'C', 'X'];

fn letter(state: KeyState) -> char {
    let all = KeyState::ALL.iter().zip(LETTERS);
    all.filter(|(s, _)| **s == state)
        .map(|(_, l)| l)
        .next()
        .unwrap()
}

/// Any moves at all: the key goes where the table says, and nowhere else.
fn states_follow_the_table(moves: Vec<Move>) -> Result<(), TestCaseError> {
    let name = KeyName::parse("k").unwrap();
    let (id, tenant) = (KeyId([1; 16]), TenantId([2; 16]));
    let mut key = Key::new(
        id,
        tenant,
        name,
        KeySpec::Aes256,
        Labels::default(),
        fresh(1),
    );
    // State and whether it is scheduled; version i + 1 at i.
    let mut model = vec![('A', false)];
    let (mut primary, mut minimum, mut revision) = (1u32, 1u32, 1u64);
    for (number, what, to) in moves {
        let only = Some(number).filter(|n| *n != 0);
        let chosen: Vec<usize> = (0..model.len())
            .filter(|i| only.is_none_or(|n| n as usize == i + 1))
            .collect();
        let mut next = model.clone();
        let mut can = false;
        let made = match what {
            0 => {
                next.push(('A', false));
                primary = u32::try_from(next.len()).unwrap();
                can = true;
                revision += 1;
                key.with_version(fresh(primary)).promoted(0)
            }
            1 => {
                let legal = |from: char| LEGAL.contains(&format!("{from}{}", LETTERS[to]).as_str());
                for i in &chosen {
                    let (state, scheduled) = model[*i];
                    if legal(state) && (!scheduled || LETTERS[to] == 'C') {
                        next[*i].0 = LETTERS[to];
                        can = true;
                    }
                }
                key.moved(only, KeyState::ALL[to]).map(|(k, _)| k)
            }
            2 => {
                for i in &chosen {
                    let (state, scheduled) = model[*i];
                    if "PSDC".contains(state) && !scheduled {
                        next[*i].1 = true;
                        can = true;
                    }
                }
                can &= chosen.iter().all(|i| model[*i].0 != 'A');
                key.scheduled(only, 9).map(|(k, _)| k)
            }
            3 => {
                for i in &chosen {
                    can |= std::mem::take(&mut next[*i].1);
                }
                key.spared(only).map(|(k, _)| k)
            }
            4 => {
                can = only.is_some() && !chosen.is_empty() && model[chosen[0]].1;
                if can {
                    next[chosen[0]] = ('X', false);
                }
                key.destroyed(number).map(|(k, _)| k)
            }
            _ => {
                can = !chosen.is_empty();
                if let (true, Some(wanted)) = (can, only) {
                    minimum = wanted;
                }
                key.updated(None, None, only)
            }
        };
        prop_assert_eq!(made.is_ok(), can, "{} {} {}", number, what, to);
        if let Ok(made) = made {
            (key, model) = (made, next);
            revision += 1;
        }
        prop_assert_eq!(key.revision.0, revision);
        prop_assert_eq!(key.primary.get(), primary);
        let seen: Vec<(char, bool)> = key
            .versions()
            .map(|v| (letter(v.state), v.destroy_at_ms.is_some()))
            .collect();
        prop_assert_eq!(&seen, &model);
        let protects = key.to_protect(KeyUse::Encrypt).is_ok();
        prop_assert_eq!(protects, model[primary as usize - 1].0 == 'A');
        for (n, (state, scheduled)) in (1u32..).zip(&model) {
            let may = "AD".contains(*state) && !scheduled && n >= minimum;
            prop_assert_eq!(key.to_process(KeyUse::Encrypt, n).is_ok(), may);
            prop_assert!(key.to_process(KeyUse::Sign, n).is_err());
        }
    }
    Ok(())
}

/// Mostly right constants, so that some are headers.
fn header_bytes() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 136..=136);
    let constants = (1u8..=2, any::<bool>(), 0usize..12, 0usize..8, -1isize..=1);
    (body, constants).prop_map(|(mut bytes, (kind, keep, wrong, of, size))| {
        bytes[..4].copy_from_slice(&[1, 1, kind, 0]);
        bytes[68..72].copy_from_slice(&[1, 0, 0, 0]);
        if wrong == 0 {
            bytes[72..76].fill(0);
        } else if wrong < 4 {
            bytes[[0, 1, 2, 3, 68, 69, 70, 71][of]] ^= 4;
        }
        if !keep {
            bytes.resize(136_usize.saturating_add_signed(size), 0);
        }
        bytes
    })
}

fn headers_read_and_write(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let legal = bytes.len() == 136
        && bytes[..2] == [1, 1]
        && [1, 2].contains(&bytes[2])
        && bytes[3] == 0
        && bytes[68..72] == [1, 0, 0, 0]
        && bytes[72..76] != [0; 4];
    let parsed = Header::parse(&bytes);
    prop_assert_eq!(parsed.is_ok(), legal);
    let Ok(header) = parsed else { return Ok(()) };
    prop_assert_eq!(&header.as_bytes()[..], &bytes[..]);
    let version = u32::from_be_bytes(bytes[72..76].try_into().unwrap());
    prop_assert_eq!(header.key_version(), version);
    let again = Header::assemble(
        header.kind(),
        header.key_id(),
        header.salt(),
        header.commitment(),
        VersionNumber::new(version).unwrap(),
        &header.wrapped(),
    );
    prop_assert_eq!(again, header);
    Ok(())
}

/// The canonical form of docs/envelope.md, written out.
fn contexts_have_one_form(pairs: BTreeMap<String, String>) -> Result<(), TestCaseError> {
    let mut form = u16::try_from(pairs.len()).unwrap().to_be_bytes().to_vec();
    for text in pairs.iter().flat_map(|(k, v)| [k, v]) {
        form.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        form.extend(text.as_bytes());
    }
    let digest: [u8; 32] = Sha256::digest(&form).into();
    let made = context(&pairs);
    prop_assert_eq!(made.digest(), &digest);
    Ok(())
}

fn names_are_paths(text: String) -> Result<(), TestCaseError> {
    let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |s: &str| {
        s.len() <= 63 && s.starts_with(first) && s.chars().all(|c| first(c) || c == '-' || c == '_')
    };
    let legal = text.len() <= 255 && text.split('/').all(segment);
    let parsed = KeyName::parse(&text);
    prop_assert_eq!(parsed.is_ok(), legal, "{:?}", text);
    prop_assert!(parsed.is_err() || parsed.unwrap().as_str() == text);
    Ok(())
}

fn packed_strings_add_up(
    (lengths, bytes, fit): (Vec<u32>, usize, bool),
) -> Result<(), TestCaseError> {
    let sum: usize = lengths.iter().map(|n| *n as usize).sum();
    let data: Vec<u8> = (0..if fit { sum } else { bytes })
        .map(|i| i as u8)
        .collect();
    let strings = Strings::packed(data.clone().into(), &lengths, "f");
    prop_assert_eq!(strings.is_ok(), data.len() == sum);
    let Ok(strings) = strings else { return Ok(()) };
    prop_assert_eq!((strings.len(), strings.total_bytes()), (lengths.len(), sum));
    let mut rest = &data[..];
    for (i, length) in lengths.iter().enumerate() {
        let (one, after) = rest.split_at(*length as usize);
        prop_assert_eq!(strings.get(i), one);
        rest = after;
    }
    prop_assert!(strings.get(lengths.len()).is_empty());
    Ok(())
}

fn labels_are_checked((key, value): (String, String)) -> Result<(), TestCaseError> {
    let legal = !key.is_empty() && !key.contains('A') && !value.contains('\n');
    let pairs = BTreeMap::from([(key, value)]);
    let labels = Labels::new(pairs.clone());
    prop_assert_eq!(labels.is_ok(), legal);
    prop_assert!(labels.is_err() || *labels.unwrap().pairs() == pairs);
    Ok(())
}

fn rules_are_checked(
    (days, wraps, limit, shift): (u32, u64, u64, u32),
) -> Result<(), TestCaseError> {
    let (wraps, limit) = (wraps >> shift, limit >> shift);
    let rules = Rules {
        rotate_after_days: Some(days),
        rotate_after_wraps: Some(wraps),
        wrap_limit: Some(limit),
        ..Rules::default()
    };
    let legal = (1..=3650).contains(&days)
        && (1..=1 << 30).contains(&wraps)
        && (65_536..=(1 << 32) - 65_536).contains(&limit);
    prop_assert_eq!(rules.check().is_ok(), legal);
    Ok(())
}
