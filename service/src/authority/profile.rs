//! A profile in force: what is on record, and the rules it says.

use super::ProfileRecord;

/// One version of a profile. It never changes.
#[derive(Debug)]
pub struct Profile {
    /// As it was put.
    pub record: ProfileRecord,
    /// What it says.
    pub rules: keywright_pki::Profile,
}
