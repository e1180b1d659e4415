//! One person's yes to a plan: a signature with the key of a client certificate.

use keywright_pki::SpiffeId;
use serde::Deserialize;

use super::Plan;

/// In front of the digest of a plan: no signature for something else is an approval.
const LABEL: &[u8] = b"keywright recovery approval 1\0";

/// What an approver writes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Version of this format: 1.
    pub keywright_recovery_approval: u32,
    /// SHA-256 of the plan, hexadecimal.
    pub plan: String,
    /// TLS number of the signature scheme (RFC 8446 §4.2.3).
    pub scheme: u16,
    /// The signature, hexadecimal.
    pub signature: String,
    /// The approver's certificate and what is between it and its CA: PEM.
    pub certificates: String,
}

/// Who said yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    /// Who.
    pub id: SpiffeId,
    /// SHA-256 of the certificate's key.
    pub spki: [u8; 32],
}

impl Approval {
    /// Longer texts are no approvals.
    pub const MAX_BYTES: usize = 1 << 16;

    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > Self::MAX_BYTES {
            return Err(format!("longer than {} bytes", Self::MAX_BYTES));
        }
        let read: Self =
            toml::from_str(text).map_err(|e| format!("not an approval of a plan: {e}"))?;
        if read.keywright_recovery_approval != 1 {
            return Err("an approval of another release of Keywright; make a new one".to_owned());
        }
        Ok(read)
    }

    /// Is it about this plan?
    ///
    /// # Errors
    /// It is about another one.
    pub fn is_of(&self, plan: &str) -> Result<(), String> {
        if self.plan == hex::encode(Plan::digest(plan)) {
            return Ok(());
        }
        Err("it is of another plan, or the plan was changed since".to_owned())
    }

    /// What its signature must be over.
    #[must_use]
    pub fn message(plan: &str) -> Vec<u8> {
        [LABEL, &Plan::digest(plan)].concat()
    }
}

impl Approver {
    /// So many different people, with different keys?
    ///
    /// # Errors
    /// Who said it twice, or how many more are needed.
    pub fn enough(approvers: &[Self], needed: u32) -> Result<(), String> {
        for (n, one) in approvers.iter().enumerate() {
            let before = approvers.get(..n).unwrap_or_default();
            if let Some(same) = before.iter().find(|b| b.id == one.id || b.spki == one.spki) {
                return Err(format!(
                    "{} and {} are one approver: the same identity or the same key counts once",
                    same.id, one.id
                ));
            }
        }
        let given = approvers.len();
        if given < needed as usize {
            return Err(format!(
                "{given} approvals; {needed} are needed, of different key administrators"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::plan::tests::plan, *};

    fn approver(id: &str, key: u8) -> Approver {
        Approver {
            id: SpiffeId::parse(id).unwrap(),
            spki: [key; 32],
        }
    }

    #[test]
    fn one_person_counts_once() {
        let (a, b) = (approver("spiffe://x/a", 1), approver("spiffe://x/b", 2));
        Approver::enough(&[a.clone(), b.clone()], 2).unwrap();
        let few = Approver::enough(std::slice::from_ref(&a), 2).unwrap_err();
        assert!(few.contains("1 approvals; 2 are needed"), "{few}");
        for twin in [approver("spiffe://x/a", 3), approver("spiffe://x/c", 1)] {
            let twice = Approver::enough(&[a.clone(), twin, b.clone()], 2).unwrap_err();
            assert!(twice.contains("are one approver"), "{twice}");
        }
    }

    #[test]
    fn an_approval_is_of_one_plan() {
        let text = plan().text().unwrap();
        let approval = format!(
            "keywright_recovery_approval = 1\nplan = \"{}\"\nscheme = 1027\nsignature = \"00\"\ncertificates = \"\"\n",
            hex::encode(Plan::digest(&text))
        );
        let approval = Approval::parse(&approval).unwrap();
        approval.is_of(&text).unwrap();
        approval.is_of(&format!("{text}\n")).unwrap_err();
        assert_ne!(Approval::message(&text), Approval::message(""));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_in_peace(text in ".{0,200}") {
            prop_assert!(Approval::parse(&text).is_err());
        }
    }
}
