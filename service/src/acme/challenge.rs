//! Proof that a client controls a name: an authorization and its challenges (RFC 8555
//! §7.1.4 and §8, RFC 8737, RFC 8738).

use keywright_pki::San;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{AccountKey, AcmeId, encode64, order::identifier_json};
use crate::{authority::AuthorityName, clock::rfc3339};

/// How control is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChallengeKind {
    /// A file on port 80.
    #[serde(rename = "http-01")]
    Http01,
    /// A TXT record.
    #[serde(rename = "dns-01")]
    Dns01,
    /// A certificate on port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl ChallengeKind {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Http01, Self::Dns01, Self::TlsAlpn01];

    /// As on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }

    /// The inverse of [`ChallengeKind::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == text)
    }

    /// A wildcard is shown in DNS only (RFC 8555 §8.3, RFC 8737 §3), an address anywhere
    /// but there (RFC 8738 §7).
    #[must_use]
    pub fn fits(self, name: &San) -> bool {
        match name {
            San::Dns(name) => self == Self::Dns01 || !name.is_wildcard(),
            San::Ip(_) => self != Self::Dns01,
            San::Uri(_) => false,
        }
    }
}

/// Where a challenge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChallengeStatus {
    /// The client has not answered.
    Pending,
    /// It has; we are looking.
    Processing,
    /// Seen.
    Valid,
    /// Not seen, or something else.
    Invalid,
}

/// One way to show control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Which way.
    pub kind: ChallengeKind,
    /// 128 random bits in base64url. Never written to a log.
    pub token: String,
    /// Where it stands.
    pub status: ChallengeStatus,
    /// When control was seen, in milliseconds since the epoch.
    pub validated_ms: Option<i64>,
    /// What was seen instead: a problem document.
    pub error: Option<Value>,
}

/// Where an authorization stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorizationStatus {
    /// Control is still to be shown.
    Pending,
    /// It was.
    Valid,
    /// It was not.
    Invalid,
    /// Given up by the client.
    Deactivated,
    /// Too old. Never stored: seen from the clock.
    Expired,
}

impl AuthorizationStatus {
    const ALL: [Self; 5] = [
        Self::Pending,
        Self::Valid,
        Self::Invalid,
        Self::Deactivated,
        Self::Expired,
    ];

    /// As on the wire and in the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Deactivated => "deactivated",
            Self::Expired => "expired",
        }
    }

    /// The inverse of [`AuthorizationStatus::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == text)
    }
}

/// An authorization on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Its name in URLs.
    pub id: AcmeId,
    /// Whose.
    pub account: AcmeId,
    /// For which name; may be a wildcard.
    pub name: San,
    /// The profile of its order: it says how far we look.
    pub profile: AuthorityName,
    /// Where it stands.
    pub status: AuthorizationStatus,
    /// Ways to show control.
    pub challenges: Vec<Challenge>,
    /// Milliseconds since the epoch.
    pub expires_ms: i64,
    /// Rises with each change; who changed it in between wins.
    pub revision: i64,
}

impl Authorization {
    /// One for a name, with a challenge of each fitting kind.
    #[must_use]
    pub fn new(
        id: AcmeId,
        account: AcmeId,
        (name, profile): (San, AuthorityName),
        tokens: [AcmeId; 3],
        expires_ms: i64,
    ) -> Self {
        let kinds = ChallengeKind::ALL.into_iter().zip(tokens);
        let challenges = kinds
            .filter(|(kind, _)| kind.fits(&name))
            .map(|(kind, token)| Challenge {
                kind,
                token: token.as_str().to_owned(),
                status: ChallengeStatus::Pending,
                validated_ms: None,
                error: None,
            });
        Self {
            challenges: challenges.collect(),
            id,
            account,
            name,
            profile,
            status: AuthorizationStatus::Pending,
            expires_ms,
            revision: 0,
        }
    }

    /// Where it stands at this time.
    #[must_use]
    pub fn status_at(&self, now_ms: i64) -> AuthorizationStatus {
        match self.status {
            AuthorizationStatus::Pending | AuthorizationStatus::Valid
                if now_ms > self.expires_ms =>
            {
                AuthorizationStatus::Expired
            }
            status => status,
        }
    }

    /// The challenge of a kind.
    #[must_use]
    pub fn challenge(&self, kind: ChallengeKind) -> Option<&Challenge> {
        self.challenges.iter().find(|c| c.kind == kind)
    }

    /// As it is once the client has answered a challenge.
    #[must_use]
    pub fn answered(&self, kind: ChallengeKind) -> Self {
        let mut next = self.next();
        for challenge in next.challenges.iter_mut().filter(|c| c.kind == kind) {
            challenge.status = ChallengeStatus::Processing;
        }
        next
    }

    /// As it is once we have looked. A valid challenge makes it valid, an invalid one
    /// invalid, for good (RFC 8555 §7.1.6).
    #[must_use]
    pub fn judged(&self, kind: ChallengeKind, seen: Result<i64, Value>) -> Self {
        let mut next = self.next();
        for challenge in next.challenges.iter_mut().filter(|c| c.kind == kind) {
            match &seen {
                Ok(at_ms) => {
                    challenge.status = ChallengeStatus::Valid;
                    challenge.validated_ms = Some(*at_ms);
                }
                Err(problem) => {
                    challenge.status = ChallengeStatus::Invalid;
                    challenge.error = Some(problem.clone());
                }
            }
        }
        next.status = match seen {
            Ok(_) => AuthorizationStatus::Valid,
            Err(_) => AuthorizationStatus::Invalid,
        };
        next
    }

    /// As it is once the client gave it up.
    #[must_use]
    pub fn deactivated(&self) -> Self {
        Self {
            status: AuthorizationStatus::Deactivated,
            ..self.next()
        }
    }

    fn next(&self) -> Self {
        Self {
            revision: self.revision + 1,
            ..self.clone()
        }
    }

    /// The object of RFC 8555 §7.1.4. Once it is decided, only the challenge that decided
    /// is shown.
    #[must_use]
    pub fn document(&self, now_ms: i64, url: impl Fn(ChallengeKind) -> String) -> Value {
        let open = self.status == AuthorizationStatus::Pending;
        let shown = self.challenges.iter().filter(|c| {
            open || matches!(c.status, ChallengeStatus::Valid | ChallengeStatus::Invalid)
        });
        let challenges: Vec<Value> = shown.map(|c| c.document(&url(c.kind))).collect();
        let (name, wildcard) = match &self.name {
            San::Dns(name) if name.is_wildcard() => {
                (json!({"type": "dns", "value": name.host()}), true)
            }
            other => (identifier_json(other), false),
        };
        let mut document = json!({
            "identifier": name,
            "status": self.status_at(now_ms).name(),
            "expires": rfc3339(self.expires_ms),
            "challenges": challenges,
        });
        if let (true, Some(map)) = (wildcard, document.as_object_mut()) {
            map.insert("wildcard".into(), json!(true));
        }
        document
    }
}

impl Challenge {
    /// The object of RFC 8555 §8.
    #[must_use]
    pub fn document(&self, url: &str) -> Value {
        let mut document = json!({
            "type": self.kind.name(),
            "url": url,
            "status": self.status,
            "token": self.token,
        });
        if let Some(map) = document.as_object_mut() {
            if let Some(at_ms) = self.validated_ms {
                map.insert("validated".into(), json!(rfc3339(at_ms)));
            }
            if let Some(error) = &self.error {
                map.insert("error".into(), error.clone());
            }
        }
        document
    }

    /// What the host must show (RFC 8555 §8.1).
    #[must_use]
    pub fn key_authorization(&self, key: &AccountKey) -> String {
        format!("{}.{}", self.token, key.thumbprint())
    }
}

/// SHA-256 of a key authorisation: in base64url the TXT record of dns-01, as octets the
/// extension of tls-alpn-01.
#[must_use]
pub(crate) fn key_authorization_sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The TXT record of dns-01 (RFC 8555 §8.4).
#[must_use]
pub(crate) fn txt_value(key_authorization: &str) -> String {
    encode64(&key_authorization_sha256(key_authorization))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(name: &str) -> Authorization {
        let id = |n| AcmeId::from_random([n; 16]);
        let name = name.parse().unwrap();
        let profile = AuthorityName::parse("p").unwrap();
        Authorization::new(id(1), id(2), (name, profile), [id(3), id(4), id(5)], 100)
    }

    #[test]
    fn a_wildcard_is_shown_in_dns_only_and_an_address_never_there() {
        let kinds = |name: &str| {
            let all = authorization(name).challenges;
            all.iter().map(|c| c.kind.name()).collect::<Vec<_>>()
        };
        assert_eq!(kinds("dns:*.a.example"), ["dns-01"]);
        assert_eq!(kinds("dns:a.example"), ["http-01", "dns-01", "tls-alpn-01"]);
        assert_eq!(kinds("ip:192.0.2.1"), ["http-01", "tls-alpn-01"]);
    }

    #[test]
    fn what_is_decided_stays_and_expires() {
        let pending = authorization("dns:*.a.example");
        let valid = pending
            .answered(ChallengeKind::Dns01)
            .judged(ChallengeKind::Dns01, Ok(7));
        assert_eq!(valid.status_at(100), AuthorizationStatus::Valid);
        assert_eq!(valid.status_at(101), AuthorizationStatus::Expired);
        assert_eq!(valid.revision, 2);
        let document = valid.document(50, |k| k.name().to_owned());
        assert_eq!(document["wildcard"], true);
        assert_eq!(document["identifier"]["value"], "a.example");
        assert_eq!(document["challenges"][0]["status"], "valid");
        assert!(document["challenges"][0].get("error").is_none());
        let invalid = pending.judged(ChallengeKind::Dns01, Err(json!({"type": "x"})));
        assert_eq!(invalid.status_at(101), AuthorizationStatus::Invalid);
    }
}
