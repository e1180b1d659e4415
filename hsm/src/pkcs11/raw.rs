//! The only unsafe code of Keywright: PKCS#11 calls that `cryptoki` does not offer
//! or makes too often.
//!
//! Why it is needed:
//! - `cryptoki`'s `encrypt`/`decrypt` call the C function twice and trust the length
//!   query, which is wrong on some tokens; the hot path wants Init + one call into a
//!   buffer that is large enough.
//! - `get_token_info` fails as a whole when a token's clock field is not digits.
//! - The attack suite must try every mechanism number a token lists, also those
//!   `cryptoki` cannot name, and look at the raw answer.
//!
//! Why it is sound: the function list belongs to a library that is never unloaded
//! ([`Raw`] owns it and lives as long as the process), every pointer passed points
//! into a live slice or local of this call, and every length passed is that of the
//! same slice. Sessions and objects are numbers the token checks itself.
#![expect(
    unsafe_code,
    reason = "PKCS#11 is a C interface; see the module documentation"
)]

use std::{ffi::c_void, path::Path, ptr};

use cryptoki::{object::ObjectHandle, session::Session, slot::Slot};
use cryptoki_sys as ck;
use cryptoki_sys::{CK_ATTRIBUTE_TYPE, CK_MECHANISM_TYPE, CK_RV, CK_ULONG, CKR_OK};
use zeroize::Zeroizing;

use super::params::Params;
use crate::{
    Result, WrappedDek,
    error::{Error, Kind},
};

/// A PKCS#11 library and its version 2.40 function list.
pub(crate) struct Raw {
    // Keeps the library loaded for as long as the pointers below are used.
    _library: ck::Pkcs11,
    list: ck::CK_FUNCTION_LIST,
}

// SAFETY: the function list is immutable after loading, and the module is
// initialised with CKF_OS_LOCKING_OK, which obliges it to be thread-safe.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

/// CK_TOKEN_INFO, as text, without the clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenFacts {
    pub(crate) label: String,
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) manufacturer: String,
    pub(crate) firmware: String,
    pub(crate) flags: u64,
}

/// What a token lists for one mechanism.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    pub(crate) mechanism: CK_MECHANISM_TYPE,
    pub(crate) flags: u64,
}

const MISSING: CK_RV = ck::CKR_FUNCTION_NOT_SUPPORTED;
/// Room for tokens that return more than the standard says.
pub(crate) const SLACK: usize = 64;

impl Raw {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let refuse = |why: String| {
            Error::new(
                Kind::Setup,
                format!("{} is not a PKCS#11 module: {why}", path.display()),
            )
        };
        // SAFETY: loading runs the library's initialisers; the path was checked to be
        // absolute, to exist and to be writable by its owner only (`module_path`).
        let library = unsafe { ck::Pkcs11::new(path) }.map_err(|e| refuse(e.to_string()))?;
        if library.C_GetFunctionList.is_err() {
            return Err(refuse("it has no C_GetFunctionList".into()));
        }
        let mut list: ck::CK_FUNCTION_LIST_PTR = ptr::null_mut();
        // SAFETY: the symbol exists (checked above) and `list` is a valid out pointer.
        let rv = unsafe { library.C_GetFunctionList(&raw mut list) };
        if rv != CKR_OK || list.is_null() {
            return Err(refuse(format!("C_GetFunctionList answered {rv:#x}")));
        }
        // SAFETY: not null, and PKCS#11 §5.2 says it points to a function list that
        // lives as long as the library.
        let list = unsafe { *list };
        Ok(Self {
            _library: library,
            list,
        })
    }

    /// AES-GCM of up to a DEK. Returns the number of bytes written to `out`.
    pub(crate) fn gcm_encrypt(
        &self,
        session: &Session,
        key: ObjectHandle,
        iv: &[u8; WrappedDek::IV_LEN],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CK_RV> {
        let (Some(init), Some(run)) = (self.list.C_EncryptInit, self.list.C_Encrypt) else {
            return Err(MISSING);
        };
        self.gcm(init, run, session, key, iv, aad, plaintext, out)
    }

    /// Opens what [`Raw::gcm_encrypt`] made.
    pub(crate) fn gcm_decrypt(
        &self,
        session: &Session,
        key: ObjectHandle,
        iv: &[u8; WrappedDek::IV_LEN],
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CK_RV> {
        let (Some(init), Some(run)) = (self.list.C_DecryptInit, self.list.C_Decrypt) else {
            return Err(MISSING);
        };
        self.gcm(init, run, session, key, iv, aad, sealed, out)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call of a C interface, written once for both directions"
    )]
    fn gcm(
        &self,
        init: InitFn,
        run: RunFn,
        session: &Session,
        key: ObjectHandle,
        iv: &[u8; WrappedDek::IV_LEN],
        aad: &[u8],
        input: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CK_RV> {
        // Some HSMs write into the IV buffer: never hand out the caller's.
        let mut iv = *iv;
        let mut params = gcm_params(&mut iv, aad);
        let mut mechanism = ck::CK_MECHANISM {
            mechanism: ck::CKM_AES_GCM,
            pParameter: (&raw mut params).cast(),
            ulParameterLen: size::<ck::CK_GCM_PARAMS>(),
        };
        // SAFETY: `mechanism`, `params`, `iv` and `aad` outlive the call.
        ok(unsafe { init(session.handle(), &raw mut mechanism, key.handle()) })?;
        run_once(run, session, input, out)
    }

    pub(crate) fn token_facts(&self, slot: Slot) -> Result<TokenFacts, CK_RV> {
        let get = self.list.C_GetTokenInfo.ok_or(MISSING)?;
        let mut info = ck::CK_TOKEN_INFO::default();
        // SAFETY: `info` is a valid out pointer of the right type.
        ok(unsafe { get(slot.id(), &raw mut info) })?;
        Ok(TokenFacts {
            label: padded(&info.label),
            serial: padded(&info.serialNumber),
            model: padded(&info.model),
            manufacturer: padded(&info.manufacturerID),
            firmware: format!(
                "{}.{}",
                info.firmwareVersion.major, info.firmwareVersion.minor
            ),
            flags: info.flags,
        })
    }

    /// Every mechanism the slot lists, also those nobody knows by name.
    pub(crate) fn mechanisms(&self, slot: Slot) -> Result<Vec<Listed>, CK_RV> {
        let list = self.list.C_GetMechanismList.ok_or(MISSING)?;
        let info = self.list.C_GetMechanismInfo.ok_or(MISSING)?;
        let mut count: CK_ULONG = 0;
        // SAFETY: a null list asks for the count only (PKCS#11 §5.5).
        ok(unsafe { list(slot.id(), ptr::null_mut(), &raw mut count) })?;
        let mut types = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: `types` has room for `count` numbers.
        ok(unsafe { list(slot.id(), types.as_mut_ptr(), &raw mut count) })?;
        types.truncate(usize::try_from(count).unwrap_or(0));
        let flags = |mechanism| {
            let mut answer = ck::CK_MECHANISM_INFO::default();
            // SAFETY: `answer` is a valid out pointer of the right type.
            let rv = unsafe { info(slot.id(), mechanism, &raw mut answer) };
            (rv == CKR_OK).then_some(Listed {
                mechanism,
                flags: answer.flags,
            })
        };
        Ok(types.into_iter().filter_map(flags).collect())
    }

    /// C_GetAttributeValue of one attribute. Returns the value and what the token
    /// says; the buffer is returned also when the token refused, because a token
    /// that refuses and writes all the same is the one to be caught.
    pub(crate) fn read_attribute(
        &self,
        session: &Session,
        object: ObjectHandle,
        attribute: CK_ATTRIBUTE_TYPE,
    ) -> (CK_RV, CK_ULONG, Vec<u8>) {
        let mut buffer = vec![0; 1024];
        let Some(get) = self.list.C_GetAttributeValue else {
            return (MISSING, ck::CK_UNAVAILABLE_INFORMATION, buffer);
        };
        let mut template = ck::CK_ATTRIBUTE {
            type_: attribute,
            pValue: buffer.as_mut_ptr().cast(),
            ulValueLen: len(&buffer),
        };
        // SAFETY: one attribute, whose value pointer and length are those of `buffer`.
        let rv = unsafe { get(session.handle(), object.handle(), &raw mut template, 1) };
        (rv, template.ulValueLen, buffer)
    }

    /// C_WrapKey with any mechanism. Returns the wrapped bytes if any came out.
    pub(crate) fn wrap_key(
        &self,
        session: &Session,
        mechanism: CK_MECHANISM_TYPE,
        params: &Params,
        wrapping: ObjectHandle,
        key: ObjectHandle,
    ) -> Result<Vec<u8>, CK_RV> {
        let wrap = self.list.C_WrapKey.ok_or(MISSING)?;
        let mut out = vec![0; 1024];
        let mut written = len(&out);
        let rv = with_mechanism(mechanism, params, |m| {
            // SAFETY: `m` and what it points to outlive the call; `out` has `written`
            // bytes.
            unsafe {
                wrap(
                    session.handle(),
                    m,
                    wrapping.handle(),
                    key.handle(),
                    out.as_mut_ptr(),
                    &raw mut written,
                )
            }
        });
        ok(rv)?;
        out.truncate(usize::try_from(written).unwrap_or(0));
        Ok(out)
    }

    /// C_DeriveKey with any mechanism into a readable 16-byte generic secret.
    pub(crate) fn derive_readable(
        &self,
        session: &Session,
        mechanism: CK_MECHANISM_TYPE,
        params: &Params,
        base: ObjectHandle,
    ) -> Result<(), CK_RV> {
        let derive = self.list.C_DeriveKey.ok_or(MISSING)?;
        let (mut class, mut kind) = (ck::CKO_SECRET_KEY, ck::CKK_GENERIC_SECRET);
        let (mut yes, mut no, mut size) = (ck::CK_TRUE, ck::CK_FALSE, 16 as CK_ULONG);
        let mut template = [
            attribute(ck::CKA_CLASS, &mut class),
            attribute(ck::CKA_KEY_TYPE, &mut kind),
            attribute(ck::CKA_EXTRACTABLE, &mut yes),
            attribute(ck::CKA_SENSITIVE, &mut no),
            attribute(ck::CKA_VALUE_LEN, &mut size),
        ];
        let count = template.len() as CK_ULONG;
        let mut handle = 0;
        let rv = with_mechanism(mechanism, params, |m| {
            // SAFETY: `m`, the template and the values it points to are locals that
            // outlive the call; `handle` is a valid out pointer.
            unsafe {
                derive(
                    session.handle(),
                    m,
                    base.handle(),
                    template.as_mut_ptr(),
                    count,
                    &raw mut handle,
                )
            }
        });
        ok(rv)
    }

    /// C_EncryptInit + C_Encrypt of one block with any mechanism.
    pub(crate) fn encrypt(
        &self,
        session: &Session,
        mechanism: CK_MECHANISM_TYPE,
        params: &Params,
        key: ObjectHandle,
        input: &[u8],
    ) -> Result<Vec<u8>, CK_RV> {
        let (Some(init), Some(run)) = (self.list.C_EncryptInit, self.list.C_Encrypt) else {
            return Err(MISSING);
        };
        let mut out = vec![0; input.len() + SLACK];
        let n = one_part(init, run, session, mechanism, params, key, input, &mut out)?;
        out.truncate(n);
        Ok(out)
    }

    /// C_SignInit + C_Sign: signatures and MACs, in one part.
    pub(crate) fn sign(
        &self,
        session: &Session,
        mechanism: CK_MECHANISM_TYPE,
        params: &Params,
        key: ObjectHandle,
        input: &[u8],
    ) -> Result<Vec<u8>, CK_RV> {
        let (Some(init), Some(run)) = (self.list.C_SignInit, self.list.C_Sign) else {
            return Err(MISSING);
        };
        let mut out = vec![0; SIGNATURE_BUFFER];
        let n = one_part(init, run, session, mechanism, params, key, input, &mut out)?;
        out.truncate(n);
        Ok(out)
    }

    /// C_VerifyInit + C_Verify. The product verifies in process; published vectors are
    /// also held against the token.
    #[cfg(feature = "vectors")]
    pub(crate) fn verify(
        &self,
        session: &Session,
        mechanism: CK_MECHANISM_TYPE,
        params: &Params,
        key: ObjectHandle,
        input: &[u8],
        signature: &[u8],
    ) -> Result<(), CK_RV> {
        let (Some(init), Some(run)) = (self.list.C_VerifyInit, self.list.C_Verify) else {
            return Err(MISSING);
        };
        ok(with_mechanism(mechanism, params, |m| {
            // SAFETY: `m` and what it points to outlive the call.
            unsafe { init(session.handle(), m, key.handle()) }
        }))?;
        let (data, sig) = (input.as_ptr().cast_mut(), signature.as_ptr().cast_mut());
        // SAFETY: both are live slices and the lengths are theirs; PKCS#11 does not write
        // through these pointers.
        ok(unsafe { run(session.handle(), data, len(input), sig, len(signature)) })
    }

    /// C_DecryptInit + C_Decrypt with any mechanism. What came out is cleared when
    /// dropped.
    pub(crate) fn decrypt(
        &self,
        session: &Session,
        mechanism: CK_MECHANISM_TYPE,
        params: &Params,
        key: ObjectHandle,
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CK_RV> {
        let (Some(init), Some(run)) = (self.list.C_DecryptInit, self.list.C_Decrypt) else {
            return Err(MISSING);
        };
        let mut out = Zeroizing::new(vec![0; input.len() + SLACK]);
        let n = one_part(init, run, session, mechanism, params, key, input, &mut out)?;
        out.truncate(n);
        Ok(out)
    }

    /// C_DigestInit, C_DigestKey, C_DigestFinal with any mechanism. Returns the digest.
    pub(crate) fn digest_key(
        &self,
        session: &Session,
        mechanism: CK_MECHANISM_TYPE,
        key: ObjectHandle,
    ) -> Result<Vec<u8>, CK_RV> {
        let (Some(init), Some(update), Some(last)) = (
            self.list.C_DigestInit,
            self.list.C_DigestKey,
            self.list.C_DigestFinal,
        ) else {
            return Err(MISSING);
        };
        ok(with_mechanism(mechanism, &Params::None, |m| {
            // SAFETY: `m` outlives the call.
            unsafe { init(session.handle(), m) }
        }))?;
        // SAFETY: two numbers.
        ok(unsafe { update(session.handle(), key.handle()) })?;
        let mut out = vec![0; 256];
        let mut written = len(&out);
        // SAFETY: `out` has `written` bytes.
        ok(unsafe { last(session.handle(), out.as_mut_ptr(), &raw mut written) })?;
        out.truncate(usize::try_from(written).unwrap_or(0));
        Ok(out)
    }

    /// C_GetOperationState of the session. Returns the state if any came out.
    pub(crate) fn operation_state(&self, session: &Session) -> Result<Vec<u8>, CK_RV> {
        let get = self.list.C_GetOperationState.ok_or(MISSING)?;
        let mut out = vec![0; 4096];
        let mut written = len(&out);
        // SAFETY: `out` has `written` bytes.
        ok(unsafe { get(session.handle(), out.as_mut_ptr(), &raw mut written) })?;
        out.truncate(usize::try_from(written).unwrap_or(0));
        Ok(out)
    }
}

type InitFn = unsafe extern "C" fn(
    ck::CK_SESSION_HANDLE,
    *mut ck::CK_MECHANISM,
    ck::CK_OBJECT_HANDLE,
) -> CK_RV;
type RunFn =
    unsafe extern "C" fn(ck::CK_SESSION_HANDLE, *mut u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV;

/// Init and one call, into a buffer that is large enough; how much was written.
#[expect(
    clippy::too_many_arguments,
    reason = "one call of a C interface, written once for three functions"
)]
fn one_part(
    init: InitFn,
    run: RunFn,
    session: &Session,
    mechanism: CK_MECHANISM_TYPE,
    params: &Params,
    key: ObjectHandle,
    input: &[u8],
    out: &mut [u8],
) -> Result<usize, CK_RV> {
    ok(with_mechanism(mechanism, params, |m| {
        // SAFETY: `m` and what it points to outlive the call.
        unsafe { init(session.handle(), m, key.handle()) }
    }))?;
    run_once(run, session, input, out)
}

/// The one call after Init, into a buffer that is large enough; how much was written.
fn run_once(run: RunFn, session: &Session, input: &[u8], out: &mut [u8]) -> Result<usize, CK_RV> {
    let room = out.len();
    let mut written = len(out);
    // SAFETY: `input` and `out` are live slices and the lengths are theirs. PKCS#11 does
    // not write through the input pointer.
    ok(unsafe {
        run(
            session.handle(),
            input.as_ptr().cast_mut(),
            len(input),
            out.as_mut_ptr(),
            &raw mut written,
        )
    })?;
    usize::try_from(written)
        .ok()
        .filter(|n| *n <= room)
        .ok_or(ck::CKR_BUFFER_TOO_SMALL)
}

fn ok(rv: CK_RV) -> Result<(), CK_RV> {
    if rv == CKR_OK { Ok(()) } else { Err(rv) }
}

fn len(bytes: &[u8]) -> CK_ULONG {
    bytes.len() as CK_ULONG
}

fn size<T>() -> CK_ULONG {
    size_of::<T>() as CK_ULONG
}

fn attribute<T>(kind: CK_ATTRIBUTE_TYPE, value: &mut T) -> ck::CK_ATTRIBUTE {
    ck::CK_ATTRIBUTE {
        type_: kind,
        pValue: ptr::from_mut(value).cast(),
        ulValueLen: size::<T>(),
    }
}

fn gcm_params(iv: &mut [u8; WrappedDek::IV_LEN], aad: &[u8]) -> ck::CK_GCM_PARAMS {
    ck::CK_GCM_PARAMS {
        pIv: iv.as_mut_ptr(),
        ulIvLen: len(iv),
        ulIvBits: len(iv) * 8,
        pAAD: aad.as_ptr().cast_mut(),
        ulAADLen: len(aad),
        ulTagBits: (WrappedDek::TAG_LEN * 8) as CK_ULONG,
    }
}

/// Builds the C mechanism on the stack, runs `call` with it, and lets it go.
fn with_mechanism(
    mechanism: CK_MECHANISM_TYPE,
    params: &Params,
    call: impl FnOnce(*mut ck::CK_MECHANISM) -> CK_RV,
) -> CK_RV {
    let run = |parameter: *mut c_void, size: CK_ULONG| {
        let mut m = ck::CK_MECHANISM {
            mechanism,
            pParameter: parameter,
            ulParameterLen: size,
        };
        call(&raw mut m)
    };
    match params {
        Params::None => run(ptr::null_mut(), 0),
        Params::Bytes(bytes) => {
            let mut bytes = bytes.clone();
            let size = len(&bytes);
            run(bytes.as_mut_ptr().cast(), size)
        }
        Params::Gcm { iv, aad } => {
            let mut iv = *iv;
            let mut p = gcm_params(&mut iv, aad);
            run((&raw mut p).cast(), size::<ck::CK_GCM_PARAMS>())
        }
        Params::Oaep { hash, mgf } => {
            let mut p = ck::CK_RSA_PKCS_OAEP_PARAMS {
                hashAlg: *hash,
                mgf: *mgf,
                source: ck::CKZ_DATA_SPECIFIED,
                pSourceData: ptr::null_mut(),
                ulSourceDataLen: 0,
            };
            run((&raw mut p).cast(), size::<ck::CK_RSA_PKCS_OAEP_PARAMS>())
        }
        Params::Pss {
            hash,
            mgf,
            salt_len,
        } => {
            let mut p = ck::CK_RSA_PKCS_PSS_PARAMS {
                hashAlg: *hash,
                mgf: *mgf,
                sLen: *salt_len as CK_ULONG,
            };
            run((&raw mut p).cast(), size::<ck::CK_RSA_PKCS_PSS_PARAMS>())
        }
        Params::KeyString(data) => {
            let mut data = data.clone();
            let mut p = ck::CK_KEY_DERIVATION_STRING_DATA {
                pData: data.as_mut_ptr(),
                ulLen: len(&data),
            };
            run(
                (&raw mut p).cast(),
                size::<ck::CK_KEY_DERIVATION_STRING_DATA>(),
            )
        }
        Params::CbcString(iv, data) => {
            let mut data = data.clone();
            let mut p = ck::CK_AES_CBC_ENCRYPT_DATA_PARAMS {
                iv: *iv,
                pData: data.as_mut_ptr(),
                length: len(&data),
            };
            run(
                (&raw mut p).cast(),
                size::<ck::CK_AES_CBC_ENCRYPT_DATA_PARAMS>(),
            )
        }
        Params::Offset(bits) => {
            let mut bits = *bits;
            run((&raw mut bits).cast(), size::<CK_ULONG>())
        }
    }
}

/// PKCS#11 text: blank-padded, not terminated.
fn padded(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim_end_matches([' ', '\0'])
        .to_owned()
}

/// An RSA-4096 signature, and slack.
const SIGNATURE_BUFFER: usize = 512 + SLACK;

/// The hot path's output buffer: a DEK or its wrap, and slack.
pub(crate) const HOT_BUFFER: usize = WrappedDek::LEN + SLACK;

/// C_Initialize arguments with the reserved text some software modules want.
pub(crate) fn initialize_args(
    flags: cryptoki::context::CInitializeFlags,
    reserved: &std::ffi::CStr,
) -> cryptoki::context::CInitializeArgs {
    let text = ptr::NonNull::from(reserved).cast::<c_void>();
    // SAFETY: the modules that read the reserved argument take a NUL-terminated
    // string; the caller keeps it alive over C_Initialize.
    unsafe { cryptoki::context::CInitializeArgs::new_with_reserved(flags, text) }
}
