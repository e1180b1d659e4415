//! What the token keeps for us beside keys: small facts under a label. They are no
//! secrets; that nobody without the PIN can change them is what they are kept there for.

use crate::{
    Result,
    error::{Error, Kind},
};

/// A data object of ours (`CKO_DATA`, `CKA_APPLICATION` "keywright").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataObject {
    /// CKA_LABEL: which fact, UTF-8, at most [`DataObject::MAX_BYTES`].
    pub label: String,
    /// CKA_VALUE: any bytes, 1 to [`DataObject::MAX_BYTES`].
    pub value: Vec<u8>,
}

impl DataObject {
    /// The longest label and the longest value, in bytes. Tokens have little room for
    /// data; what is longer is not ours.
    pub const MAX_BYTES: usize = 256;

    pub(crate) fn new(label: String, value: Vec<u8>) -> Result<Self> {
        // SoftHSM shows an object it was killed over with an empty value.
        if value.is_empty() {
            return Err(Error::new(Kind::Fault, "no bytes for a data object"));
        }
        let longest = label.len().max(value.len());
        if longest > Self::MAX_BYTES {
            return Err(Error::new(
                Kind::Fault,
                format!(
                    "{longest} bytes for a data object; at most {} fit",
                    Self::MAX_BYTES
                ),
            ));
        }
        Ok(Self { label, value })
    }
}
