//! A `TBSCertificate` as x509-parser reads it, its extensions sorted by kind.

use x509_parser::{
    certificate::TbsCertificate,
    extensions::{
        AuthorityInfoAccess, AuthorityKeyIdentifier, BasicConstraints, CRLDistributionPoints,
        CertificatePolicies, ExtendedKeyUsage, KeyUsage, NameConstraints, ParsedExtension,
        SubjectAlternativeName,
    },
    prelude::FromDer,
};

use crate::{IssuerCert, Plan, oid};

/// An extension of one kind.
pub(super) struct Ext<'a, T: ?Sized> {
    pub(super) critical: bool,
    /// The content of the OCTET STRING.
    pub(super) value: &'a [u8],
    pub(super) parsed: &'a T,
}

/// What the rules look at.
pub(super) struct Reading<'a> {
    pub(super) tbs: &'a TbsCertificate<'a>,
    pub(super) plan: &'a Plan,
    pub(super) issuer: &'a IssuerCert,
    pub(super) self_signed: bool,
    pub(super) now: u64,
    /// Object identifiers as bytes, in the order of the certificate.
    pub(super) order: Vec<&'a [u8]>,
    pub(super) aki: Option<Ext<'a, AuthorityKeyIdentifier<'a>>>,
    pub(super) ski: Option<Ext<'a, [u8]>>,
    pub(super) key_usage: Option<Ext<'a, KeyUsage>>,
    pub(super) policies: Option<Ext<'a, CertificatePolicies<'a>>>,
    pub(super) san: Option<Ext<'a, SubjectAlternativeName<'a>>>,
    pub(super) basic: Option<Ext<'a, BasicConstraints>>,
    pub(super) names: Option<Ext<'a, NameConstraints<'a>>>,
    pub(super) eku: Option<Ext<'a, ExtendedKeyUsage<'a>>>,
    pub(super) crl_dp: Option<Ext<'a, CRLDistributionPoints<'a>>>,
    pub(super) aia: Option<Ext<'a, AuthorityInfoAccess<'a>>>,
    pub(super) no_rev_avail: Option<Ext<'a, [u8]>>,
    pub(super) no_check: Option<Ext<'a, [u8]>>,
}

/// Reads the whole of `tbs`.
pub(super) fn parse(tbs: &[u8]) -> Result<TbsCertificate<'_>, String> {
    match TbsCertificate::from_der(tbs) {
        Ok((rest, read)) if rest.is_empty() && read.as_ref() == tbs => Ok(read),
        Ok(_) => Err("bytes follow the TBSCertificate".to_owned()),
        Err(e) => Err(format!("the TBSCertificate cannot be read: {e}")),
    }
}

impl<'a> Reading<'a> {
    /// Sorts the extensions; one that is not known, twice there or unreadable is an error.
    pub(super) fn new(
        tbs: &'a TbsCertificate<'a>,
        plan: &'a Plan,
        issuer: &'a IssuerCert,
        self_signed: bool,
        now: u64,
    ) -> Result<Self, String> {
        let mut reading = Self {
            tbs,
            plan,
            issuer,
            self_signed,
            now,
            order: Vec::with_capacity(tbs.extensions().len()),
            aki: None,
            ski: None,
            key_usage: None,
            policies: None,
            san: None,
            basic: None,
            names: None,
            eku: None,
            crl_dp: None,
            aia: None,
            no_rev_avail: None,
            no_check: None,
        };
        for extension in tbs.extensions() {
            reading.sort(extension)?;
        }
        Ok(reading)
    }

    fn sort(
        &mut self,
        extension: &'a x509_parser::extensions::X509Extension<'a>,
    ) -> Result<(), String> {
        let (critical, value) = (extension.critical, extension.value);
        let oid = extension.oid.as_bytes();
        if self.order.contains(&oid) {
            return Err(format!("the extension {} is there twice", extension.oid));
        }
        self.order.push(oid);
        macro_rules! keep {
            ($slot:ident, $parsed:expr) => {
                self.$slot = Some(Ext {
                    critical,
                    value,
                    parsed: $parsed,
                })
            };
        }
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(p) => keep!(aki, p),
            ParsedExtension::SubjectKeyIdentifier(p) => keep!(ski, p.0),
            ParsedExtension::KeyUsage(p) => keep!(key_usage, p),
            ParsedExtension::CertificatePolicies(p) => keep!(policies, p),
            ParsedExtension::SubjectAlternativeName(p) => keep!(san, p),
            ParsedExtension::BasicConstraints(p) => keep!(basic, p),
            ParsedExtension::NameConstraints(p) => keep!(names, p),
            ParsedExtension::ExtendedKeyUsage(p) => keep!(eku, p),
            ParsedExtension::CRLDistributionPoints(p) => keep!(crl_dp, p),
            ParsedExtension::AuthorityInfoAccess(p) => keep!(aia, p),
            _ if oid == oid::NO_REV_AVAIL => keep!(no_rev_avail, value),
            _ if oid == oid::OCSP_NO_CHECK => keep!(no_check, value),
            ParsedExtension::ParseError { .. } => {
                return Err(format!("the extension {} cannot be read", extension.oid));
            }
            _ => {
                return Err(format!(
                    "the extension {} is not one we issue",
                    extension.oid
                ));
            }
        }
        Ok(())
    }
}
