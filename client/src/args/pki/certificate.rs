//! `keywright pki sign`, `issue`, `renew`, `revoke`, `list`, `verify`, `block-key`: what can
//! be typed.

use std::{net::IpAddr, path::PathBuf};

use clap::{ArgGroup, Args as Flags, ValueEnum};
use keywright_client::proto::{CertificateState, RevocationReason};

use super::{Bytes, Span, octets, serial, span};

/// What is asked for, whoever makes the key.
#[derive(Debug, Flags)]
pub(crate) struct Request {
    /// NAME of the profile, or NAME@VERSION.
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: String,
    /// A host name; repeat for more. Without --dns, --ip and --uri the names are those of
    /// the CSR, where the profile allows it.
    #[arg(long, value_name = "NAME")]
    pub(crate) dns: Vec<String>,
    /// An address; repeat for more.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Vec<IpAddr>,
    /// A URI, such as a SPIFFE id; repeat for more.
    #[arg(long, value_name = "URI")]
    pub(crate) uri: Vec<String>,
    /// How long it is good, its backdate included: 90s, 5m, 24h, 30d. Left out: the
    /// profile's default.
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) ttl: Option<Span>,
    /// 16 to 64 characters; the same for every try of one request. Left out: made from
    /// the request, so that the same again gives the same certificate for 24 hours.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Say what would be issued, or why not; sign nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Where certificates go. DER where the file is named .der or .cer, else PEM.
#[derive(Debug, Flags)]
pub(crate) struct Written {
    /// Write the certificate here. Left out: PEM on standard output.
    #[arg(long = "out", value_name = "FILE")]
    pub(crate) output_file: Option<PathBuf>,
    /// Write the intermediates here, from the issuer up, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) chain: Option<PathBuf>,
    /// Write the certificate and the intermediates behind it here, PEM: what a TLS server
    /// and `renew` want.
    #[arg(long, value_name = "FILE")]
    pub(crate) full_chain: Option<PathBuf>,
    /// Write the root it leads to here, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) root: Option<PathBuf>,
}

#[derive(Debug, Flags)]
pub(crate) struct Sign {
    #[command(flatten)]
    pub(crate) request: Request,
    /// The CSR (PKCS#10), PEM or DER; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) csr: PathBuf,
    #[command(flatten)]
    pub(crate) written: Written,
}

#[derive(Debug, Flags)]
pub(crate) struct Issue {
    #[command(flatten)]
    pub(crate) request: Request,
    /// Which key to make.
    #[arg(long, value_enum, default_value_t = KeyType::EcP256)]
    pub(crate) key_type: KeyType,
    /// Write the private key here, PKCS#8 PEM, for its owner only.
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    pub(crate) key_out: Option<PathBuf>,
    /// Overwrite a file that is at --key-out: the key in it is gone.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) written: Written,
}

#[derive(Debug, Flags)]
pub(crate) struct Renew {
    /// The certificate, and the intermediates behind it, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: PathBuf,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Make a new key of the same type and write it here. Left out: the key stays, which
    /// some profiles refuse.
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key_out: Option<PathBuf>,
    /// Overwrite a file that is at --new-key-out: the key in it is gone.
    #[arg(long, requires = "new_key_out")]
    pub(crate) force: bool,
    /// How long it is good, its backdate included: 90s, 5m, 24h, 30d. Left out: the
    /// profile's default.
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) ttl: Option<Span>,
    /// 16 to 64 characters; the same for every try of one request. Left out: made from
    /// the request.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) written: Written,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyType {
    /// ECDSA on P-256.
    EcP256,
    /// ECDSA on P-384.
    EcP384,
    /// ECDSA on P-521.
    EcP521,
    /// Ed25519.
    Ed25519,
    /// RSA, 2048 bits.
    #[value(name = "rsa-2048")]
    Rsa2048,
    /// RSA, 3072 bits.
    #[value(name = "rsa-3072")]
    Rsa3072,
    /// RSA, 4096 bits.
    #[value(name = "rsa-4096")]
    Rsa4096,
}

/// A certificate on record: the file, or issuer and serial.
#[derive(Debug, Flags)]
#[command(group = ArgGroup::new("target").required(true).args(["cert", "serial"]))]
pub(crate) struct Target {
    /// The certificate, PEM or DER.
    #[arg(long, value_name = "FILE", conflicts_with = "issuer")]
    pub(crate) cert: Option<PathBuf>,
    /// Name of the issuer.
    #[arg(long, value_name = "NAME", requires = "serial")]
    pub(crate) issuer: Option<String>,
    /// In hexadecimal.
    #[arg(long, value_name = "HEX", value_parser = serial, requires = "issuer")]
    pub(crate) serial: Option<Bytes>,
}

#[derive(Debug, Flags)]
pub(crate) struct Revoke {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Why.
    #[arg(long, value_enum)]
    pub(crate) reason: Cause,
    /// The certificate's private key, PEM: proves that you hold it, instead of the right
    /// to revoke. It is not sent.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// When the key is thought to have been lost, such as 2026-11-23T10:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) lost: Option<jiff::Timestamp>,
    /// Yes, revoke every certificate of this key; key-compromise asks for it.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// RFC 5280 section 5.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cause {
    /// None is said.
    Unspecified,
    /// Somebody else may have the key. Every certificate of the key is revoked, and the
    /// key is blocked.
    KeyCompromise,
    /// Somebody else may have the key of an authority.
    CaCompromise,
    /// Names in it changed.
    AffiliationChanged,
    /// Another one took its place.
    Superseded,
    /// It is not needed any more.
    CessationOfOperation,
    /// It should not be used any more.
    PrivilegeWithdrawn,
}

impl Cause {
    pub(crate) fn wire(self) -> RevocationReason {
        match self {
            Self::Unspecified => RevocationReason::Unspecified,
            Self::KeyCompromise => RevocationReason::KeyCompromise,
            Self::CaCompromise => RevocationReason::CaCompromise,
            Self::AffiliationChanged => RevocationReason::AffiliationChanged,
            Self::Superseded => RevocationReason::Superseded,
            Self::CessationOfOperation => RevocationReason::CessationOfOperation,
            Self::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }
    }
}

/// All that are given must hold.
#[derive(Debug, Flags)]
pub(crate) struct Find {
    /// Only those that end within this time.
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) expiring: Option<Span>,
    /// Only those with this name.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only those of this profile.
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Only those of this issuer.
    #[arg(long, value_name = "NAME")]
    pub(crate) issuer: Option<String>,
    /// Only those in this state.
    #[arg(long, value_enum)]
    pub(crate) state: Option<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// On record, the signature was never seen.
    Intended,
    /// Good.
    Issued,
    /// Taken back.
    Revoked,
    /// The HSM did not sign.
    Failed,
}

impl State {
    pub(crate) fn wire(self) -> CertificateState {
        match self {
            Self::Intended => CertificateState::Intended,
            Self::Issued => CertificateState::Issued,
            Self::Revoked => CertificateState::Revoked,
            Self::Failed => CertificateState::Failed,
        }
    }
}

#[derive(Debug, Flags)]
pub(crate) struct Verify {
    /// The certificate, PEM or DER; of several the first, the others count as --chain.
    #[arg(value_name = "CERT")]
    pub(crate) cert: PathBuf,
    /// Intermediates, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) chain: Option<PathBuf>,
    /// The roots you trust, PEM or DER.
    #[arg(long, value_name = "FILE")]
    pub(crate) root: PathBuf,
    /// CRL of the issuer, PEM or DER; repeat for more. With it, a certificate that no CRL
    /// speaks for is not good.
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Vec<PathBuf>,
    /// The host name or address it must be good for, as a TLS server.
    #[arg(long, value_name = "NAME")]
    pub(crate) dns: Option<String>,
}

#[derive(Debug, Flags)]
#[command(group = ArgGroup::new("which").required(true).args(["cert", "spki_sha256"]))]
pub(crate) struct Block {
    /// A certificate with the key, PEM or DER.
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// SHA-256 of its SubjectPublicKeyInfo, in hexadecimal.
    #[arg(long, value_name = "HEX", value_parser = octets)]
    pub(crate) spki_sha256: Option<Bytes>,
    /// For the record; at most 200 bytes on one line.
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::Args;

    fn typed(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(format!("keywright pki {line}").split(' '))
    }

    #[test]
    fn what_belongs_together_is_asked_for() {
        for good in [
            "sign --profile p --csr - --ip 10.0.0.1 --ip fd00::1 --ttl 24h",
            "issue --profile p --dns a --key-type rsa-2048 --key-out k",
            "issue --profile p --dns a --dry-run",
            "revoke --cert c --reason superseded",
            "revoke --issuer i --serial 3a --reason superseded --lost 2026-11-23T10:00:00Z",
            "block-key --cert c --why w",
            "acme-key create --identity spiffe://a/b --profile p --profile q",
        ] {
            assert!(typed(good).is_ok(), "{good}: {:?}", typed(good));
        }
        for bad in [
            "sign --profile p",
            "sign --profile p --csr c --ttl 24",
            "sign --profile p --csr c --ip ten",
            "issue --profile p --dns a",
            "issue --profile p --key-out k --key-type dsa",
            "renew --cert c",
            "renew --cert c --key k --force",
            "revoke --reason superseded",
            "revoke --cert c",
            "revoke --serial 3a --reason superseded",
            "revoke --issuer i --reason superseded",
            "revoke --cert c --issuer i --serial 3a --reason superseded",
            "revoke --cert c --reason hold",
            "crl --issuer i --shard 0",
            "list --state good",
            "block-key --why w",
            "block-key --cert c --spki-sha256 aa --why w",
            "ceremony approve 00",
            "acme-key create --identity spiffe://a/b",
            "acme-key create --profile p",
        ] {
            assert!(typed(bad).is_err(), "{bad}");
        }
    }
}
