//! Which addresses may be looked at. What is not plainly public is forbidden, because a
//! client that names `localhost` or a neighbour of ours would make us its scanner; the
//! profile may list networks beside the public one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keywright_pki::Cidr;

/// A network such as `10.0.0.0/8`, written down in this file.
#[derive(Debug, Clone, Copy)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            prefix,
        }
    }

    const fn v6(a: u16, b: u16, prefix: u8) -> Self {
        Self {
            address: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)),
            prefix,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        // Left-aligned, so that the prefix counts from the same end in both families.
        let bits = |address| match address {
            IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
            IpAddr::V6(a) => a.to_bits(),
        };
        let behind = 128u32.saturating_sub(u32::from(self.prefix));
        let differing = bits(self.address) ^ bits(address);
        self.address.is_ipv4() == address.is_ipv4()
            && differing.checked_shr(behind).unwrap_or(0) == 0
    }
}

/// The registries of special-purpose addresses (RFC 6890): nothing in them is a public
/// host.
const SPECIAL: [Network; 20] = [
    Network::v4(0, 0, 0, 0, 8),
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(100, 64, 0, 0, 10),
    Network::v4(127, 0, 0, 0, 8),
    Network::v4(169, 254, 0, 0, 16),
    Network::v4(172, 16, 0, 0, 12),
    Network::v4(192, 0, 0, 0, 24),
    Network::v4(192, 0, 2, 0, 24),
    Network::v4(192, 88, 99, 0, 24),
    Network::v4(192, 168, 0, 0, 16),
    Network::v4(198, 18, 0, 0, 15),
    Network::v4(198, 51, 100, 0, 24),
    Network::v4(203, 0, 113, 0, 24),
    Network::v4(224, 0, 0, 0, 3),
    Network::v6(0x2001, 0, 23),
    Network::v6(0x2001, 0xdb8, 32),
    Network::v6(0x2002, 0, 16),
    Network::v6(0x3fff, 0, 20),
    Network::v6(0x3ffe, 0, 16),
    Network::v6(0x5f00, 0, 16),
];
/// Global unicast; everything else in IPv6 is local, reserved or carries IPv4 inside.
const GLOBAL_V6: Network = Network::v6(0x2000, 0, 3);

/// May this address be looked at?
pub(super) fn admits(address: IpAddr, listed: &[Cidr]) -> bool {
    // `::ffff:127.0.0.1` reaches the same host as `127.0.0.1`.
    let address = address.to_canonical();
    if listed.iter().any(|n| n.contains(address)) {
        return true;
    }
    let global = address.is_ipv4() || GLOBAL_V6.contains(address);
    global && !SPECIAL.iter().any(|n| n.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_looked_at() {
        for inside in [
            "127.0.0.1",
            "127.255.255.255",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::127.0.0.1",
            "fec0::1",
        ] {
            assert!(!admits(inside.parse().unwrap(), &[]), "{inside}");
        }
        for outside in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(admits(outside.parse().unwrap(), &[]), "{outside}");
        }
    }

    #[test]
    fn a_profile_opens_what_it_lists_and_no_more() {
        let listed = ["127.0.0.0/8", "fd00::/8"].map(|n| Cidr::parse(n).unwrap());
        for (address, admitted) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("fd01::1", true),
            ("fc01::1", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(
                admits(address.parse().unwrap(), &listed),
                admitted,
                "{address}"
            );
        }
        let all = [Cidr::parse("0.0.0.0/0").unwrap()];
        assert!(admits("10.0.0.1".parse().unwrap(), &all));
        assert!(!admits("::1".parse().unwrap(), &all));
    }
}
