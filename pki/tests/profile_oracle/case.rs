//! Random profiles, and random requests against them.

use keywright_pki::{IssuerFacts, San, Urls};

pub(crate) const NOW: u64 = 1_800_000_000;
const PATHS: [&str; 6] = [
    "/ns/shop/sa/cart",
    "/service/pay/x",
    "/pay",
    "/ns/Shop/sa/a.b",
    "/ns/shop/sa/cart/more",
    "/x/a_b",
];
const DNS_VALUES: [&str; 8] = [
    "{principal.service}.svc.example",
    "{principal.name}.svc.example",
    "{principal.ns}.example",
    "{principal.sa}.{principal.ns}.svc.example",
    "{principal.tenant}.example",
    "apps.example",
    "example",
    "cart.shop.svc.example",
];
const LABELS: [&str; 9] = [
    "cart", "shop", "pay", "acme", "apps", "x", "svc", "Cart", "*",
];
const ENDS: [&str; 6] = [
    "example",
    "svc.example",
    "shop.svc.example",
    "apps.example",
    "acme.example",
    "notexample",
];
const IPS: [&str; 6] = [
    "10.20.0.1",
    "10.21.0.1",
    "10.0.0.1",
    "11.0.0.1",
    "fd00::1",
    "2001:db8::1",
];
const CIDRS: [&str; 6] = [
    "10.20.0.0/16",
    "10.0.0.0/8",
    "10.20.0.1/32",
    "fd00::/8",
    "0.0.0.0/0",
    "2001:db8::/127",
];
const TTLS: [(&str, u64); 5] = [
    ("10m", 600),
    ("1h", 3600),
    ("24h", 86_400),
    ("3d", 259_200),
    ("8d", 691_200),
];

/// splitmix64: a case is its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

fn profile_text(r: &mut Random) -> String {
    let max = 1 + r.below(4);
    let default = r.below(max + 1);
    let mut text = format!(
        "name = \"p\"\nversion = 1\nissuers = [\"a\"{}]\n[validity]\ndefault = \"{}\"\nmax = \"{}\"\nbackdate = \"{}\"\n",
        if r.one_in(2) { ", \"b\"" } else { "" },
        TTLS[default].0,
        TTLS[max].0,
        r.pick(&["1s", "5m"]),
    );
    let keys = [
        "\"ec-p256\", \"rsa-2048\"",
        "\"ec-p256\"",
        "\"ec-p384\"",
        "\"rsa-2048\", \"ed25519\"",
    ];
    text += &format!("[key]\nallow = [{}]\n", keys[r.below(10).saturating_sub(6)]);
    text += &format!(
        "[subject]\ncommon_name = \"{}\"\n",
        r.pick(&["omit", "omit", "first-dns", "from-san"])
    );
    for _ in 0..1 + r.below(3) {
        let how = r.pick(&["exact", "one-label-under", "any-depth-under"]);
        let wildcard = how != "exact" && r.one_in(2);
        let value = r.pick(&DNS_VALUES);
        text += &format!(
            "[[san.dns]]\nmatch = \"{how}\"\nvalue = \"{value}\"\nwildcard = {wildcard}\n"
        );
    }
    if r.one_in(2) {
        let (one, two) = (r.pick(&CIDRS), r.pick(&CIDRS));
        text += &format!(
            "[san.ip]\ncidrs = [\"{one}\", \"{two}\"]\nmax = {}\n",
            1 + r.below(2)
        );
    }
    if r.one_in(2) {
        let domain = r.pick(&["td.example", "td.example", "other"]);
        let path = r.pick(&[
            "/ns/{principal.ns}/sa/{principal.sa}",
            "/{principal.name}",
            "/ns/shop/sa/cart",
        ]);
        text += &format!(
            "[san.uri]\nspiffe = {{ trust_domain = \"{domain}\", path = \"{path}\", count = 1 }}\n"
        );
    }
    text += &format!(
        "[san]\nrequire_any = {}\nmax_total = {}\nfrom_csr = {}\n",
        !r.one_in(4),
        1 + r.below(4),
        !r.one_in(4)
    );
    text += &format!(
        "[usage]\nku = {}\neku = [\"clientAuth\"]\n",
        r.pick(&[
            "\"auto\"",
            "[\"digitalSignature\", \"keyEncipherment\", \"keyAgreement\"]"
        ])
    );
    text + &format!(
        "[extensions]\nski = {}\ncrl_dp = {}\nocsp = {}\n",
        r.one_in(2),
        !r.one_in(3),
        r.one_in(3)
    )
}

/// Half of the names are made from a value of the profile, so that enough is issued.
fn name(r: &mut Random, profile: &str) -> San {
    let values: Vec<&str> = profile
        .lines()
        .filter_map(|line| line.strip_prefix("value = \"")?.strip_suffix('"'))
        .collect();
    if !values.is_empty() && !r.one_in(3) {
        let mut base = r.pick(&values).to_owned();
        for (key, value) in [
            ("service", r.pick(&["pay", "cart"])),
            ("name", r.pick(&["pay", "cart"])),
            ("ns", "shop"),
            ("sa", "cart"),
            ("tenant", "acme"),
        ] {
            base = base.replace(&format!("{{principal.{key}}}"), value);
        }
        let front = r.pick(&["", "x.", "x.", "*.", "*.x.", "x.x."]);
        return format!("dns:{front}{base}").parse().unwrap();
    }
    let text = match r.below(10) {
        0 => format!("ip:{}", r.pick(&IPS)),
        1 => format!(
            "uri:spiffe://{}{}",
            r.pick(&["td.example", "other"]),
            r.pick(&["/ns/shop/sa/cart", "/pay", "/cart"])
        ),
        2 => format!("dns:{}", r.pick(&ENDS)),
        3 => format!("dns:*.{}.{}", r.pick(&LABELS[..7]), r.pick(&ENDS)),
        4 => format!(
            "dns:{}.{}.{}",
            r.pick(&LABELS),
            r.pick(&LABELS[..8]),
            r.pick(&ENDS)
        ),
        _ => format!("dns:{}.{}", r.pick(&LABELS), r.pick(&ENDS)),
    };
    text.parse().unwrap()
}

/// What a case is made of, as plain values.
pub(crate) struct Case {
    pub(crate) text: String,
    /// Names that count, as text; `None` when they stand in the CSR only.
    pub(crate) asked: Vec<San>,
    pub(crate) of_csr: Vec<San>,
    pub(crate) common_name: Option<String>,
    pub(crate) key: usize,
    pub(crate) domain: &'static str,
    pub(crate) path: &'static str,
    pub(crate) ttl: Option<u64>,
    pub(crate) issuer: IssuerFacts,
}

pub(crate) fn case(r: &mut Random) -> Case {
    let text = profile_text(r);
    let count = r.pick(&[0, 1, 1, 1, 2, 2, 3]);
    let names: Vec<San> = (0..count).map(|_| name(r, &text)).collect();
    let (asked, of_csr) = if r.one_in(3) {
        (Vec::new(), names)
    } else {
        (names, (0..r.below(2)).map(|_| name(r, &text)).collect())
    };
    let url = |some: bool| some.then(|| "http://pki.example/x".to_owned());
    Case {
        text,
        common_name: r
            .one_in(3)
            .then(|| format!("{}.{}", r.pick(&LABELS), r.pick(&ENDS))),
        asked,
        of_csr,
        key: r.below(10).saturating_sub(7),
        domain: r.pick(&["td.example", "td.example", "td.example", "other"]),
        path: PATHS[r.below(9) % PATHS.len()],
        ttl: r
            .one_in(3)
            .then(|| r.pick(&[1, 300, 301, 600, 3600, 86_400, 86_401, 700_000])),
        issuer: IssuerFacts {
            name: r.pick(&["a", "a", "a", "b"]).to_owned(),
            is_root: r.one_in(50),
            spki_sha256: [0; 32],
            not_before: NOW - r.pick(&[0, 10, 1_000_000, 1_000_000]),
            not_after: NOW
                + if r.one_in(8) {
                    r.pick(&[100, 86_000])
                } else {
                    10_000_000
                },
            urls: Urls {
                crl_dp: url(!r.one_in(20)),
                ca_issuers: url(r.one_in(2)),
                ocsp: url(!r.one_in(10)),
            },
        },
    }
}
