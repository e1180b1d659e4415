//! What can be typed.

pub(crate) mod job;
mod key;
pub(crate) mod pki;
pub(crate) mod rewrap;
mod sign;

use std::path::PathBuf;

use clap::{Args as Flags, Parser, Subcommand, ValueEnum};
use keywright_client::Settings;

pub(crate) use key::{Changes, Destruction, Key, PublicForm, Spec, Use, Versions};
pub(crate) use sign::{Hash, How, Oaep, Padding, Salt, SignatureForm};

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
4 not allowed, 5 no such key, 6 bad data or request (wrong context, changed, truncated, not valid), 7 audit log broken, 8 state or use of the key forbids it, it exists already, or somebody else changed it, 9 something is left under an old version, 130 stopped by a signal.\n\n\
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
keywright encrypt --key backups/shop --local --in db.dump --out db.dump.kw\n  \
pg_dump shop | keywright encrypt --key backups/shop > shop.kw")]
    Encrypt {
        /// Name of the key.
        #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        key: String,
        /// Encrypt on this machine, under data keys that the server lends: the content does
        /// not travel. The key must allow it (`key update --lease-seconds`).
        #[arg(long)]
        local: bool,
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
        #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        key: Option<String>,
        #[command(flatten)]
        context: Context,
        #[command(flatten)]
        data: Data,
    },
    /// Move envelopes to the primary version of their key; payloads stay untouched. One
    /// file, or everything in a place.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  \
keywright rewrap --in db.dump.kw --out db.dump.kw\n  \
keywright rewrap --lines --in tokens.txt --out tokens.new.txt\n  \
keywright rewrap files /srv/backups --key backups/shop"
    )]
    Rewrap(rewrap::Rewrap),
    /// Jobs: everything in a place off the old versions of a key, and the proof of it.
    #[command(subcommand)]
    Job(job::Job),
    /// Open and seal again in the server, under a new data key: another key, another
    /// context, or both. The answer to a leaked key version; rewrap is not.
    #[command(after_help = "Examples:\n  \
keywright reencrypt --key payments/cards-2 --in db.dump.kw --out db.dump.kw\n  \
keywright reencrypt --key payments/cards --lines --context table=cards --new-context table=pans --in tokens.txt --out tokens.new.txt")]
    Reencrypt {
        /// The key to encrypt under.
        #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        key: String,
        #[command(flatten)]
        context: Context,
        /// The new context, KEY=VALUE; repeat for more. Left out: the same.
        #[arg(long = "new-context", value_name = "KEY=VALUE", value_parser = pair, conflicts_with = "no_context")]
        new_context: Vec<(String, String)>,
        /// The new envelopes have no context.
        #[arg(long)]
        no_context: bool,
        #[command(flatten)]
        data: Data,
    },
    /// Say why you (or somebody else) may or may not do something with a key, and which
    /// version it would be done with. Nothing is done. Exit code 4: not allowed; 8:
    /// allowed, but the key cannot.
    #[command(after_help = "Examples:\n  \
keywright explain encrypt payments/cards --context table=cards\n  \
keywright explain decrypt payments/cards --version 1 --principal spiffe://corp.example/payments/api")]
    Explain {
        /// As in policies: encrypt, decrypt, rotate_key, …; not create_key, list_keys and
        /// generate_random, which are not about one key.
        action: String,
        /// Name of the key.
        key: String,
        #[command(flatten)]
        context: Context,
        /// Somebody else of your tenant; that needs the permission explain_other.
        #[arg(long, value_name = "SPIFFE-ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        principal: Option<String>,
        /// For actions that process (decrypt, reencrypt_from, decrypt_data_key, verify,
        /// verify_mac, asymmetric_decrypt): the version that made what is to be
        /// processed. Left out: the primary one.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        version: Option<u32>,
    },
    /// Check and test policies without a server, with the keywrightd that will enforce them.
    #[command(subcommand)]
    Policy(Policy),
    /// What is done on the machine of a daemon, with the keywrightd that is there.
    #[command(subcommand)]
    Admin(Admin),
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
    /// limit of an item, 1 MiB), or each line of a text. ECDSA comes as DER, as openssl
    /// reads it; --encoding raw for JOSE.
    #[command(after_help = "Examples:\n  \
keywright sign --key releases/linux --in app.tar --out app.tar.sig\n  \
keywright sign --key receipts --lines --in receipts.jsonl --out signatures.txt\n  \
keywright sign --key contracts/rsa --scheme pkcs1 --hash sha512 --in a.pdf --out a.sig")]
    Sign {
        /// Name of the key.
        #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        key: String,
        #[command(flatten)]
        how: How,
        /// Sign each line by itself, without its line end: one signature in base64 on one
        /// line for each.
        #[arg(long)]
        lines: bool,
        #[command(flatten)]
        files: Files,
    },
    /// Check a signature. Exit code 6 when it is not valid.
    #[command(
        after_help = "Example:\n  keywright verify --key releases/linux --in app.tar --sig app.tar.sig"
    )]
    Verify {
        /// Name of the key.
        #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        key: String,
        /// File with the signature.
        #[arg(long = "sig", value_name = "FILE")]
        signature: PathBuf,
        #[command(flatten)]
        how: How,
        /// Only this version; left out: any that may verify.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        version: Option<u32>,
        /// Read from here instead of standard input; - is standard input.
        #[arg(long = "in", value_name = "FILE")]
        input_file: Option<PathBuf>,
    },
    /// Authenticate an input up to the server's limit of an item (1 MiB): prints its HMAC
    /// in hexadecimal.
    #[command(after_help = "Example:\n  keywright mac --key webhooks/out --in body.json")]
    Mac {
        /// Name of the key.
        #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        key: String,
        /// Read from here instead of standard input; - is standard input.
        #[arg(long = "in", value_name = "FILE")]
        input_file: Option<PathBuf>,
    },
    /// Check a MAC. Exit code 6 when it is not valid.
    #[command(
        after_help = "Example:\n  keywright verify-mac --key webhooks/out --mac 1f3a… --in body.json"
    )]
    VerifyMac {
        /// Name of the key.
        #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        key: String,
        /// In hexadecimal.
        #[arg(long, value_name = "HEX")]
        mac: String,
        /// Only this version; left out: any that may verify.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        version: Option<u32>,
        /// Read from here instead of standard input; - is standard input.
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
        #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
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
    /// Certificates: authorities, profiles, issuing, renewing, revoking, checking.
    #[command(subcommand)]
    Pki(pki::Pki),
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
    /// Read from here instead of standard input; - is standard input.
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input_file: Option<PathBuf>,
    /// Write here instead of standard output; whole or not at all.
    #[arg(long = "out", value_name = "FILE")]
    pub(crate) output_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataKey {
    /// Make a data key: prints it, and its wrapped form to be stored, in base64.
    #[command(
        after_help = "Example:\n  keywright data-key generate --key backups/shop --context app=shop --output json"
    )]
    Generate {
        /// Name of the key.
        #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        key: String,
        /// 16, 32 or 64.
        #[arg(long, default_value_t = 32)]
        bytes: u32,
        /// Only the wrapped form, or the id.
        #[arg(long)]
        wrapped_only: bool,
        /// The appliance keeps the wrapped form: prints an id instead. `rewrap kept` moves
        /// it, `data-key forget` ends it.
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        context: Context,
    },
    /// Move a wrapped data key to the primary version of its key; what it encrypted stays.
    #[command(after_help = "Example:\n  keywright data-key rewrap AQECAL0…")]
    Rewrap {
        /// In base64.
        wrapped: String,
    },
    /// Open a wrapped data key.
    #[command(
        after_help = "Examples:\n  keywright data-key open AQECAL0… --context app=shop\n  keywright data-key open --id 5f0c2e8a9b1d4c7e8f3a6b2d1c0e9f84 --context app=shop"
    )]
    Open {
        /// In base64.
        #[arg(required_unless_present = "id", conflicts_with = "id")]
        wrapped: Option<String>,
        /// A kept one, by its id: 32 hexadecimal digits.
        #[arg(long, value_name = "ID", value_parser = data_key_id)]
        id: Option<[u8; 16]>,
        /// The length it was made with. It is not stored: another one gives another key.
        #[arg(long, default_value_t = 32)]
        bytes: u32,
        #[command(flatten)]
        context: Context,
    },
    /// Forget kept data keys for ever: what they encrypted can never be read again.
    #[command(
        after_help = "Example:\n  keywright data-key forget --key backups/shop 5f0c2e8a9b1d4c7e8f3a6b2d1c0e9f84"
    )]
    Forget {
        /// Name of the key they were made under.
        #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        key: String,
        /// 32 hexadecimal digits each.
        #[arg(required = true, value_name = "ID", value_parser = data_key_id)]
        ids: Vec<[u8; 16]>,
    },
}

fn data_key_id(text: &str) -> Result<[u8; 16], String> {
    let bytes = hex::decode(text).ok().and_then(|b| b.try_into().ok());
    bytes.ok_or_else(|| "an id of a kept data key has 32 hexadecimal digits".to_owned())
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
    #[command(flatten)]
    pub(crate) files: Files,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Copy the embedded store of a stopped daemon into an empty PostgreSQL database and
    /// compare the two, row by row. The embedded store stays as it is.
    #[command(
        after_help = "Example:\n  keywright admin migrate-store --config /etc/keywright/keywrightd.toml --to-postgres postgres://keywright@db.internal/keywright?sslmode=verify-full --password-file /etc/keywright/db-password"
    )]
    MigrateStore {
        /// The daemon's configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where to; without a password.
        #[arg(long, value_name = "URL")]
        to_postgres: String,
        /// File with the password of the database, for its owner alone.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Approve that a store is accepted which the daemon refuses: signs the plan of
    /// `keywrightd plan-recovery` with your certificate's key. Asks no server.
    #[command(
        after_help = "Without --yes it only shows the plan.\n\nExamples:\n  keywright admin approve-recovery plan.toml --out alice.toml\n  keywright admin approve-recovery plan.toml --out alice.toml --yes"
    )]
    ApproveRecovery {
        /// The plan.
        plan: PathBuf,
        /// Where to write the approval; the file must not be there yet.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// You have read the plan, and what it lists may be accepted.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Read every *.cedar and roles.toml of a directory; errors come with their place.
    #[command(after_help = "Example:\n  keywright policy check /etc/keywright/policies")]
    Check {
        /// The policies directory.
        dir: PathBuf,
    },
    /// The same, then run tests/*.toml of the directory.
    #[command(
        after_help = "Example:\n  keywright policy test /etc/keywright/policies\n\n\
A test in tests/cards.toml:\n  \
[[test]]\n  \
name = \"the cards are for payments\"\n  \
caller = \"spiffe://corp.example/hr/api\"\n  \
action = \"decrypt\"\n  \
key = { name = \"payments/cards\", labels = { team = \"payments\" } }\n  \
context = { table = \"cards\" }    # optional, as is now = \"2026-11-23T10:00:00Z\"\n  \
expect = \"deny\""
    )]
    Test {
        /// The policies directory.
        dir: PathBuf,
    },
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

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Encoding {
    /// Hexadecimal, with a newline.
    Hex,
    /// Base64, with a newline.
    Base64,
    /// The bytes themselves.
    Raw,
}

/// Is JSON asked for? For words that cannot be parsed otherwise.
pub(crate) fn wants_json(words: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let words: Vec<_> = words.collect();
    words.iter().any(|w| w == "--output=json")
        || words
            .windows(2)
            .any(|pair| matches!(pair, [flag, value] if flag == "--output" && value == "json"))
}

pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The commands below this one that do something, with their names.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        let path = format!("{path} {}", command.get_name());
        let mut below = command.get_subcommands().peekable();
        let itself = command.is_args_conflicts_with_subcommands_set();
        if below.peek().is_none() || itself {
            let text = command.get_after_help();
            let text = text.map(ToString::to_string).unwrap_or_default();
            found.push((path.clone(), text));
        }
        below.for_each(|c| leaves(c, &path, found));
    }

    #[test]
    fn every_command_has_examples_and_they_can_be_typed() {
        let mut found = Vec::new();
        leaves(&Args::command(), "", &mut found);
        assert!(found.len() > 20, "{found:?}");
        for (path, text) in found {
            assert!(text.contains("Example"), "{path} has no example");
            let typed: Vec<&str> = text
                .lines()
                .filter_map(|line| line.trim_start().split('|').next_back())
                .map(|line| line.split(['<', '>']).next().unwrap_or_default().trim())
                .filter(|line| line.starts_with("keywright "))
                .collect();
            assert!(
                !typed.is_empty(),
                "{path}: no example begins with keywright"
            );
            for line in typed {
                let database = line.contains("rewrap table") && !line.contains("--postgres");
                // Where it comes from the environment.
                let more = database.then_some("--postgres=postgres://h/d");
                let parsed = Args::try_parse_from(line.split_whitespace().chain(more));
                assert!(parsed.is_ok(), "{path}: {line}: {parsed:?}");
            }
        }
    }

    #[test]
    fn json_is_seen_before_anything_is_parsed() {
        let wants = |line: &str| wants_json(line.split(' ').map(Into::into));
        assert!(wants("keywright key oops --output json"));
        assert!(wants("keywright --output=json key"));
        assert!(!wants("keywright key show json --output table"));
    }
}
