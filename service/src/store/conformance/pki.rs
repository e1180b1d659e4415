//! What every [`PkiStore`](crate::store::PkiStore) must do.

use keywright_hsm::{Curve, KeyProof, KeyRef, ObjectId, PublicKey};
use keywright_pki::{KeyReuse, Serial};

use super::tenant;
use crate::{
    authority::{
        AuthorityName, CertificateRef, CertificateState, CrlRecord, Intended, Issuer, IssuerId,
        ProfileRecord, Reason, Responder, Revocation, Stage, Usage,
    },
    key::{KeySpec, Revision, TenantId},
    store::{KeyStanding, Search, Store, StoreError, Write, Written},
};

fn name(text: &str) -> AuthorityName {
    AuthorityName::parse(text).unwrap()
}

pub(crate) fn issuer() -> Issuer {
    let spec = KeySpec::Ec(Curve::P256);
    let pair = rcgen::KeyPair::generate().unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
    Issuer {
        id: IssuerId([1; 16]),
        tenant: tenant().id,
        name: name("int-a"),
        stage: Stage::Planned,
        text: "the text".into(),
        key: KeyRef {
            object: ObjectId([9; 16]),
            spec,
            proof: KeyProof::Public(PublicKey::from_spki(spec, &spki).unwrap()),
        },
        token_serial: "cafe".into(),
        serial: Serial::from_random([3; Serial::RANDOM_LEN]),
        digest: [4; 32],
        approvals: vec!["spiffe://a/b".into()],
        created_by: "spiffe://a/c".into(),
        created_ms: 1000,
        certificate: Vec::new(),
        chain: Vec::new(),
        usage: Usage::default(),
        alarm: String::new(),
        revision: Revision(1),
    }
}

pub(crate) fn profile() -> ProfileRecord {
    ProfileRecord {
        tenant: tenant().id,
        name: name("p"),
        version: 1,
        text: "t".into(),
        created_by: "me".into(),
        created_ms: 7,
        retired_ms: None,
    }
}

pub(super) fn intended(n: u8, request_key: &str) -> Intended {
    let name_ = CertificateRef {
        issuer: issuer().id,
        serial: Serial::from_random([n; Serial::RANDOM_LEN]),
    };
    Intended {
        name: name_,
        tenant: tenant().id,
        profile: name("service-tls"),
        profile_version: 1,
        tbs: vec![n; 3],
        spki: [n; 32],
        names: vec![format!("n{n}.example"), "all.example".into()],
        not_before_ms: 5,
        not_after_ms: 10_000 + i64::from(n),
        shard: 2,
        requested_by: "spiffe://a/b".into(),
        request_key: request_key.into(),
        request_sha256: [n; 32],
        lineage: vec![n],
        created_ms: 100,
    }
}

pub(super) fn begin(intended: &Intended, requests_since_ms: i64, reuse: KeyReuse) -> Write {
    Write::Begin {
        intended: Box::new(intended.clone()),
        requests_since_ms,
        reuse,
    }
}

pub(super) async fn one(store: &dyn Store, write: Write) -> Written {
    store.write_certificates(&[write]).await.unwrap().remove(0)
}

const LATER: KeyReuse = KeyReuse::ForbidAfterRevocation;

pub(super) async fn run(store: &dyn Store) {
    authorities(store).await;
    certificates(store).await;
    searches(store).await;
    responders(store).await;
}

async fn authorities(store: &dyn Store) {
    let planned = issuer();
    store.add_issuer(&planned).await.unwrap();
    let again = store.add_issuer(&planned).await;
    assert!(matches!(again, Err(StoreError::Exists)));
    let mut next = planned;
    next.stage = Stage::Waiting;
    next.chain = vec![vec![1, 2], vec![3]];
    next.usage = Usage {
        issue: true,
        crl: false,
    };
    next.alarm = "why".into();
    next.revision = Revision(2);
    store.change_issuer(&next).await.unwrap();
    let again = store.change_issuer(&next).await;
    assert!(matches!(again, Err(StoreError::Conflict)));

    let mut profile = profile();
    store.add_profile(&profile).await.unwrap();
    let again = store.add_profile(&profile).await;
    assert!(matches!(again, Err(StoreError::Exists)));
    let (tenant, p) = (profile.tenant, profile.name.clone());
    store.retire_profile(tenant, &p, 8).await.unwrap();
    store.retire_profile(tenant, &p, 9).await.unwrap();
    profile.retired_ms = Some(8);

    let mut crl = CrlRecord {
        issuer: next.id,
        shard: 0,
        number: 5,
        this_update_ms: 50,
        next_update_ms: 60,
        entries: 1,
        sha256: [1; 32],
    };
    store.set_crl(&crl, 0, None).await.unwrap();
    let again = store.set_crl(&crl, 9, None).await;
    assert!(matches!(again, Err(StoreError::Conflict)), "numbers rise");
    let newer = async |number| store.newer_crl(next.id, 0, number).await.unwrap();
    assert_eq!(newer(4).await, Some((crl.clone(), None)));
    assert_eq!(newer(5).await, None);
    crl.number = 7;
    crl.sha256 = [2; 32];
    let unseen = store.set_crl(&crl, 4, Some(&[8, 9])).await;
    assert!(
        matches!(unseen, Err(StoreError::Conflict)),
        "it was not held against the one before"
    );
    // Who has seen a newer one than the store has held it against more.
    store.set_crl(&crl, 6, Some(&[8, 9])).await.unwrap();
    assert_eq!(newer(5).await, Some((crl.clone(), Some(vec![8, 9]))));

    let all = store.load_authorities().await.unwrap();
    assert_eq!(all.issuers.len(), 1);
    assert_eq!(all.issuers[0].chain, next.chain);
    assert_eq!(all.issuers[0].usage, next.usage);
    assert_eq!(all.issuers[0].approvals, next.approvals);
    assert_eq!((all.profiles, all.crls), (vec![profile], vec![crl]));
    assert_eq!(all.latest_ms, 50);
}

async fn certificates(store: &dyn Store) {
    let first = intended(1, "key-of-a-request");
    let twin = begins(store, &first).await;
    outcomes(store, &twin).await;
    used_keys(store, &first).await;

    let listed = store.revoked(issuer().id).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((listed[0].revocation, listed[0].shard), (REVOCATION, 2));
    let found = store
        .certificate(tenant().id, &first.name)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.state, found.certificate),
        (CertificateState::Revoked, vec![0xcc, 1])
    );
    let other = store.certificate(TenantId([8; 16]), &first.name).await;
    assert!(other.unwrap().is_none(), "another tenant");
}

const REVOCATION: Revocation = Revocation {
    revoked_ms: 70,
    reason: Reason::Superseded,
    invalidity_ms: Some(60),
};

pub(super) fn finish(name: CertificateRef) -> Write {
    Write::Finish {
        certificate: vec![0xcc, 1],
        name,
    }
}

fn finish_of(n: u8) -> Write {
    finish(intended(n, "").name)
}

/// A serial and an idempotency key are there once; the second certificate that may be.
async fn begins(store: &dyn Store, first: &Intended) -> Intended {
    assert_eq!(one(store, begin(first, 0, LATER)).await, Written::Done);
    // The same idempotency key; too old to matter; the same serial.
    let twin = Intended {
        name: intended(2, "").name,
        ..first.clone()
    };
    let Written::Known(known) = one(store, begin(&twin, 100, LATER)).await else {
        panic!("the request is known");
    };
    assert_eq!(
        (&known.intended, known.state),
        (first, CertificateState::Intended)
    );
    let serial = Intended {
        request_key: String::new(),
        ..first.clone()
    };
    assert_eq!(
        one(store, begin(&serial, 0, LATER)).await,
        Written::SerialTaken
    );
    assert_eq!(one(store, begin(&twin, 101, LATER)).await, Written::Done);
    twin
}

async fn outcomes(store: &dyn Store, twin: &Intended) {
    // A group: each by itself, in order.
    let group = [finish_of(1), finish_of(1), finish_of(9)];
    let expected = [Written::Done, Written::NotThere, Written::NotThere];
    assert_eq!(store.write_certificates(&group).await.unwrap(), expected);
    let fail = Write::Fail {
        name: twin.name.clone(),
    };
    assert_eq!(one(store, fail).await, Written::Done);
    assert_eq!(
        one(store, finish_of(2)).await,
        Written::NotThere,
        "it failed"
    );
}

/// A key that is certified already; that was revoked; that is blocked.
async fn used_keys(store: &dyn Store, first: &Intended) {
    let same_key = |n| Intended {
        spki: first.spki,
        ..intended(n, "")
    };
    let forbid = begin(&same_key(3), 0, KeyReuse::Forbid);
    assert_eq!(one(store, forbid).await, Written::KeyUsed);
    let standing = async |spki, reuse| {
        let standing = store.key_standing(tenant().id, spki, reuse).await;
        standing.unwrap()
    };
    let forbidden = standing(&first.spki, KeyReuse::Forbid).await;
    assert_eq!(forbidden, KeyStanding::Used);
    assert_eq!(standing(&first.spki, LATER).await, KeyStanding::Free);
    assert_eq!(
        one(store, begin(&same_key(3), 0, LATER)).await,
        Written::Done
    );
    let revoke = |n| Write::Revoke {
        name: intended(n, "").name,
        revocation: REVOCATION,
    };
    let group = [revoke(1), revoke(1), revoke(2), revoke(3)];
    let expected = [
        Written::Done,
        Written::NotThere,
        Written::NotThere,
        Written::Done,
    ];
    assert_eq!(store.write_certificates(&group).await.unwrap(), expected);
    assert_eq!(
        one(store, finish_of(3)).await,
        Written::NotThere,
        "revoked while it was made"
    );
    worse_reason(store).await;
    assert_eq!(
        one(store, begin(&same_key(4), 0, LATER)).await,
        Written::KeyUsed
    );
    assert_eq!(standing(&first.spki, LATER).await, KeyStanding::Used);
    assert_eq!(standing(&[5; 32], LATER).await, KeyStanding::Free);
    for _ in 0..2 {
        store
            .block_key(tenant().id, &[5; 32], "why", 1)
            .await
            .unwrap();
    }
    assert_eq!(
        one(store, begin(&intended(5, ""), 0, LATER)).await,
        Written::Blocked
    );
    assert_eq!(standing(&[5; 32], LATER).await, KeyStanding::Blocked);
}

/// Who learns later that the key was lost says so; nothing makes that good again.
async fn worse_reason(store: &dyn Store) {
    let name = intended(3, "").name;
    let revoke = async |reason, revoked_ms| {
        let revocation = Revocation {
            revoked_ms,
            reason,
            invalidity_ms: None,
        };
        let name = name.clone();
        one(store, Write::Revoke { name, revocation }).await
    };
    assert_eq!(revoke(Reason::CaCompromise, 80).await, Written::NotThere);
    assert_eq!(revoke(Reason::KeyCompromise, 90).await, Written::Done);
    assert_eq!(revoke(Reason::KeyCompromise, 91).await, Written::NotThere);
    let found = store.certificate(tenant().id, &name).await.unwrap();
    let found = found.unwrap();
    let revocation = found.revocation.unwrap();
    assert_eq!(
        revocation,
        Revocation {
            reason: Reason::KeyCompromise,
            ..REVOCATION
        }
    );
}

async fn searches(store: &dyn Store) {
    // Begun and never finished: a start gives the idempotency key back.
    let lost = intended(6, "key-of-a-lost-one");
    assert_eq!(one(store, begin(&lost, 0, LATER)).await, Written::Done);
    assert_eq!(store.load_authorities().await.unwrap().latest_ms, 100);
    let again = Intended {
        name: intended(7, "").name,
        ..lost
    };
    assert_eq!(one(store, begin(&again, 0, LATER)).await, Written::Done);

    let mut what = Search {
        name: Some("all.example".into()),
        limit: 2,
        ..Search::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = store.search(tenant().id, &what).await.unwrap();
        let Some(last) = page.last() else { break };
        what.after = Some((last.intended.not_after_ms, last.intended.name.clone()));
        seen.extend(page.into_iter().map(|r| r.intended.name));
    }
    // 2 has the end of 1, 7 that of 6: the serial decides.
    let expected = [1, 2, 3, 6, 7].map(|n| intended(n, "").name);
    assert_eq!(seen, expected);
    let all = Search {
        limit: 9,
        ..Search::default()
    };
    let foreign = store.search(TenantId([8; 16]), &all).await.unwrap();
    assert!(foreign.is_empty());
}

async fn responders(store: &dyn Store) {
    let none = store.responder(issuer().id).await.unwrap();
    assert!(none.is_none());
    let mut responder = Responder {
        issuer: issuer().id,
        key: KeyRef {
            object: ObjectId([10; 16]),
            ..issuer().key
        },
        token_serial: "cafe".into(),
        certificate: Vec::new(),
        created_ms: 20,
    };
    store.set_responder(&responder).await.unwrap();
    responder.certificate = vec![1, 2];
    store.set_responder(&responder).await.unwrap();
    let found = store.responder(issuer().id).await.unwrap().unwrap();
    assert_eq!((found.certificate, found.key), (vec![1, 2], responder.key));
    let all = store.load_authorities().await.unwrap();
    assert_eq!(all.responders.len(), 1);
}
