//! Who may name a host must not make the daemon look at what is behind it: nothing that is
//! not public is connected to unless the profile lists its network, whichever way leads
//! there. Each test shows first that the way would lead there.

use std::time::Duration;

use keywright_service::acme::{ChallengeKind, ProblemKind};

use crate::hosts::{Hosts, SHOWN, came, elsewhere, page};

const ALL: &[&str] = &["127.0.0.0/8"];
/// The network of the host that a client may show: our own is another one.
const ONE: &[&str] = &["127.0.0.2/32"];

#[tokio::test]
async fn a_private_address_is_not_connected_to() {
    let hosts = Hosts::new().await;
    let inside = hosts.web("127.0.0.1", page(SHOWN)).await;
    for (name, address) in [
        ("v4.example", "127.0.0.1"),
        ("mapped.example", "::ffff:127.0.0.1"),
    ] {
        hosts.name(name, &[address]);
        let dns = format!("dns:{name}");
        let before = came(&inside);
        assert_eq!(hosts.http(&dns, ALL).await, Ok(()), "{name}");
        assert_eq!(came(&inside), before + 1, "{name}");
        for networks in [&[][..], ONE, &["10.0.0.0/8", "::/0"]] {
            let e = hosts.http(&dns, networks).await.unwrap_err();
            assert_eq!(e.kind(), ProblemKind::Connection, "{name}");
            assert!(e.detail().contains("not public"), "{name}: {e}");
            let e = hosts.look(ChallengeKind::TlsAlpn01, &dns, networks).await;
            assert_eq!(e.unwrap_err().kind(), ProblemKind::Connection, "{name}");
        }
        assert_eq!(came(&inside), before + 1, "{name}");
    }
    assert_eq!(hosts.http("ip:127.0.0.1", ALL).await, Ok(()));
    let before = came(&inside);
    assert!(hosts.http("ip:127.0.0.1", &[]).await.is_err());
    assert_eq!(came(&inside), before);
}

/// Nobody is there to be reached, so that the words tell whether it was tried.
#[tokio::test]
async fn addresses_of_clouds_and_neighbours_are_not_tried() {
    let hosts = Hosts::new().await;
    for address in [
        "169.254.169.254",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "fd00:ec2::254",
        "fe80::1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
    ] {
        hosts.name("host.example", &[address]);
        let e = hosts.http("dns:host.example", &[]).await.unwrap_err();
        assert!(e.detail().contains("not public"), "{address}: {e}");
    }
    // A listed one is tried: nothing listens there.
    hosts.name("host.example", &["127.0.0.9"]);
    let e = hosts.http("dns:host.example", ALL).await.unwrap_err();
    assert!(e.detail().contains("no connection"), "{e}");
}

#[tokio::test]
async fn a_redirect_leads_nowhere_inside() {
    for location in [
        "http://127.0.0.1/",
        "http://inside.example/latest/meta-data",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "HTTP://INSIDE.EXAMPLE/",
    ] {
        let hosts = Hosts::new().await;
        hosts.name("outside.example", &["127.0.0.2"]);
        hosts.name("inside.example", &["127.0.0.1"]);
        let inside = hosts.web("127.0.0.1", page(SHOWN)).await;
        let outside = hosts.web("127.0.0.2", elsewhere(location)).await;
        assert_eq!(
            hosts.http("dns:outside.example", ALL).await,
            Ok(()),
            "{location}"
        );
        assert_eq!(came(&inside), 1, "{location}");
        let e = hosts.http("dns:outside.example", ONE).await.unwrap_err();
        assert!(e.detail().contains("not public"), "{location}: {e}");
        assert_eq!((came(&inside), came(&outside)), (1, 2), "{location}");
    }
    // Other ways to write an address are no hosts, and other ports nobody's web.
    for location in [
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.1:22/",
        "https://127.0.0.1:80/",
        "http://user@127.0.0.1/",
        "gopher://127.0.0.1/",
        "file:///etc/passwd",
    ] {
        let hosts = Hosts::new().await;
        hosts.name("outside.example", &["127.0.0.2"]);
        let inside = hosts.web("127.0.0.1", page(SHOWN)).await;
        let _outside = hosts.web("127.0.0.2", elsewhere(location)).await;
        let e = hosts.http("dns:outside.example", ALL).await.unwrap_err();
        assert_eq!(e.kind(), ProblemKind::IncorrectResponse, "{location}: {e}");
        assert_eq!(came(&inside), 0, "{location}");
    }
}

/// The name answers with one address first, and with another one afterwards: the
/// connection goes to the address that was judged, and a redirect is judged anew.
#[tokio::test]
async fn a_name_that_changes_its_address_gains_nothing() {
    let hosts = Hosts::new().await;
    let inside = hosts.web("127.0.0.1", page("inside")).await;
    let outside = hosts.web("127.0.0.2", page(SHOWN)).await;
    hosts.name("re.example", &["127.0.0.2", "127.0.0.1"]);
    assert_eq!(hosts.http("dns:re.example", ONE).await, Ok(()));
    assert_eq!((came(&inside), came(&outside)), (0, 1));
    let e = hosts.http("dns:re.example", ONE).await.unwrap_err();
    assert!(e.detail().contains("not public"), "{e}");
    assert_eq!((came(&inside), came(&outside)), (0, 1));

    let hosts = Hosts::new().await;
    let inside = hosts.web("127.0.0.1", page(SHOWN)).await;
    let _outside = hosts
        .web("127.0.0.2", elsewhere("http://re.example/"))
        .await;
    hosts.name("re.example", &["127.0.0.2", "127.0.0.1"]);
    assert_eq!(hosts.http("dns:re.example", ALL).await, Ok(()));
    assert_eq!(came(&inside), 1);
    hosts.name("re.example", &["127.0.0.2", "127.0.0.1"]);
    assert!(hosts.http("dns:re.example", ONE).await.is_err());
    assert_eq!(came(&inside), 1);
}

#[tokio::test]
async fn what_a_host_says_is_not_told_and_nobody_holds_us_for_ever() {
    let hosts = Hosts::new().await;
    hosts.name("host.example", &["127.0.0.2"]);
    let _web = hosts.web("127.0.0.2", page("root:x:0:0")).await;
    let e = hosts.http("dns:host.example", ONE).await.unwrap_err();
    assert_eq!(e.kind(), ProblemKind::IncorrectResponse);
    assert!(!e.document().to_string().contains("root"), "{e}");

    let hosts = Hosts::new().await;
    hosts.name("host.example", &["127.0.0.2"]);
    let web = hosts
        .web("127.0.0.2", elsewhere("http://host.example/again"))
        .await;
    let e = hosts.http("dns:host.example", ONE).await.unwrap_err();
    assert!(e.detail().contains("more than 5 times"), "{e}");
    assert_eq!(came(&web), 6);

    let hosts = Hosts::new().await;
    hosts.name("host.example", &["127.0.0.2"]);
    let _web = hosts.web("127.0.0.2", page(&"x".repeat(1 << 20))).await;
    let e = hosts.http("dns:host.example", ONE).await.unwrap_err();
    assert_eq!(e.kind(), ProblemKind::IncorrectResponse);

    // It takes the connection and says nothing.
    let hosts = Hosts::new().await;
    hosts.name("host.example", &["127.0.0.2"]);
    let _silent = tokio::net::TcpListener::bind(("127.0.0.2", hosts.port))
        .await
        .unwrap();
    let look = hosts.http("dns:host.example", ONE);
    let e = tokio::time::timeout(Duration::from_secs(30), look).await;
    assert_eq!(e.unwrap().unwrap_err().kind(), ProblemKind::Connection);
}
