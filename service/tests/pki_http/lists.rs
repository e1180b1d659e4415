//! CRLs and certificates over plain HTTP.

use std::time::Duration;

use keywright_service::{authority::Reason, config::Limits};

use crate::{
    authority::{Pki, limits},
    raw::{ask, get, send},
};

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_certificates_are_what_openssl_checks_with() {
    let pki = Pki::start(limits()).await;
    let leaf = pki.issue("a").await;
    let full = pki
        .eventually("a CRL", async || {
            Some(pki.get("/red/int.crl").await).filter(|r| r.status == 200)
        })
        .await;
    assert_eq!(full.header("content-type"), Some("application/pkix-crl"));
    assert!(full.header("last-modified").unwrap().ends_with(" GMT"));
    assert!(full.max_age() <= 1, "{full:?}");
    pki.write("int.crl", &full.body);
    let verify = "verify -crl_check -CAfile root.pem -untrusted int.pem -CRLfile crl.pem a.pem";
    let convert = "crl -inform DER -in int.crl -out crl.pem";
    assert!(pki.openssl(convert).await.0);
    let (good, text) = pki.openssl(verify).await;
    assert!(good, "{text}");

    pki.revoke(&leaf, Reason::Superseded).await;
    pki.eventually("revoked on the full list", async || {
        let crl = pki.get("/red/int.crl").await;
        pki.write("int.crl", &crl.body);
        assert!(pki.openssl(convert).await.0);
        let (good, text) = pki.openssl(verify).await;
        (!good && text.contains("certificate revoked")).then_some(())
    })
    .await;
    // The shard that its certificate names says so too.
    let (_, text) = pki
        .openssl("x509 -in a.pem -noout -ext crlDistributionPoints")
        .await;
    let base = format!("http://{}", pki.addr);
    let (_, path) = text.split_once(&base).expect(&text);
    let path = path.split_whitespace().next().unwrap();
    assert!(path.starts_with("/red/int/"), "{path}");
    pki.eventually("revoked in its shard", async || {
        let shard = pki.get(path).await;
        pki.write("shard.crl", &shard.body);
        let words = "crl -inform DER -in shard.crl -noout -text";
        pki.openssl(words)
            .await
            .1
            .contains("Superseded")
            .then_some(())
    })
    .await;

    let cer = get(pki.addr, "/red/int.cer").await;
    assert_eq!(cer.header("content-type"), Some("application/pkix-cert"));
    assert_eq!(cer.body, pki.certificate("int"));
    let chain = get(pki.addr, "/red/int/chain.pem").await;
    let own = std::fs::read(pki.path("int.pem")).unwrap();
    assert_eq!(chain.body, own, "without the root");
    assert_eq!(get(pki.addr, "/red/root/chain.pem").await.status, 404);
    assert_eq!(
        get(pki.addr, "/red/root.cer").await.body,
        pki.certificate("root")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_copy_is_told_so() {
    let slow = Limits {
        crl_every_ms: 3_600_000,
        ..limits()
    };
    let pki = Pki::start(slow).await;
    let path = "/red/int.crl";
    let first = pki
        .eventually("a CRL", async || {
            Some(pki.get(path).await).filter(|r| r.status == 200)
        })
        .await;
    assert!((3_500..=3_600).contains(&first.max_age()), "{first:?}");
    let tag = first.header("etag").unwrap();
    assert!(tag.starts_with('"'), "strong");
    for (name, value) in [
        ("If-None-Match", tag),
        ("If-Modified-Since", first.header("last-modified").unwrap()),
    ] {
        let again = ask(pki.addr, "GET", path, &[(name, value)], &[]).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{name}");
        assert_eq!(again.header("etag"), Some(tag));
        assert!(again.header("cache-control").is_some());
    }
    let other = [("If-None-Match", "\"00\"")];
    let other = ask(pki.addr, "GET", path, &other, &[]).await;
    assert_eq!((other.status, other.body), (200, first.body.clone()));
    let head = ask(pki.addr, "HEAD", path, &[], &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("etag"), Some(tag));
    let length = first.body.len().to_string();
    assert_eq!(head.header("content-length"), Some(&*length));
    // A new list has another tag.
    let leaf = pki.issue("b").await;
    pki.revoke(&leaf, Reason::Unspecified).await;
    pki.eventually("a new list", async || {
        let again = ask(pki.addr, "GET", path, &[("If-None-Match", tag)], &[]).await;
        (again.status == 200 && again.header("etag") != Some(tag)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_there() {
    let quick = Limits {
        http_head_ms: 300,
        ..limits()
    };
    let pki = Pki::start(quick).await;
    for path in [
        "/",
        "/red",
        "/red/",
        "/red/int",
        "/red/int.pem",
        "/red/no.crl",
        "/red/INT.crl",
        "/red/..%2fint.crl",
        "/red/../red/int.crl",
        "/red/int/0.crl",
        "/red/int/01.crl",
        "/red/int/3.crl",
        "/red/int/99999999999.crl",
        "/red/int/%00.crl",
        "/red/%ff.crl",
        "/blue/int.crl",
        "/blue/int.cer",
        "/blue/int/chain.pem",
        "/green/int.cer",
        "/red/ocsp/no/AAAA",
        "/blue/ocsp/int/AAAA",
    ] {
        let reply = get(pki.addr, path).await;
        let refused = reply.status == 404 || reply.status == 400;
        assert!(refused, "{path}: {reply:?}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let reply = ask(pki.addr, method, "/red/int.cer", &[], &[]).await;
        assert_eq!(reply.status, 405, "{method}");
        assert!(reply.header("allow").unwrap().contains("GET"));
    }
    // A head without end, and one that never comes.
    let long = format!(
        "GET /red/int.cer HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(64 << 10)
    );
    let answer = send(pki.addr, long.as_bytes()).await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    let began = std::time::Instant::now();
    let answer = send(pki.addr, b"GET /red/int.cer HTTP/1.1\r\nX: ").await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(get(pki.addr, "/red/int.cer").await.status, 200);
}
