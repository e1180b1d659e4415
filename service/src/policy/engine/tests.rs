//! What the default policies allow, and what no policy can.

use keywright_pki::SpiffeId;
use sha2::Sha256;

use super::*;
use crate::{
    envelope::Context,
    key::{Labels, TenantId},
    policy::{About, Caller, DEFAULT_ROLES, DEV, act},
};

fn engine(extra: &str, roles: &str) -> Result<Engine, PolicyError> {
    let files = BTreeMap::from([
        ("roles.cedar".to_owned(), DEFAULT_ROLES.to_owned()),
        ("extra.cedar".to_owned(), extra.to_owned()),
    ]);
    Engine::new(&files, roles, Roles::parse(roles).unwrap())
}

const ROLES: &str = "[roles]\nkey-user = [\"spiffe://a/user\"]\nkey-admin = [\"spiffe://a/admin\"]\nrewrapper = [\"spiffe://a/rewrap\"]";

fn caller(id: &str, tenant: u8) -> Caller {
    Caller {
        id: SpiffeId::parse(id).unwrap(),
        tenant: TenantId([tenant; 16]),
        tenant_name: "t".into(),
        certificate: Sha256::digest(format!("{id}{tenant}")).into(),
        spki: [0; 32],
    }
}

fn key(name: &str, label: &str) -> Arc<Key> {
    let mut key = crate::key::tests::key(name);
    key.labels = Labels::new(BTreeMap::from([("team".into(), label.into())])).unwrap();
    Arc::new(key)
}

fn asking(caller: &Caller) -> Asking<'_> {
    Asking {
        caller,
        now_ms: 0,
        context: None,
    }
}

fn may(engine: &Engine, id: &str, action: Action, key: &Key) -> bool {
    let caller = caller(id, 2);
    engine.about_key(&asking(&caller), action, key).allowed()
}

#[test]
fn roles_decide() {
    let engine = engine("", ROLES).unwrap();
    let key = key("a/b", "x");
    let allowed = |id: &str| -> Vec<&str> {
        Action::ALL
            .into_iter()
            .filter(|a| !matches!(a, Action::ListKeys | Action::GenerateRandom))
            .filter(|a| may(&engine, id, *a, &key))
            .map(Action::name)
            .collect()
    };
    assert_eq!(
        allowed("spiffe://a/user"),
        [
            "encrypt",
            "decrypt",
            "reencrypt_from",
            "reencrypt_to",
            "get_key",
            "explain",
            "get_public_key",
            "sign",
            "verify",
            "mac",
            "verify_mac",
            "asymmetric_decrypt",
            "generate_data_key",
            "decrypt_data_key",
            "lease_data_key",
            "forget_data_key"
        ]
    );
    assert_eq!(
        allowed("spiffe://a/admin"),
        [
            "create_key",
            "get_key",
            "rotate_key",
            "get_key_evidence",
            "change_state",
            "update_key",
            "schedule_destruction",
            "cancel_destruction",
            "explain",
            "explain_other",
            "get_public_key",
            "create_job",
            "get_job",
            "change_job"
        ]
    );
    assert_eq!(
        allowed("spiffe://a/rewrap"),
        [
            "rewrap",
            "get_key",
            "explain",
            "create_job",
            "get_job",
            "change_job",
            "run_job"
        ]
    );
    assert!(allowed("spiffe://a/nobody").is_empty());
}

#[test]
fn a_role_that_no_policy_names_is_refused() {
    let misspelt = "[roles]\nkey-usr = [\"spiffe://a/user\"]";
    let e = engine("", misspelt).unwrap_err();
    assert!(matches!(e, PolicyError::UnusedRole(role) if role == "key-usr"));
    let named = "@id(\"x\") permit (principal in Role::\"key-usr\", action == Action::\"list_keys\", resource is Tenant);";
    assert!(engine(named, misspelt).is_ok());
    // And the other way round: a forbid that would forbid nobody.
    let e = engine(&format!("\n{named}"), ROLES).unwrap_err();
    let text = e.to_string();
    assert!(
        text.contains("extra.cedar:2") && text.contains("key-usr"),
        "{text}"
    );
}

#[test]
fn the_wall_stands_even_if_policies_are_wide_open() {
    let engine = engine("permit (principal, action, resource);", ROLES).unwrap();
    let key = key("a", "x");
    assert!(may(&engine, "spiffe://a/nobody", Action::Decrypt, &key));
    let stranger = caller("spiffe://b/user", 3);
    let stranger = asking(&stranger);
    assert!(!engine.about_key(&stranger, Action::Decrypt, &key).allowed());
    // And Cedar's own wall, with the one in code taken away.
    let verdict = engine.judge(&stranger, Action::Decrypt, &Resource::Key(&Seen::of(&key)));
    assert_eq!(verdict.policies(), ["keywright:tenant-wall-keys"]);
}

#[test]
fn duties_cannot_be_permitted_together() {
    let engine = engine("permit (principal, action, resource);", ROLES).unwrap();
    let key = key("a", "x");
    assert!(!may(&engine, "spiffe://a/admin", Action::Decrypt, &key));
    assert!(!may(&engine, "spiffe://a/rewrap", Action::Decrypt, &key));
    assert!(may(&engine, "spiffe://a/rewrap", Action::Encrypt, &key));
}

#[test]
fn names_and_labels_can_be_asked_for() {
    let extra = "@id(\"x\") permit (principal == Workload::\"spiffe://a/p\", action == Action::\"encrypt\", resource is Key)
        when { resource.name like \"pay/*\" && resource.hasTag(\"team\") && resource.getTag(\"team\") == \"pay\" };";
    let engine = engine(extra, ROLES).unwrap();
    assert!(may(
        &engine,
        "spiffe://a/p",
        Action::Encrypt,
        &key("pay/a", "pay")
    ));
    // The engine caches by key id and revision, so other keys need other ids.
    let other = |name: &str, label: &str, id: u8| {
        let mut k = Key::clone(&key(name, label));
        k.id = KeyId([id; 16]);
        k
    };
    assert!(!may(
        &engine,
        "spiffe://a/p",
        Action::Encrypt,
        &other("pay/a", "hr", 8)
    ));
    assert!(!may(
        &engine,
        "spiffe://a/p",
        Action::Encrypt,
        &other("hr/a", "pay", 9)
    ));
}

/// Also with the verdict of another context, or of another time, in the cache.
#[test]
fn context_and_time_can_be_asked_for() {
    let extra = "@id(\"own\") permit (principal, action == Action::\"encrypt\", resource is Key)
        when { context.pairs.hasTag(\"tenant\") && context.pairs.getTag(\"tenant\") == principal.tenant_name };
        @id(\"late\") permit (principal, action == Action::\"decrypt\", resource is Key)
        when { context.now >= datetime(\"2026-01-01\") && context.now.toTime() < duration(\"6h\") };";
    let engine = engine(extra, ROLES).unwrap();
    let key = key("a", "x");
    let nobody = caller("spiffe://a/nobody", 2);
    let may = |action, now_ms, tenant: Option<&str>| {
        let context = tenant
            .map(|t| Context::new(&BTreeMap::from([("tenant".to_owned(), t.to_owned())])).unwrap());
        let asking = Asking {
            caller: &nobody,
            now_ms,
            context: context.as_ref(),
        };
        engine.about_key(&asking, action, &key).allowed()
    };
    for _ in 0..2 {
        assert!(may(Action::Encrypt, 0, Some("t")));
        assert!(!may(Action::Encrypt, 0, Some("u")));
        assert!(!may(Action::Encrypt, 0, None));
    }
    let midnight = 1_795_305_600_000;
    assert!(may(Action::Decrypt, midnight + 3_600_000, None));
    assert!(!may(Action::Decrypt, midnight + 7 * 3_600_000, None));
    assert!(may(Action::Decrypt, midnight, Some("u")));
    assert!(!may(Action::Decrypt, 0, None));
}

#[test]
fn an_evaluation_error_is_a_deny() {
    // Passes strict validation and overflows when it is evaluated.
    let extra = "@id(\"boom\") forbid (principal, action == Action::\"encrypt\", resource is Key)
        when { 9223372036854775807 + 1 == 0 };
        @id(\"open\") permit (principal, action, resource is Key);";
    let engine = engine(extra, ROLES).unwrap();
    let verdict = engine.about_key(
        &asking(&caller("spiffe://a/user", 2)),
        Action::Encrypt,
        &key("a", "x"),
    );
    assert!(!verdict.allowed());
    assert_eq!(verdict.policies(), ["undecided"]);
    assert!(may(
        &engine,
        "spiffe://a/user",
        Action::Decrypt,
        &key("a", "x")
    ));
}

#[test]
fn a_permit_names_the_policy_that_gave_it() {
    let engine = engine("", ROLES).unwrap();
    let user = caller("spiffe://a/user", 2);
    let user = asking(&user);
    let permit = engine
        .permit::<act::Encrypt>(&user, &key("a", "x"))
        .unwrap();
    assert_eq!(permit.verdict().policies(), ["key-user"]);
    let denied = engine.permit::<act::Rewrap>(&user, &key("a", "x"));
    assert_eq!(denied.unwrap_err().policies(), Vec::<String>::new());
    let tenant = engine.grant::<act::ListKeys>(&user, None).unwrap();
    assert_eq!(tenant.tenant(), TenantId([2; 16]));
}

#[test]
fn bad_policies_are_refused_with_their_place() {
    let e = engine("permit (principal, action, resource)\nwhen { oops ", ROLES).unwrap_err();
    let text = e.to_string();
    assert!(text.contains("extra.cedar") && text.contains("2"), "{text}");
    for (policy, expected) in [
        (
            "permit (principal, action == Action::\"fly\", resource);",
            "fly",
        ),
        (
            "permit (principal, action, resource is Key) when { resource.colour == \"x\" };",
            "colour",
        ),
        (
            "permit (principal == ?principal, action, resource);",
            "template",
        ),
        (
            "@id(\"key-user\") permit (principal, action, resource);",
            "key-user",
        ),
    ] {
        let text = engine(policy, ROLES).unwrap_err().to_string();
        assert!(text.contains(expected), "{policy}: {text}");
    }
}

#[test]
fn a_policy_that_does_not_fit_is_named_once_with_its_place() {
    let extra = "permit (principal, action, resource is Tenant);\n\n\
        permit (principal, action, resource is Key)\nwhen { resource.colour == \"x\" };\n\
        @id(\"mine\") permit (principal, action, resource is Key) when { resource.size == 1 };";
    let e = engine(extra, ROLES).unwrap_err();
    let text = e.to_string();
    assert_eq!(text.matches("for policy").count(), 2, "{text}");
    assert!(
        text.contains("extra.cedar:3") && text.contains("mine"),
        "{text}"
    );
    let places: Vec<_> = e
        .findings()
        .into_iter()
        .map(|f| (f.file.unwrap(), f.line.unwrap(), f.policy.unwrap()))
        .collect();
    let file = || "extra.cedar".to_owned();
    assert_eq!(
        places,
        [
            (file(), 4, "extra.cedar:3".to_owned()),
            (file(), 5, "mine".to_owned())
        ]
    );
    // Twice the same words are two policies.
    for end in ["\n", " "] {
        let same = format!("permit (principal, action, resource is Tenant);{end}").repeat(2);
        engine(&same, ROLES).unwrap();
    }
}

#[test]
fn the_dev_policy_fits_the_schema() {
    engine(DEV, ROLES).unwrap();
}

#[test]
fn every_action_is_in_the_schema() {
    let engine = engine("permit (principal, action, resource);", ROLES).unwrap();
    let key = key("a", "x");
    let nobody = caller("spiffe://a/nobody", 2);
    let nobody = asking(&nobody);
    for action in Action::ALL {
        let profile = SeenProfile {
            tenant: key.tenant,
            name: "x",
        };
        for (about, resource) in [
            (About::Key, Resource::Key(&Seen::of(&key))),
            (About::Profile, Resource::Profile(&profile)),
            (About::Tenant, Resource::Tenant),
        ] {
            let verdict = engine.judge(&nobody, action, &resource);
            assert_eq!(
                verdict.allowed(),
                action.about() == about,
                "{action:?} {about:?}"
            );
        }
    }
}
