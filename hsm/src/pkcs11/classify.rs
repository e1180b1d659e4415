//! One table: which return value means what, and what may help.
//!
//! Return values do not mean what they say: `CKR_GENERAL_ERROR` is SoftHSM's word
//! for a forged ciphertext and for a lost token. Such answers are *ambiguous*; the
//! session settles them by opening the key's proof before it blames anyone.

use cryptoki::error::{Error as CkError, Rv, RvError};

use crate::error::{Error, Kind, Remedy};

/// What a return value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The input was not made by this key.
    Caller,
    /// The token forbids or cannot.
    Policy,
    /// The handle is not valid any more, or never was.
    Handle,
    /// The session is gone or busy.
    Session,
    /// The login is gone.
    Login,
    /// The PIN is wrong, locked or expired.
    Pin,
    /// No session or memory left for now.
    Busy,
    /// The token is gone.
    Token,
    /// The module must be initialised again.
    Module,
    /// Could be anything; ask a proof.
    Ambiguous,
}

pub(crate) fn classify(rv: RvError) -> Class {
    use RvError as R;
    match rv {
        R::DataInvalid
        | R::DataLenRange
        | R::EncryptedDataInvalid
        | R::EncryptedDataLenRange
        | R::SignatureInvalid
        | R::SignatureLenRange
        | R::WrappedKeyInvalid
        | R::WrappedKeyLenRange => Class::Caller,
        // CKR_AEAD_DECRYPT_FAILED of PKCS#11 3.0, which cryptoki does not name.
        R::UnknownErrorCode(0x42) => Class::Caller,
        R::KeyFunctionNotPermitted
        | R::MechanismInvalid
        | R::MechanismParamInvalid
        | R::KeyUnextractable
        | R::KeyNotWrappable
        | R::ActionProhibited
        | R::AttributeReadOnly
        | R::AttributeSensitive
        | R::AttributeTypeInvalid
        | R::AttributeValueInvalid
        | R::TemplateIncomplete
        | R::TemplateInconsistent
        | R::KeySizeRange
        | R::KeyTypeInconsistent
        | R::FunctionNotSupported
        | R::TokenWriteProtected
        | R::ArgumentsBad => Class::Policy,
        R::ObjectHandleInvalid
        | R::KeyHandleInvalid
        | R::WrappingKeyHandleInvalid
        | R::UnwrappingKeyHandleInvalid => Class::Handle,
        R::SessionHandleInvalid
        | R::SessionClosed
        | R::OperationActive
        | R::OperationNotInitialized
        | R::BufferTooSmall => Class::Session,
        R::UserNotLoggedIn => Class::Login,
        R::PinIncorrect
        | R::PinInvalid
        | R::PinLenRange
        | R::PinExpired
        | R::PinLocked
        | R::UserPinNotInitialized
        | R::UserAnotherAlreadyLoggedIn => Class::Pin,
        R::SessionCount | R::DeviceMemory | R::HostMemory => Class::Busy,
        R::TokenNotPresent | R::TokenNotRecognized | R::DeviceRemoved | R::SlotIdInvalid => {
            Class::Token
        }
        R::CryptokiNotInitialized | R::LibraryLoadFailed | R::MutexBad | R::MutexNotLocked => {
            Class::Module
        }
        _ => Class::Ambiguous,
    }
}

/// Turns a return value into an error that says who must act.
pub(crate) fn explain(function: &str, rv: RvError) -> Error {
    let (kind, remedy) = match classify(rv) {
        Class::Caller => (Kind::Refused, Remedy::None),
        Class::Policy => (Kind::Unsupported, Remedy::None),
        Class::Handle | Class::Session => (Kind::Stale, Remedy::Session),
        Class::Login => (Kind::Stale, Remedy::Login),
        Class::Pin => (Kind::Blocked, Remedy::None),
        Class::Busy => (Kind::Busy, Remedy::None),
        Class::Token | Class::Module => (Kind::Gone, Remedy::Module),
        Class::Ambiguous => (Kind::Fault, Remedy::None),
    };
    Error::new(kind, format!("{function} answered {}", name(rv))).with_remedy(remedy)
}

/// The same for errors of `cryptoki`.
pub(crate) fn from_cryptoki(error: &CkError) -> Error {
    match error {
        CkError::Pkcs11(rv, function) => explain(&format!("C_{function:?}"), *rv),
        other => Error::new(Kind::Fault, other.to_string()),
    }
}

/// The return value behind a `cryptoki` error, if there is one.
pub(crate) fn return_value(error: &CkError) -> Option<RvError> {
    match error {
        CkError::Pkcs11(rv, _) => Some(*rv),
        _ => None,
    }
}

/// The same for a raw number; `None` for CKR_OK.
pub(crate) fn from_number(rv: cryptoki_sys::CK_RV) -> Option<RvError> {
    match Rv::from(rv) {
        Rv::Ok => None,
        Rv::Error(rv) => Some(rv),
    }
}

/// `CKR_GENERAL_ERROR` rather than `GeneralError`.
pub(crate) fn name(rv: RvError) -> String {
    if let RvError::UnknownErrorCode(n) | RvError::VendorDefined(n) = rv {
        return format!("CKR {n:#x}");
    }
    let mut out = String::from("CKR");
    for c in format!("{rv:?}").chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_facts_holds() {
        for (rv, class) in [
            (RvError::EncryptedDataInvalid, Class::Caller),
            (RvError::UnknownErrorCode(0x42), Class::Caller),
            (RvError::KeyUnextractable, Class::Policy),
            (RvError::ObjectHandleInvalid, Class::Handle),
            (RvError::OperationActive, Class::Session),
            (RvError::UserNotLoggedIn, Class::Login),
            (RvError::PinLocked, Class::Pin),
            (RvError::SessionCount, Class::Busy),
            (RvError::DeviceRemoved, Class::Token),
            (RvError::CryptokiNotInitialized, Class::Module),
            (RvError::GeneralError, Class::Ambiguous),
            (RvError::FunctionFailed, Class::Ambiguous),
            (RvError::DeviceError, Class::Ambiguous),
            (RvError::VendorDefined(0x8000_0001), Class::Ambiguous),
        ] {
            assert_eq!(classify(rv), class, "{rv:?}");
        }
    }

    #[test]
    fn a_wrong_pin_has_no_remedy() {
        let e = explain("C_Login", RvError::PinIncorrect);
        assert_eq!((e.kind(), e.remedy()), (Kind::Blocked, Remedy::None));
        assert_eq!(e.to_string(), "C_Login answered CKR_PIN_INCORRECT");
    }
}
