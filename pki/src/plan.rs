//! What a certificate will say, every field fixed: the profile or the ceremony has
//! decided, and nothing after it decides again.

use std::net::IpAddr;

use der::asn1::ObjectIdentifier;

use crate::{San, Serial, Subject, SubjectKey};

/// RFC 5280 §4.1.2.5: `99991231235959Z`, for a certificate that does not expire.
pub const NO_EXPIRY: u64 = 253_402_300_799;

/// Every field of a certificate that its issuer does not fix. The serial is reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Reserved: the issuer has never used it.
    pub serial: Serial,
    /// May be empty, but not for a CA.
    pub subject: Subject,
    /// Checked by the key policy before.
    pub key: SubjectKey,
    /// Subject alternative names in the order they will have; may be empty for a CA.
    pub sans: Vec<San>,
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds; the last second of validity (rule C5).
    pub not_after: u64,
    /// What the certificate is for.
    pub kind: Kind,
    /// Where others look for revocation and for the issuer.
    pub urls: Urls,
    /// Whether the subject key identifier is written. A CA must have one.
    pub ski: bool,
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An end entity.
    Leaf {
        /// Beside digitalSignature.
        key_usage: KeyUsage,
        /// At least one, in the order they will have.
        ext_key_usage: Vec<Eku>,
        /// RFC 9608: no revocation is ever published; then no URL for it either.
        no_rev_avail: bool,
        /// Certificate policies without qualifiers.
        policies: Vec<ObjectIdentifier>,
    },
    /// A root or an intermediate: keyCertSign and cRLSign.
    Ca {
        /// How many CAs may follow; only a root may go without.
        path_len: Option<u8>,
        /// What the CA may name.
        constraints: NameConstraints,
    },
    /// A delegated OCSP signer (RFC 6960 §4.2.2.2): only id-kp-OCSPSigning, with
    /// id-pkix-ocsp-nocheck.
    OcspResponder,
}

/// Which key usages a leaf has beside digitalSignature (rule C13).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyUsage {
    /// RSA only.
    pub key_encipherment: bool,
    /// EC only.
    pub key_agreement: bool,
}

/// An extended key usage that a profile may choose (RFC 5280 §4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Eku {
    /// 1.3.6.1.5.5.7.3.1
    ServerAuth,
    /// 1.3.6.1.5.5.7.3.2
    ClientAuth,
    /// 1.3.6.1.5.5.7.3.3
    CodeSigning,
    /// 1.3.6.1.5.5.7.3.4
    EmailProtection,
}

/// `http` URLs from the issuer's configuration (rule C18).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Urls {
    /// CRL distribution point.
    pub crl_dp: Option<String>,
    /// The issuer's certificate.
    pub ca_issuers: Option<String>,
    /// OCSP responder.
    pub ocsp: Option<String>,
}

/// RFC 5280 §4.2.1.10. An empty list of one kind permits, or excludes, nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameConstraints {
    /// Names of a kind that occurs here must be under one of them.
    pub permitted: Vec<Subtree>,
    /// No name may be under one of them.
    pub excluded: Vec<Subtree>,
}

/// The base of a subtree of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subtree {
    /// The name and all below it; no leading dot, `""` is every name.
    Dns(String),
    /// Addresses whose first `prefix` bits are those of `address`.
    Ip {
        /// Bits behind the prefix are zero.
        address: IpAddr,
        /// At most 32 or 128.
        prefix: u8,
    },
    /// Hosts of URIs: one host, or with a leading dot all below it.
    UriHost(String),
}

impl NameConstraints {
    /// Nothing permitted and nothing excluded: the extension is not written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.permitted.is_empty() && self.excluded.is_empty()
    }
}

impl Eku {
    /// The last arc below id-kp, 1.3.6.1.5.5.7.3.
    pub(crate) const fn arc(self) -> u8 {
        match self {
            Self::ServerAuth => 1,
            Self::ClientAuth => 2,
            Self::CodeSigning => 3,
            Self::EmailProtection => 4,
        }
    }
}

impl Kind {
    /// Is it a CA's certificate?
    #[must_use]
    pub const fn is_ca(&self) -> bool {
        matches!(self, Self::Ca { .. })
    }

    /// Does it say that no revocation is published?
    pub(crate) const fn no_rev_avail(&self) -> bool {
        matches!(
            self,
            Self::Leaf {
                no_rev_avail: true,
                ..
            }
        )
    }
}
