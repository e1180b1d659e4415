//! OCSP, with the client of OpenSSL and by hand.

use base64::{Engine, prelude::BASE64_STANDARD};
use keywright_service::{authority::Reason, config::Limits};

use crate::{
    authority::{Pki, limits},
    common::documents,
    raw::{Reply, ask, get},
};

const POST: (&str, &str) = ("Content-Type", "application/ocsp-request");

impl Pki {
    /// What OpenSSL's client reads of an answer that it has verified.
    async fn ask_openssl(&self, about: &str, more: &str) -> String {
        let url = format!("http://{}/red/ocsp/int", self.addr);
        let words = format!(
            "ocsp -issuer int.pem {about} -url {url} -CAfile root.pem -verify_other int.pem \
             -reqout asked.der -respout answered.der {more}"
        );
        let (good, text) = self.openssl(&words).await;
        assert!(good && text.contains("Response verify OK"), "{text}");
        let read = |name: &str| std::fs::read(self.path(name)).unwrap();
        self.keep(&read("asked.der"), &read("answered.der"));
        text
    }

    /// The DER of a request of OpenSSL's.
    async fn request(&self, about: &str, more: &str) -> Vec<u8> {
        let words = format!("ocsp -issuer int.pem {about} -reqout req.der {more}");
        let (good, text) = self.openssl(&words).await;
        assert!(good, "{text}");
        std::fs::read(self.path("req.der")).unwrap()
    }

    async fn post(&self, body: &[u8]) -> Reply {
        let reply = ask(self.addr, "POST", "/red/ocsp/int", &[POST], body).await;
        if reply.status == 200 {
            self.keep(body, &reply.body);
        }
        reply
    }

    /// An answer to the same request by GET.
    async fn get_answer(&self, request: &[u8]) -> Reply {
        let path = format!("/red/ocsp/int/{}", BASE64_STANDARD.encode(request));
        let reply = self.get(&path).await;
        self.keep(request, &reply.body);
        reply
    }

    fn keep(&self, request: &[u8], answer: &[u8]) {
        documents::ocsp(self.app(), "int", request, answer, self.now_ms());
    }

    async fn says(&self, request: &[u8]) -> String {
        let reply = self.post(request).await;
        self.write("answer.der", &reply.body);
        self.openssl("ocsp -respin answer.der -noverify -resp_text")
            .await
            .1
    }
}

/// `OCSPResponse` without a signature (RFC 6960 §4.2.1).
fn error(status: u8) -> Vec<u8> {
    vec![0x30, 3, 0x0a, 1, status]
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_hears_good_revoked_and_unknown() {
    let pki = Pki::start(limits()).await;
    let leaf = pki.issue("a").await;
    for hash in ["-sha1", "-sha256"] {
        let text = pki.ask_openssl("-cert a.pem", "-no_nonce").await;
        assert!(text.contains("a.pem: good"), "{hash}: {text}");
        let text = pki
            .ask_openssl(&format!("{hash} -cert a.pem"), "-nonce")
            .await;
        assert!(text.contains("a.pem: good"), "{hash}: {text}");
        assert!(!text.to_lowercase().contains("no nonce"), "{text}");
    }
    let text = pki.ask_openssl("-serial 0x1234", "-no_nonce").await;
    assert!(text.contains("0x1234: unknown"), "{text}");

    pki.revoke(&leaf, Reason::KeyCompromise).await;
    // At once, although the answer before was kept.
    let text = pki.ask_openssl("-cert a.pem", "-no_nonce").await;
    assert!(text.contains("a.pem: revoked"), "{text}");
    assert!(text.contains("Reason: keyCompromise"), "{text}");

    // The signer is delegated, short-lived, and on record.
    let text = pki
        .says(&pki.request("-cert a.pem", "-no_nonce").await)
        .await;
    assert!(text.contains("OCSP Signing"), "{text}");
    assert!(text.contains("OCSP No Check"), "{text}");
    let records = pki.it.records("responder_issued");
    assert_eq!(records.len(), 1, "one responder for all of it");
    assert_eq!(records[0]["detail"]["issuer"], "int");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_kept_and_those_with_a_nonce_are_not() {
    let pki = Pki::start(limits()).await;
    pki.issue("a").await;
    let plain = pki.request("-cert a.pem", "-no_nonce").await;
    let first = pki.post(&plain).await;
    assert_eq!(
        first.header("content-type"),
        Some("application/ocsp-response")
    );
    assert_eq!(
        first.body,
        pki.post(&plain).await.body,
        "ECDSA twice differs"
    );
    assert_eq!(first.header("cache-control"), Some("no-store"));

    let encoded = BASE64_STANDARD.encode(&plain);
    for path in [
        encoded.clone(),
        encoded
            .replace('/', "%2F")
            .replace('+', "%2B")
            .replace('=', "%3D"),
    ] {
        let path = format!("/red/ocsp/int/{path}");
        let reply = get(pki.addr, &path).await;
        assert_eq!(reply.body, first.body);
        assert!((3_000..=3_600).contains(&reply.max_age()), "{reply:?}");
        let tag = reply.header("etag").unwrap();
        assert!(reply.header("expires").is_some() && reply.header("last-modified").is_some());
        let again = ask(pki.addr, "GET", &path, &[("If-None-Match", tag)], &[]).await;
        assert_eq!((again.status, again.body.len()), (304, 0));
        let head = ask(pki.addr, "HEAD", &path, &[], &[]).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
    let nonce = pki.request("-cert a.pem", "-nonce").await;
    let (one, two) = (pki.get_answer(&nonce).await, pki.get_answer(&nonce).await);
    assert_ne!(one.body, two.body, "signed each time");
    assert_eq!(one.header("cache-control"), Some("no-store"));
    let unknown = pki.request("-serial 0x77", "-no_nonce").await;
    let reply = pki.get_answer(&unknown).await;
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_the_words_of_the_standard() {
    let pki = Pki::start(limits()).await;
    pki.issue("a").await;
    let plain = pki.request("-cert a.pem", "-no_nonce").await;
    for garbage in [&b"x"[..], &plain[..plain.len() - 1], &[0x30; 4096]] {
        assert_eq!(pki.post(garbage).await.body, error(1));
    }
    assert_eq!(get(pki.addr, "/red/ocsp/int/%20!!").await.body, error(1));
    assert_eq!(pki.post(&[0x30; 4097]).await.status, 413);
    let long = format!("/red/ocsp/int/{}", "A".repeat(5600));
    assert_eq!(get(pki.addr, &long).await.status, 414);
    let untyped = ask(pki.addr, "POST", "/red/ocsp/int", &[], &plain).await;
    assert_eq!(untyped.status, 415);
    let elsewhere = ask(pki.addr, "POST", "/blue/ocsp/int", &[POST], &plain).await;
    assert_eq!(elsewhere.status, 404);
    // Of another issuer, and to one whose ceremony says nothing of OCSP.
    let words = "ocsp -issuer root.pem -cert int.pem -reqout root.der -no_nonce";
    assert!(pki.openssl(words).await.0);
    let foreign = std::fs::read(pki.path("root.der")).unwrap();
    assert_eq!(pki.post(&foreign).await.body, error(6));
    let root = ask(pki.addr, "POST", "/red/ocsp/root", &[POST], &foreign).await;
    assert_eq!(root.body, error(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_responder_outlives_restarts_and_is_renewed() {
    let short = Limits {
        ocsp_responder_days: 4,
        ..limits()
    };
    let mut pki = Pki::start(short).await;
    pki.issue("a").await;
    let plain = pki.request("-cert a.pem", "-no_nonce").await;
    let serials = |pki: &Pki| -> Vec<String> {
        let records = pki.it.records("responder_issued");
        records
            .iter()
            .map(|r| r["detail"]["serial"].to_string())
            .collect()
    };
    assert!(pki.says(&plain).await.contains("good"));
    assert_eq!(serials(&pki).len(), 1);
    // A day later it is not yet half of its life, two days later it is.
    pki.it.clock.advance_days(1);
    assert!(pki.says(&plain).await.contains("good"));
    assert_eq!(serials(&pki).len(), 1);
    pki = pki.restart(short).await;
    pki.it.clock.advance_days(2);
    assert!(pki.says(&plain).await.contains("good"));
    let issued = serials(&pki);
    assert_eq!(issued.len(), 2, "{issued:?}");
    assert_ne!(issued[0], issued[1]);
    // The key is still the one made first: nothing is on the token that nobody knows.
    let store = pki.app().store.load_authorities().await.unwrap();
    assert_eq!(store.responders.len(), 1);
    assert!(pki.app().store.load().await.unwrap().intents.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_issuer_says_try_later() {
    let pki = Pki::start(limits()).await;
    pki.issue("a").await;
    let plain = pki.request("-cert a.pem", "-no_nonce").await;
    let nonce = pki.request("-cert a.pem", "-nonce").await;
    assert!(pki.says(&plain).await.contains("good"));
    pki.stop_issuer().await;
    assert_eq!(pki.post(&plain).await.body, error(3));
    assert_eq!(pki.post(&nonce).await.body, error(3));
}
