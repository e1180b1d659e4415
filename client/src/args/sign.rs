//! How to sign, and which hash OAEP takes: what can be typed.

use clap::{Args as Flags, ValueEnum};

/// How to sign; only RSA keys leave a choice.
#[derive(Debug, Flags)]
pub(crate) struct How {
    /// RSA: PSS or PKCS#1 v1.5. Left out: PSS.
    #[arg(long, value_enum)]
    pub(crate) scheme: Option<Padding>,
    /// RSA: the hash. Left out: sha256. (ECDSA keys have one hash; it may be said.)
    #[arg(long, value_enum)]
    pub(crate) hash: Option<Hash>,
    /// RSA-PSS: length of the salt.
    /// Left out: as long as the hash.
    #[arg(long, value_enum)]
    pub(crate) salt: Option<Salt>,
    /// ECDSA: DER, or r and s side by side. Left out: DER.
    #[arg(long, value_enum)]
    pub(crate) encoding: Option<SignatureForm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Padding {
    /// RSASSA-PSS.
    Pss,
    /// RSASSA-PKCS1-v1_5.
    Pkcs1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Salt {
    /// As long as the hash.
    Hash,
    /// None.
    Empty,
    /// As long as the modulus allows.
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SignatureForm {
    /// As X.509 and openssl write it.
    Der,
    /// As JOSE and PKCS#11 write it.
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Oaep {
    /// SHA-1, for tokens that know no other (SoftHSM2).
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}
