//! What every [`AcmeStore`](crate::store::AcmeStore) must do.

use keywright_hsm::WrappedDek;
use keywright_pki::{Serial, SpiffeId};
use serde_json::json;

use super::tenant;
use crate::{
    acme::{
        Account, AccountKey, AccountStatus, AcmeId, AcmeKey, Authorization, ChallengeKind, Contact,
        Order, Outcome, encode64,
    },
    authority::{AuthorityName, CertificateRef, IssuerId},
    key::TenantId,
    store::{Store, StoreError},
};

fn id(n: u8) -> AcmeId {
    AcmeId::from_random([n; 16])
}

const NAME: &str = "dns:a.example";

fn profile() -> AuthorityName {
    AuthorityName::parse("service-tls").unwrap()
}

pub(super) fn certificate(n: u8) -> CertificateRef {
    CertificateRef {
        issuer: IssuerId([1; 16]),
        serial: Serial::from_random([n; Serial::RANDOM_LEN]),
    }
}

fn account(n: u8) -> Account {
    let pair = rcgen::KeyPair::generate().unwrap();
    let (x, y) = pair.public_key_raw()[1..].split_at(32);
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": encode64(x), "y": encode64(y)});
    Account {
        id: id(n),
        tenant: tenant().id,
        key: AccountKey::from_jwk(&jwk).unwrap(),
        status: AccountStatus::Valid,
        contacts: Contact::list(&["mailto:a@b.example".into()]).unwrap(),
        kid: id(1),
        created_ms: 5,
    }
}

pub(super) fn order(n: u8, replaces: Option<CertificateRef>) -> Order {
    Order {
        id: id(n),
        account: id(2),
        profile: profile(),
        names: vec![NAME.parse().unwrap()],
        authorizations: vec![id(n + 100)],
        outcome: Outcome::Open,
        replaces,
        expires_ms: 1000,
        created_ms: i64::from(n),
    }
}

pub(super) fn authorization(n: u8) -> Authorization {
    let name = NAME.parse().unwrap();
    let tokens = [id(4), id(5), id(6)];
    Authorization::new(id(n + 100), id(2), (name, profile()), tokens, 1000)
}

pub(super) async fn run(store: &dyn Store) {
    accounts(store).await;
    orders(store).await;
    authorizations(store).await;
}

async fn accounts(store: &dyn Store) {
    let key = AcmeKey {
        kid: id(1),
        tenant: tenant().id,
        identity: SpiffeId::parse("spiffe://a/b").unwrap(),
        profiles: vec![profile()],
        wrapped: WrappedDek([8; 60]),
        created_by: "me".into(),
        created_ms: 4,
    };
    store.add_acme_key(&key).await.unwrap();
    let again = store.add_acme_key(&key).await;
    assert!(matches!(again, Err(StoreError::Exists)));
    let found = store.acme_key(tenant().id, &id(1)).await.unwrap().unwrap();
    assert_eq!((found.wrapped, found.profiles), (key.wrapped, key.profiles));
    let foreign = store.acme_key(TenantId([8; 16]), &id(1)).await.unwrap();
    assert!(foreign.is_none(), "another tenant");
    let profiles = store.acme_profiles(tenant().id).await.unwrap();
    assert_eq!(profiles, ["service-tls"]);

    let (mut first, other) = (account(2), account(3));
    store.add_account(&first).await.unwrap();
    store.add_account(&other).await.unwrap();
    let twin = Account {
        id: id(9),
        ..first.clone()
    };
    let again = store.add_account(&twin).await;
    assert!(matches!(again, Err(StoreError::Exists)), "its key has one");
    let thumbprint = first.key.thumbprint();
    let found = store.account_by_key(tenant().id, &thumbprint).await;
    assert_eq!(found.unwrap().unwrap(), first);
    first.key = other.key.clone();
    let taken = store.change_account(&first).await;
    assert!(matches!(taken, Err(StoreError::Exists)));
    let mut gone = other;
    gone.status = AccountStatus::Deactivated;
    store.change_account(&gone).await.unwrap();
    let again = store.change_account(&gone).await;
    assert!(matches!(again, Err(StoreError::Conflict)));
    let found = store.account(tenant().id, &gone.id).await.unwrap();
    assert_eq!(found.unwrap(), gone);
}

async fn orders(store: &dyn Store) {
    let with = |n| [authorization(n)];
    let mut first = order(11, Some(certificate(1)));
    store.add_order(&first, &with(11)).await.unwrap();
    // Whatever replaces the same waits until the first came to nothing.
    let second = order(12, Some(certificate(1)));
    let again = store.add_order(&second, &with(12)).await;
    assert!(matches!(again, Err(StoreError::Exists)));
    let absent = store.authorization(&id(2), &id(112)).await.unwrap();
    assert!(absent.is_none(), "all or nothing");
    // Many replace nothing.
    for n in [13, 14] {
        store.add_order(&order(n, None), &with(n)).await.unwrap();
    }
    first.outcome = Outcome::Failed("why".into());
    store.decide_order(&first).await.unwrap();
    let again = store.decide_order(&first).await;
    assert!(matches!(again, Err(StoreError::Conflict)));
    store.add_order(&second, &with(12)).await.unwrap();
    let mut issued = order(13, None);
    issued.outcome = Outcome::Issued(certificate(2));
    store.decide_order(&issued).await.unwrap();
    let again = store.decide_order(&issued).await;
    assert!(matches!(again, Err(StoreError::Conflict)));

    let found = store.order(&id(2), &id(11)).await.unwrap();
    assert_eq!(found, Some(first));
    assert_eq!(store.order(&id(3), &id(11)).await.unwrap(), None);
    let found = store.order_of(&certificate(2)).await.unwrap();
    assert_eq!(found, Some(issued));
    let newest = store.orders(&id(2), 2).await.unwrap();
    assert_eq!(newest, [id(14), id(13)]);
}

async fn authorizations(store: &dyn Store) {
    let control = async |now_ms| {
        let has = store.has_control(&id(2), NAME, now_ms).await;
        has.unwrap()
    };
    assert!(!control(10).await, "nothing is proved yet");
    let next = authorization(11).answered(ChallengeKind::Http01);
    let valid = next.judged(ChallengeKind::Http01, Ok(9));
    store.change_authorization(&next).await.unwrap();
    store.change_authorization(&valid).await.unwrap();
    let again = store.change_authorization(&valid).await;
    assert!(matches!(again, Err(StoreError::Conflict)));
    let found = store.authorization(&id(2), &id(111)).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.status, found.revision), (valid.status, 2));
    assert!(control(10).await && !control(1000).await);
}

/// What there is after all of this, as the store says it.
pub(crate) async fn said(store: &dyn Store) -> String {
    let (tenant, mut all) = (tenant().id, String::new());
    for n in [1, 2, 3] {
        let key = store.acme_key(tenant, &id(n)).await.unwrap();
        let account = store.account(tenant, &id(n)).await.unwrap();
        all.push_str(&format!("{key:?} {account:?} "));
    }
    for n in 11..15 {
        let order = store.order(&id(2), &id(n)).await.unwrap().unwrap();
        let proof = store.authorization(&id(2), &id(n + 100)).await.unwrap();
        all.push_str(&format!("{order:?} {:?} ", proof.unwrap()));
    }
    all
}
