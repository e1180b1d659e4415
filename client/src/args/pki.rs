//! `keywright pki …`: what can be typed.

mod certificate;
mod parse;

use std::path::PathBuf;

use clap::{Args as Flags, Subcommand};

#[cfg(test)]
pub(crate) use certificate::Target;
pub(crate) use certificate::{
    Block, Cause, Find, Issue, KeyType, Renew, Request, Revoke, Sign, Verify, Written,
};
pub(super) use parse::span;
pub(crate) use parse::{Bytes, Span};
use parse::{octets, serial};

#[derive(Debug, Subcommand)]
pub(crate) enum Pki {
    /// Make an authority: plan, approve, commit; several people say yes in between.
    #[command(subcommand)]
    Ceremony(Ceremony),
    /// Look at authorities, stop and start them.
    #[command(subcommand)]
    Issuer(Issuer),
    /// The rules under which certificates are issued.
    #[command(subcommand)]
    Profile(Profile),
    /// Let ACME clients in (certbot, lego and others).
    #[command(subcommand)]
    AcmeKey(AcmeKey),
    /// Write the roots and intermediates of your tenant as PEM.
    #[command(after_help = "Example:\n  keywright pki bundle --out bundle.pem")]
    Bundle {
        /// Only the roots: what verifiers trust.
        #[arg(long)]
        roots: bool,
        /// Write here instead of standard output; whole or not at all.
        #[arg(long = "out", value_name = "FILE")]
        output_file: Option<PathBuf>,
    },
    /// Have a CSR signed. The same request again gives the same certificate for 24 hours.
    #[command(after_help = "Examples:\n  \
keywright pki sign --profile service-tls --csr api.csr --dns api.example.internal --out api.pem --chain chain.pem\n  \
keywright pki sign --profile service-tls --csr api.csr --ttl 12h --dry-run\n  \
openssl req -new -key api.key -subj / | keywright pki sign --profile service-tls --csr - --dns api.example.internal")]
    Sign(Sign),
    /// Make a key here and have it certified. The key is never sent anywhere.
    #[command(after_help = "Examples:\n  \
keywright pki issue --profile service-tls --dns api.example.internal --key-out api.key --out api.pem --chain chain.pem\n  \
keywright pki issue --profile spiffe-svid --uri spiffe://example.internal/ns/shop/sa/cart --key-type ed25519 --key-out svid.key --out svid.pem --full-chain svid-full.pem")]
    Issue(Issue),
    /// A new certificate for one that is still good: connects with it instead of your own.
    #[command(after_help = "Examples:\n  \
keywright pki renew --cert svid-full.pem --key svid.key --out svid.pem --full-chain svid-full.pem\n  \
keywright pki renew --cert svid-full.pem --key svid.key --new-key-out svid-2.key --out svid-2.pem\n\n\
The certificate must carry a SPIFFE id (profile spiffe-svid, or any with such a name): it is who renews.")]
    Renew(Renew),
    /// Take a certificate back, for ever.
    #[command(after_help = "Examples:\n  \
keywright pki revoke --cert api.pem --reason superseded\n  \
keywright pki revoke --issuer int-a --serial 3a5f01 --reason cessation-of-operation\n  \
keywright pki revoke --cert api.pem --key api.key --reason key-compromise --yes")]
    Revoke(Revoke),
    /// Write the newest CRL of an issuer: PEM, or DER where the file is named .crl or .der.
    #[command(after_help = "Example:\n  keywright pki crl --issuer int-a --out int-a.crl")]
    Crl {
        /// Name of the issuer.
        #[arg(long, value_name = "NAME")]
        issuer: String,
        /// Only this shard, from 1; left out: the full CRL.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        shard: Option<u32>,
        /// Write here instead of standard output; whole or not at all.
        #[arg(long = "out", value_name = "FILE")]
        output_file: Option<PathBuf>,
    },
    /// List certificates that have not expired, in the order of their end.
    #[command(after_help = "Examples:\n  \
keywright pki list --expiring 30d\n  \
keywright pki list --name api.example.internal --state issued --output json")]
    List(Find),
    /// Show what is on record about a certificate.
    #[command(after_help = "Example:\n  keywright pki show --issuer int-a --serial 3a5f01")]
    Show {
        /// Name of the issuer.
        #[arg(long, value_name = "NAME")]
        issuer: String,
        /// In hexadecimal.
        #[arg(long, value_name = "HEX", value_parser = serial)]
        serial: Bytes,
    },
    /// Check a certificate here, without a server: path, validity, name, revocation. Exit
    /// code 6 when it is not good, with the reason.
    #[command(after_help = "Examples:\n  \
keywright pki verify api.pem --chain chain.pem --root root.pem --dns api.example.internal\n  \
keywright pki verify api.pem --chain chain.pem --root root.pem --crl int-a.crl")]
    Verify(Verify),
    /// Never certify a public key again, and revoke every certificate that carries it.
    #[command(after_help = "Examples:\n  \
keywright pki block-key --cert api.pem --why found-in-a-repository\n  \
keywright pki block-key --spki-sha256 8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4 --why leaked")]
    BlockKey(Block),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ceremony {
    /// Put a plan on record: the key is made in the HSM, nothing is signed. Shows what
    /// would be, and its digest.
    #[command(
        after_help = "Example:\n  keywright pki ceremony plan root.toml --tbs root.tbs\n\n\
A ceremony in root.toml:\n  \
name = \"root\"\n  \
kind = \"root\"               # or intermediate, with parent = \"NAME\"; or external\n  \
key = \"ec-p384\"\n  \
validity_days = 7300\n  \
approvals = 2\n  \
[subject]\n  \
CN = \"Example Root\"\n  \
O = \"Example\""
    )]
    Plan {
        /// The reviewed text, TOML.
        file: PathBuf,
        /// Also write what would be signed, DER: its SHA-256 is the digest.
        #[arg(long, value_name = "FILE")]
        tbs: Option<PathBuf>,
    },
    /// Say yes to a plan, by the digest of what would be signed.
    #[command(
        after_help = "Example:\n  keywright pki ceremony approve 0f8e2c6f5a1b4c3d9e7f001122334455 --digest 8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"
    )]
    Approve {
        /// The ceremony, 32 hexadecimal digits.
        #[arg(value_name = "ID", value_parser = octets)]
        id: Bytes,
        /// What you say yes to, in hexadecimal.
        #[arg(long, value_name = "HEX", value_parser = octets)]
        digest: Bytes,
    },
    /// Sign what was planned and approved. For an external root: write the CSR.
    #[command(after_help = "Examples:\n  \
keywright pki ceremony commit 0f8e2c6f5a1b4c3d9e7f001122334455\n  \
keywright pki ceremony commit 0f8e2c6f5a1b4c3d9e7f001122334455 --csr-out int-a.csr")]
    Commit {
        /// The ceremony, 32 hexadecimal digits.
        #[arg(value_name = "ID", value_parser = octets)]
        id: Bytes,
        /// Write the CSR for the external root here, PEM.
        #[arg(long, value_name = "FILE")]
        csr_out: Option<PathBuf>,
    },
    /// Hand in the certificate that an external root made for the CSR.
    #[command(
        after_help = "Example:\n  keywright pki ceremony import 0f8e2c6f5a1b4c3d9e7f001122334455 --cert int-a.pem --chain root.pem"
    )]
    Import {
        /// The ceremony, 32 hexadecimal digits.
        #[arg(value_name = "ID", value_parser = octets)]
        id: Bytes,
        /// The certificate, PEM or DER.
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
        /// From the one that signed it up to and with its root, PEM.
        #[arg(long, value_name = "FILE")]
        chain: PathBuf,
    },
    /// How far a ceremony is: who said yes, and what it made.
    #[command(after_help = "Example:\n  keywright pki ceremony show int-a")]
    Show {
        /// The ceremony, 32 hexadecimal digits, or the name of its issuer.
        #[arg(value_name = "ID|NAME")]
        which: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Issuer {
    /// List the authorities.
    #[command(after_help = "Example:\n  keywright pki issuer list")]
    List,
    /// Show an authority and its certificate.
    #[command(after_help = "Example:\n  keywright pki issuer show int-a")]
    Show {
        /// Name of the issuer.
        name: String,
    },
    /// Stop an authority from issuing certificates, or from signing CRLs.
    #[command(after_help = "Examples:\n  \
keywright pki issuer stop int-a\n  \
keywright pki issuer stop int-a --issue --crl")]
    Stop(Usage),
    /// Let an authority sign again; clears the alarm of one that was stopped by itself.
    #[command(after_help = "Example:\n  keywright pki issuer start int-a")]
    Start(Usage),
}

/// Without flags: stop only ends issuing, since verifiers refuse everything when CRLs
/// stay away; start allows both.
#[derive(Debug, Flags)]
pub(crate) struct Usage {
    /// Name of the issuer.
    pub(crate) name: String,
    /// Certificates.
    #[arg(long)]
    pub(crate) issue: bool,
    /// CRLs. Verifiers refuse all certificates when the last CRL has expired.
    #[arg(long)]
    pub(crate) crl: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AcmeKey {
    /// Make a key for external account binding. It is shown now and never again.
    #[command(
        after_help = "Example:\n  keywright pki acme-key create --identity spiffe://corp.example/web --profile service-tls\n\n\
Then, for instance:\n  \
certbot certonly --server https://acme.corp.example:8444/acme/TENANT/directory --eab-kid=KID --eab-hmac-key=KEY ...\n  \
lego --server https://acme.corp.example:8444/acme/TENANT/directory --eab --kid=KID --hmac=KEY ..."
    )]
    Create {
        /// Policies are asked for this SPIFFE id, and placeholders in profiles stand for its
        /// parts.
        #[arg(long, value_name = "SPIFFE-ID")]
        identity: String,
        /// What clients may ask for; repeat for more. The first is the default.
        #[arg(long = "profile", value_name = "NAME", required = true)]
        profiles: Vec<String>,
        /// Write both lines here, for the owner only, instead of to standard output.
        #[arg(long = "out", value_name = "FILE")]
        output_file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Profile {
    /// Put a new version of a profile on record; versions never change.
    #[command(
        after_help = "Example:\n  keywright pki profile put service-tls.toml\n\n\
A profile in service-tls.toml:\n  \
name = \"service-tls\"\n  \
version = 1\n  \
issuers = [\"int-a\"]\n  \
[validity]\n  \
default = \"24h\"\n  \
max = \"72h\"\n  \
[key]\n  \
allow = [\"ec-p256\", \"ed25519\"]\n  \
[[san.dns]]\n  \
match = \"any-depth-under\"\n  \
value = \"example.internal\"\n  \
[usage]\n  \
eku = [\"serverAuth\"]"
    )]
    Put {
        /// TOML.
        file: PathBuf,
    },
    /// Print the text of a profile as it was put.
    #[command(
        after_help = "Examples:\n  keywright pki profile get service-tls\n  keywright pki profile get service-tls@2"
    )]
    Get {
        /// NAME, or NAME@VERSION.
        #[arg(value_name = "NAME[@VERSION]")]
        profile: String,
    },
    /// List the newest version of each profile.
    #[command(after_help = "Example:\n  keywright pki profile list")]
    List,
    /// Issue nothing under a profile any more.
    #[command(after_help = "Example:\n  keywright pki profile retire service-tls")]
    Retire {
        /// Name of the profile.
        name: String,
    },
}
