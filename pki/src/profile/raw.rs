//! A profile as TOML has it. An unknown key is an error at its line.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) name: String,
    pub(super) version: u32,
    #[serde(default)]
    pub(super) kind: RawKind,
    pub(super) issuers: Vec<String>,
    pub(super) path_len: Option<u8>,
    pub(super) permitted: Option<Vec<String>>,
    pub(super) excluded: Option<Vec<String>>,
    pub(super) validity: Validity,
    pub(super) key: Key,
    #[serde(default)]
    pub(super) subject: Subject,
    pub(super) san: Option<San>,
    pub(super) usage: Option<Usage>,
    #[serde(default)]
    pub(super) extensions: Extensions,
    #[serde(default)]
    pub(super) lint: Lint,
    #[serde(default)]
    pub(super) authz: Authz,
    #[serde(default)]
    pub(super) acme: Acme,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Acme {
    pub(super) networks: Vec<String>,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawKind {
    #[default]
    Leaf,
    Ca,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Validity {
    pub(super) default: String,
    pub(super) max: String,
    #[serde(default = "five_minutes")]
    pub(super) backdate: String,
    #[serde(default)]
    pub(super) round_up_to_issuer: bool,
}

fn five_minutes() -> String {
    "5m".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) allow: Vec<String>,
    #[serde(default)]
    pub(super) reuse: super::KeyReuse,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Subject {
    pub(super) common_name: super::CommonName,
    pub(super) fixed: Fixed,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "UPPERCASE")]
pub(super) struct Fixed {
    pub(super) c: Option<String>,
    pub(super) st: Option<String>,
    pub(super) l: Option<String>,
    pub(super) o: Option<String>,
    pub(super) ou: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct San {
    #[serde(default)]
    pub(super) dns: Vec<Dns>,
    pub(super) ip: Option<Ip>,
    pub(super) uri: Option<Uri>,
    #[serde(default = "yes")]
    pub(super) require_any: bool,
    #[serde(default = "twenty")]
    pub(super) max_total: usize,
    #[serde(default)]
    pub(super) from_csr: bool,
}

fn yes() -> bool {
    true
}

fn twenty() -> usize {
    20
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dns {
    pub(super) r#match: super::Match,
    pub(super) value: String,
    #[serde(default)]
    pub(super) wildcard: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ip {
    pub(super) cidrs: Vec<String>,
    #[serde(default = "one")]
    pub(super) max: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Uri {
    pub(super) spiffe: Spiffe,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spiffe {
    pub(super) trust_domain: String,
    pub(super) path: String,
    #[serde(default = "one")]
    pub(super) count: usize,
}

fn one() -> usize {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) ku: Ku,
    #[serde(default)]
    pub(super) eku: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Ku {
    Word(String),
    List(Vec<String>),
}

impl Default for Ku {
    fn default() -> Self {
        Self::Word("auto".to_owned())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Extensions {
    pub(super) policies: Vec<String>,
    pub(super) ski: bool,
    pub(super) no_rev_avail: bool,
    pub(super) crl_dp: bool,
    pub(super) ocsp: bool,
    pub(super) allow_oids: Vec<String>,
}

impl Default for Extensions {
    fn default() -> Self {
        Self {
            policies: Vec::new(),
            ski: true,
            no_rev_avail: false,
            crl_dp: true,
            ocsp: false,
            allow_oids: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Lint {
    pub(super) set: String,
    pub(super) ignore: Vec<super::LintIgnore>,
}

impl Default for Lint {
    fn default() -> Self {
        Self {
            set: "private-v1".to_owned(),
            ignore: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Authz {
    pub(super) require: Vec<super::AuthMethod>,
    pub(super) rate: Option<Rate>,
    pub(super) approve: super::Approval,
}

impl Default for Authz {
    fn default() -> Self {
        Self {
            require: vec![super::AuthMethod::Mtls],
            rate: None,
            approve: super::Approval::None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    pub(super) per_principal: String,
    pub(super) burst: u32,
}
