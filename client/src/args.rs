//! What can be typed.

use std::path::PathBuf;

use clap::{Args as Flags, Parser, Subcommand, ValueEnum};
use keywright_client::{Settings, proto};

/// Encrypt, decrypt and rewrap with keys that cannot leave the HSM.
#[derive(Debug, Parser)]
#[command(name = "keywright", version, after_help = AFTER)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Tables for people or JSON for machines.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Cmd,
}

const AFTER: &str = "Exit codes: 0 done, 1 failed, 2 usage or settings, 3 server unavailable or busy (try again), \
4 not allowed, 5 no such key, 6 bad data or request (wrong context, changed, truncated, not valid), 7 audit log broken, 8 state or use of the key forbids it, it exists already, or somebody else changed it.\n\n\
Examples:\n  \
set -a; . ./demo-data/client.env; set +a\n  \
keywright key create payments/cards --spec aes-256\n  \
keywright encrypt --key payments/cards --in report.pdf --out report.pdf.kw\n  \
keywright decrypt --in report.pdf.kw --out report.pdf";

#[derive(Debug, Clone, Flags)]
pub(crate) struct Server {
    /// Server, host:port.
    #[arg(
        long,
        global = true,
        env = "KEYWRIGHT_ADDR",
        value_name = "ADDR",
        hide_env_values = true
    )]
    addr: Option<String>,
    /// PEM file with the CA of the server.
    #[arg(
        long,
        global = true,
        env = "KEYWRIGHT_CA",
        value_name = "FILE",
        hide_env_values = true
    )]
    ca: Option<PathBuf>,
    /// PEM file with your certificate chain.
    #[arg(
        long,
        global = true,
        env = "KEYWRIGHT_CERT",
        value_name = "FILE",
        hide_env_values = true
    )]
    client_cert: Option<PathBuf>,
    /// PEM file with your private key.
    #[arg(
        long,
        global = true,
        env = "KEYWRIGHT_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    client_key: Option<PathBuf>,
}

impl Server {
    pub(crate) fn settings(&self) -> Settings {
        let Self {
            addr,
            ca,
            client_cert,
            client_key,
        } = self.clone();
        Settings {
            addr,
            ca,
            cert: client_cert,
            key: client_key,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For machines.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cmd {
    /// Create, read and rotate keys; their states, public halves and evidence.
    #[command(subcommand)]
    Key(Key),
    /// Encrypt a file, or each line of a text.
    #[command(after_help = "Examples:\n  \
keywright encrypt --key payments/cards --in db.dump --out db.dump.kw\n  \
keywright encrypt --key payments/cards --lines --context table=cards < pans.txt > tokens.txt\n  \
pg_dump shop | keywright encrypt --key backups/shop > shop.kw")]
    Encrypt {
        /// Name of the key.
        #[arg(long, value_name = "NAME")]
        key: String,
        #[command(flatten)]
        context: Context,
        #[command(flatten)]
        data: Data,
    },
    /// Decrypt a file, or each token of a text. Envelopes name their key themselves.
    #[command(after_help = "Examples:\n  \
keywright decrypt --in db.dump.kw --out db.dump\n  \
keywright decrypt --lines --context table=cards < tokens.txt\n\n\
With --out the file appears whole or not at all. On standard output it appears piece by \
piece, each genuine; look at the exit code before you believe the end.")]
    Decrypt {
        /// Refuse what was encrypted under any other key.
        #[arg(long, value_name = "NAME")]
        key: Option<String>,
        #[command(flatten)]
        context: Context,
        #[command(flatten)]
        data: Data,
    },
    /// Move envelopes to the primary version of their key; payloads stay untouched.
    #[command(after_help = "Examples:\n  \
keywright rewrap --in db.dump.kw --out db.dump.kw\n  \
keywright rewrap --lines --in tokens.txt --out tokens.new.txt")]
    Rewrap {
        /// Refuse what was encrypted under any other key.
        #[arg(long, value_name = "NAME")]
        key: Option<String>,
        #[command(flatten)]
        data: Data,
    },
    /// Random bytes from the HSM's generator and the server's, combined.
    #[command(after_help = "Example:\n  keywright random 32")]
    Random {
        /// How many bytes, up to 65,536.
        #[arg(default_value_t = 32)]
        bytes: u32,
        /// How to write them.
        #[arg(long, value_enum, default_value_t = Encoding::Hex)]
        encoding: Encoding,
    },
    /// Sign a file of any size (Ed25519 signs the message itself: up to the server's
    /// limit of an item, 1 MiB). ECDSA comes as DER, as openssl reads it; --encoding raw
    /// for JOSE.
    #[command(after_help = "Examples:\n  \
keywright sign --key releases/linux --in app.tar --out app.tar.sig\n  \
keywright sign --key contracts/rsa --scheme pkcs1 --hash sha512 --in a.pdf --out a.sig")]
    Sign {
        /// Name of the key.
        #[arg(long, value_name = "NAME")]
        key: String,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        files: Files,
    },
    /// Check a signature. Exit code 6 when it is not valid.
    #[command(
        after_help = "Example:\n  keywright verify --key releases/linux --in app.tar --sig app.tar.sig"
    )]
    Verify {
        /// Name of the key.
        #[arg(long, value_name = "NAME")]
        key: String,
        /// File with the signature.
        #[arg(long = "sig", value_name = "FILE")]
        signature: PathBuf,
        #[command(flatten)]
        how: How,
        /// Only this version; left out: any that may verify.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        version: Option<u32>,
        /// Read from here instead of standard input.
        #[arg(long = "in", value_name = "FILE")]
        input_file: Option<PathBuf>,
    },
    /// Authenticate an input up to the server's limit of an item (1 MiB): prints its HMAC
    /// in hexadecimal.
    #[command(after_help = "Example:\n  keywright mac --key webhooks/out --in body.json")]
    Mac {
        /// Name of the key.
        #[arg(long, value_name = "NAME")]
        key: String,
        /// Read from here instead of standard input.
        #[arg(long = "in", value_name = "FILE")]
        input_file: Option<PathBuf>,
    },
    /// Check a MAC. Exit code 6 when it is not valid.
    #[command(
        after_help = "Example:\n  keywright verify-mac --key webhooks/out --mac 1f3a… --in body.json"
    )]
    VerifyMac {
        /// Name of the key.
        #[arg(long, value_name = "NAME")]
        key: String,
        /// In hexadecimal.
        #[arg(long, value_name = "HEX")]
        mac: String,
        /// Only this version; left out: any that may verify.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        version: Option<u32>,
        /// Read from here instead of standard input.
        #[arg(long = "in", value_name = "FILE")]
        input_file: Option<PathBuf>,
    },
    /// Data keys for programs that encrypt for themselves.
    #[command(subcommand)]
    DataKey(DataKey),
    /// Open what somebody encrypted to the public key (RSA-OAEP, empty label).
    #[command(after_help = "Example:\n  \
keywright key public inbox/partners > pub.pem\n  \
openssl pkeyutl -encrypt -pubin -inkey pub.pem -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -in secret -out secret.rsa\n  \
keywright asymmetric-decrypt --key inbox/partners --in secret.rsa --out secret")]
    AsymmetricDecrypt {
        /// Name of the key.
        #[arg(long, value_name = "NAME")]
        key: String,
        /// Version of the public key that was used; left out: the primary one.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        version: Option<u32>,
        /// Hash of OAEP and of its MGF1.
        #[arg(long, value_enum, default_value_t = Oaep::Sha256)]
        hash: Oaep,
        #[command(flatten)]
        files: Files,
    },
    /// Check the audit log.
    #[command(subcommand)]
    Audit(Audit),
    /// Write shell completions.
    #[command(
        after_help = "Example:\n  keywright completions bash > /etc/bash_completion.d/keywright"
    )]
    Completions {
        /// For which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Flags)]
pub(crate) struct Files {
    /// Read from here instead of standard input.
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input_file: Option<PathBuf>,
    /// Write here instead of standard output; whole or not at all.
    #[arg(long = "out", value_name = "FILE")]
    pub(crate) output_file: Option<PathBuf>,
}

/// How to sign; only RSA keys leave a choice.
#[derive(Debug, Flags)]
pub(crate) struct How {
    /// RSA: PSS or PKCS#1 v1.5. Left out: PSS.
    #[arg(long, value_enum)]
    pub(crate) scheme: Option<Padding>,
    /// RSA: the hash. Left out: sha256.
    #[arg(long, value_enum)]
    pub(crate) hash: Option<Hash>,
    /// RSA-PSS: length of the salt.
    #[arg(long, value_enum, default_value_t = Salt::Hash)]
    pub(crate) salt: Salt,
    /// ECDSA: DER, or r and s side by side.
    #[arg(long, value_enum, default_value_t = SignatureForm::Der)]
    pub(crate) encoding: SignatureForm,
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

#[derive(Debug, Subcommand)]
pub(crate) enum DataKey {
    /// Make a data key: prints it, and its wrapped form to be stored, in base64.
    #[command(
        after_help = "Example:\n  keywright data-key generate --key backups/shop --context app=shop --output json"
    )]
    Generate {
        /// Name of the key.
        #[arg(long, value_name = "NAME")]
        key: String,
        /// 16, 32 or 64.
        #[arg(long, default_value_t = 32)]
        bytes: u32,
        /// Only the wrapped form.
        #[arg(long)]
        wrapped_only: bool,
        #[command(flatten)]
        context: Context,
    },
    /// Open a wrapped data key.
    #[command(after_help = "Example:\n  keywright data-key open AQECAL0… --context app=shop")]
    Open {
        /// In base64.
        wrapped: String,
        /// The length it was made with. It is not stored: another one gives another key.
        #[arg(long, default_value_t = 32)]
        bytes: u32,
        #[command(flatten)]
        context: Context,
    },
}

#[derive(Debug, Flags)]
pub(crate) struct Context {
    /// Non-secret pair bound to the data, KEY=VALUE; repeat for more. The same pairs are
    /// needed to decrypt.
    #[arg(long = "context", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) pairs: Vec<(String, String)>,
}

#[derive(Debug, Flags)]
pub(crate) struct Data {
    /// Work on each line by itself: plaintext lines and kw1. tokens.
    #[arg(long)]
    pub(crate) lines: bool,
    /// Read from here instead of standard input.
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input_file: Option<PathBuf>,
    /// Write here instead of standard output; whole or not at all.
    #[arg(long = "out", value_name = "FILE")]
    pub(crate) output_file: Option<PathBuf>,
}

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
    Show {
        /// Name of the key.
        name: String,
    },
    /// List the keys you may see.
    List {
        /// Only names that begin with this.
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// Create a new version and make it primary; old versions go on decrypting.
    Rotate {
        /// Name of the key.
        name: String,
    },
    /// Stop a version, or all of them, for now: neither protects nor processes.
    Suspend(Versions),
    /// Let suspended and deactivated versions work again, all of them without --version.
    Resume(Versions),
    /// Protect nothing more under a version; what it protected still opens.
    #[command(after_help = "Example:\n  keywright key deactivate payments/cards --version 1")]
    Deactivate(Versions),
    /// Mark a version as compromised: it does nothing any more, for ever. Re-encrypt what
    /// it protected before you do this.
    Compromise(Versions),
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

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Check that no record was changed, added, reordered, or removed from the middle;
    /// with --head also that none was removed from the end. Works offline.
    #[command(
        after_help = "Examples:\n  keywright audit verify ./demo-data\n  keywright audit verify ./demo-data --head 7cf08c66…"
    )]
    Verify {
        /// The daemon's data directory.
        dir: PathBuf,
        /// A head that was noted before: the log must still hold that record.
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
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

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Encoding {
    /// Hexadecimal, with a newline.
    Hex,
    /// Base64, with a newline.
    Base64,
    /// The bytes themselves.
    Raw,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}
