//! Profiles that come with the product, as text: they are loaded like any other.

use crate::spiffe::TrustDomain;

/// X.509-SVIDs for callers whose own id is `/ns/X/sa/Y` in `trust_domain` (X509-SVID
/// §2 to §4, rule C23): exactly their own id, short-lived, no revocation.
#[must_use]
pub fn spiffe_svid(trust_domain: &TrustDomain, issuer: &str) -> String {
    format!(
        r#"name = "spiffe-svid"
version = 1
issuers = ["{issuer}"]

[validity]
default = "1h"
max = "24h"

[key]
allow = ["ec-p256", "ec-p384", "ed25519"]

[san]
max_total = 1
from_csr = true
[san.uri]
spiffe = {{ trust_domain = "{trust_domain}", path = "/ns/{{principal.ns}}/sa/{{principal.sa}}", count = 1 }}

[usage]
eku = ["serverAuth", "clientAuth"]

[extensions]
no_rev_avail = true
crl_dp = false

[lint]
ignore = [{{ code = "invalid_uri_syntax", reason = "a SPIFFE ID is a URI without a host name" }}]
"#
    )
}

/// Host names under `dev.example` for anybody: for trying out, not for production. No URLs
/// in it: where a developer's lists are read changes with each start.
#[must_use]
pub fn dev_service(issuer: &str) -> String {
    format!(
        r#"name = "dev-service"
version = 1
issuers = ["{issuer}"]

[validity]
default = "24h"
max = "72h"

[key]
allow = ["ec-p256", "ec-p384", "ec-p521", "ed25519", "rsa-2048", "rsa-3072", "rsa-4096"]

[[san.dns]]
match = "any-depth-under"
value = "dev.example"
wildcard = true
[san]
from_csr = true

[usage]
eku = ["serverAuth", "clientAuth"]

[extensions]
crl_dp = false
"#
    )
}
