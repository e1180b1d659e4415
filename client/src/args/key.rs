//! `keywright key …`: what can be typed.

use clap::{Args as Flags, Subcommand, ValueEnum};
use keywright_client::proto;

use super::pair;

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Create a key in the HSM.
    #[command(after_help = "Examples:\n  \
keywright key create payments/cards --spec aes-256 --label team=payments\n  \
keywright key create releases/linux --spec ed25519\n  \
keywright key create inbox/partners --spec rsa-3072 --use decrypt")]
    Create {
        /// A path of lower-case segments.
        name: String,
        /// Algorithm and size.
        #[arg(long, value_enum)]
        spec: Spec,
        /// What an RSA key is for; other specs have one use.
        #[arg(long = "use", value_enum)]
        key_use: Option<Use>,
        /// A note policies can see, KEY=VALUE; repeat for more.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
    /// Show a key and its versions.
    #[command(
        after_help = "Examples:\n  keywright key show payments/cards\n  keywright key show payments/cards --output json"
    )]
    Show {
        /// Name of the key.
        name: String,
    },
    /// List the keys you may see.
    #[command(
        after_help = "Examples:\n  keywright key list\n  keywright key list --prefix payments/"
    )]
    List {
        /// Only names that begin with this.
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// Create a new version and make it primary; old versions go on decrypting.
    #[command(after_help = "Example:\n  keywright key rotate payments/cards")]
    Rotate {
        /// Name of the key.
        name: String,
    },
    /// When keys are rotated next, and what they have done since the last time.
    #[command(
        after_help = "Examples:\n  keywright key rotation-status\n  keywright key rotation-status --prefix payments/"
    )]
    RotationStatus {
        /// Only names that begin with this.
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// Stop a version, or all of them, for now: neither protects nor processes.
    #[command(
        after_help = "Examples:\n  keywright key suspend payments/cards\n  keywright key suspend payments/cards --version 2"
    )]
    Suspend(Versions),
    /// Let suspended and deactivated versions work again, all of them without --version.
    #[command(after_help = "Example:\n  keywright key resume payments/cards --version 2")]
    Resume(Versions),
    /// Protect nothing more under a version; what it protected still opens.
    #[command(after_help = "Example:\n  keywright key deactivate payments/cards --version 1")]
    Deactivate(Versions),
    /// Mark a version as compromised: it does nothing any more, for ever. Re-encrypt what
    /// it protected before you do this.
    #[command(after_help = "Example:\n  keywright key compromise payments/cards --version 1")]
    Compromise {
        #[command(flatten)]
        which: Versions,
        /// Every version that may; needed when no --version is given.
        #[arg(long, conflicts_with = "version")]
        all: bool,
    },
    /// Change labels, rules or the minimum version.
    #[command(after_help = "Examples:\n  \
keywright key update payments/cards --minimum-version 3\n  \
keywright key update payments/cards --rotate-after-days 90 --wrap-limit 1000000000\n  \
keywright key update payments/cards --label team=payments --label tier=1")]
    Update(Changes),
    /// Plan the end of versions: from now on they do nothing, and after the days their
    /// material is destroyed in the HSM. Active versions are refused, and those that are
    /// still needed: used lately, or found by a rewrap job that has not moved everything.
    #[command(after_help = "Examples:\n  \
keywright key schedule-destruction payments/cards --version 1 --brown-out 24h\n  \
keywright key schedule-destruction payments/cards --version 1 --days 30\n  \
keywright key cancel-destruction payments/cards --version 1")]
    ScheduleDestruction(Destruction),
    /// Spare what is scheduled for destruction.
    #[command(
        after_help = "Example:\n  keywright key cancel-destruction payments/cards --version 1"
    )]
    CancelDestruction(Versions),
    /// Write the public key.
    #[command(after_help = "Examples:\n  \
keywright key public releases/linux > releases.pem\n  \
keywright key public releases/linux --format jwk")]
    Public {
        /// Name of the key.
        name: String,
        /// How.
        #[arg(long, value_enum, default_value_t = PublicForm::Pem)]
        format: PublicForm,
        /// Which version; left out: the primary one.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        version: Option<u32>,
    },
    /// Show what the HSM says about a key: that it cannot leave.
    #[command(after_help = "Example:\n  keywright key evidence payments/cards --output json")]
    Evidence {
        /// Name of the key.
        name: String,
        /// Only this version.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        version: Option<u32>,
    },
}

#[derive(Debug, Flags)]
pub(crate) struct Versions {
    /// Name of the key.
    pub(crate) name: String,
    /// Only this version; left out: every one that may.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) version: Option<u32>,
    /// The revision you have seen (`key show --output json`); refuse when it is another
    /// by now.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) revision: Option<u64>,
}

#[derive(Debug, Flags)]
pub(crate) struct Destruction {
    #[command(flatten)]
    pub(crate) which: Versions,
    /// Time to think again, 7 to 90 days.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) days: u32,
    /// Schedule nothing yet: let the version do nothing for so long (90m, 24h, 7d), after
    /// which it comes back by itself. `key show` says who it was refused to.
    #[arg(long, value_name = "TIME", value_parser = super::pki::span, requires = "version", conflicts_with = "days")]
    pub(crate) brown_out: Option<super::pki::Span>,
}

#[derive(Debug, Flags)]
pub(crate) struct Changes {
    /// Name of the key.
    pub(crate) name: String,
    /// All labels anew, KEY=VALUE; repeat for more.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// No labels any more.
    #[arg(long, conflicts_with = "labels")]
    pub(crate) no_labels: bool,
    /// Versions below this one process nothing any more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) minimum_version: Option<u32>,
    /// Rotate when the primary version is this old.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rotate_after_days: Option<u32>,
    /// Rotate when the primary version has wrapped this often.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rotate_after_wraps: Option<u64>,
    /// Rotate when the primary version has sealed so many bytes, from 1 MiB.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rotate_after_bytes: Option<u64>,
    /// Does the appliance rotate by itself what is due (true), or only say so (false)?
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(crate) rotate_automatically: Option<bool>,
    /// So many days after another version followed it a version processes only.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) deactivate_after_days: Option<u32>,
    /// A version refuses to wrap more often than this.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) wrap_limit: Option<u64>,
    /// Use a data key for more than one batch, and lend data keys to callers that encrypt for
    /// themselves (`encrypt --local`), for so many seconds each, 1 to 60; 0: no more.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=60))]
    pub(crate) lease_seconds: Option<u32>,
    /// Forget all rules of this key; with a rule beside it, all others.
    #[arg(long)]
    pub(crate) default_rules: bool,
    /// As in `key suspend`.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) revision: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spec {
    /// AES with 256 bits, for encryption.
    #[value(name = "aes-256")]
    Aes256,
    /// ECDSA on P-256 with SHA-256.
    #[value(name = "ec-p256")]
    EcP256,
    /// ECDSA on P-384 with SHA-384.
    #[value(name = "ec-p384")]
    EcP384,
    /// Ed25519.
    #[value(name = "ed25519")]
    Ed25519,
    /// RSA, to sign or (with --use decrypt) to decrypt.
    #[value(name = "rsa-2048")]
    Rsa2048,
    /// As rsa-2048, longer.
    #[value(name = "rsa-3072")]
    Rsa3072,
    /// As rsa-2048, longer.
    #[value(name = "rsa-4096")]
    Rsa4096,
    /// HMAC with SHA-256.
    #[value(name = "hmac-sha256")]
    HmacSha256,
    /// HMAC with SHA-384.
    #[value(name = "hmac-sha384")]
    HmacSha384,
    /// HMAC with SHA-512.
    #[value(name = "hmac-sha512")]
    HmacSha512,
}

impl Spec {
    pub(crate) fn wire(self) -> proto::KeySpec {
        match self {
            Self::Aes256 => proto::KeySpec::Aes256,
            Self::EcP256 => proto::KeySpec::EcP256,
            Self::EcP384 => proto::KeySpec::EcP384,
            Self::Ed25519 => proto::KeySpec::Ed25519,
            Self::Rsa2048 => proto::KeySpec::Rsa2048,
            Self::Rsa3072 => proto::KeySpec::Rsa3072,
            Self::Rsa4096 => proto::KeySpec::Rsa4096,
            Self::HmacSha256 => proto::KeySpec::HmacSha256,
            Self::HmacSha384 => proto::KeySpec::HmacSha384,
            Self::HmacSha512 => proto::KeySpec::HmacSha512,
        }
    }

    /// The name of what the server sent; newer servers may know more.
    pub(crate) fn name(wire: proto::KeySpec) -> String {
        Self::value_variants()
            .iter()
            .find(|s| s.wire() == wire)
            .and_then(ValueEnum::to_possible_value)
            .map_or_else(|| "unknown".to_owned(), |v| v.get_name().to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Use {
    /// Encrypt and decrypt through envelopes.
    Encrypt,
    /// Sign.
    Sign,
    /// Make MACs.
    Mac,
    /// Open what was encrypted to the public key.
    Decrypt,
}

impl Use {
    pub(crate) fn wire(self) -> proto::KeyUse {
        match self {
            Self::Encrypt => proto::KeyUse::Encrypt,
            Self::Sign => proto::KeyUse::Sign,
            Self::Mac => proto::KeyUse::Mac,
            Self::Decrypt => proto::KeyUse::Decrypt,
        }
    }

    pub(crate) fn name(wire: proto::KeyUse) -> String {
        Self::value_variants()
            .iter()
            .find(|s| s.wire() == wire)
            .and_then(ValueEnum::to_possible_value)
            .map_or_else(|| "unknown".to_owned(), |v| v.get_name().to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PublicForm {
    /// PEM.
    Pem,
    /// DER (SubjectPublicKeyInfo).
    Der,
    /// JSON Web Key.
    Jwk,
}
