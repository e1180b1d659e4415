//! The calls of `PkiAdmin`: authorities and profiles. What reads is tried again; what
//! changes something is tried once, because an answer that got lost may have been a yes.

use bytes::Bytes;

use crate::{Attempts, Client, Failure, proto, repeat};

impl Client {
    /// Puts a plan for an authority on record; `text` is the reviewed TOML. Tried once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn plan_ceremony(&self, text: &str) -> Result<proto::Ceremony, Failure> {
        let request = proto::PlanCeremonyRequest { text: text.into() };
        let response = self.pki_admin().plan_ceremony(request).await?;
        response.into_inner().ceremony.ok_or_else(Failure::nonsense)
    }

    /// Says yes to what would be signed, by its digest. Tried once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn approve_ceremony(
        &self,
        id: &[u8],
        digest: &[u8],
    ) -> Result<proto::Ceremony, Failure> {
        let request = proto::ApproveCeremonyRequest {
            id: Bytes::copy_from_slice(id),
            digest: Bytes::copy_from_slice(digest),
        };
        let response = self.pki_admin().approve_ceremony(request).await?;
        response.into_inner().ceremony.ok_or_else(Failure::nonsense)
    }

    /// Signs what was planned and approved. For an external root also the CSR, DER; empty
    /// otherwise. Tried once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn commit_ceremony(&self, id: &[u8]) -> Result<(proto::Issuer, Bytes), Failure> {
        let request = proto::CommitCeremonyRequest {
            id: Bytes::copy_from_slice(id),
        };
        let response = self.pki_admin().commit_ceremony(request).await?;
        let response = response.into_inner();
        let issuer = response.issuer.ok_or_else(Failure::nonsense)?;
        Ok((issuer, response.csr_der))
    }

    /// Hands in the certificate that an external root made; `chain` goes from the one that
    /// signed it up to and with its root. DER. Tried once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn import_issuer(
        &self,
        id: &[u8],
        certificate: Bytes,
        chain: Vec<Bytes>,
    ) -> Result<proto::Issuer, Failure> {
        let request = proto::ImportIssuerRequest {
            id: Bytes::copy_from_slice(id),
            certificate_der: certificate,
            chain_der: chain,
        };
        let response = self.pki_admin().import_issuer(request).await?;
        response.into_inner().issuer.ok_or_else(Failure::nonsense)
    }

    /// Every authority of our tenant, also those that are only planned.
    ///
    /// # Errors
    /// What the server says.
    pub async fn issuers(&self) -> Result<Vec<proto::Issuer>, Failure> {
        let call = async || {
            let request = proto::ListIssuersRequest {};
            self.pki_admin().list_issuers(request).await
        };
        Ok(repeat(Attempts::default(), call).await?.issuers)
    }

    /// What an authority may sign from now on. Tried once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn set_issuer_usage(
        &self,
        issuer: &str,
        may_issue: bool,
        may_sign_crls: bool,
    ) -> Result<proto::Issuer, Failure> {
        let request = proto::SetIssuerUsageRequest {
            issuer: issuer.into(),
            may_issue,
            may_sign_crls,
        };
        let response = self.pki_admin().set_issuer_usage(request).await?;
        response.into_inner().issuer.ok_or_else(Failure::nonsense)
    }

    /// Puts a new version of a profile; `text` is TOML. Tried once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn put_profile(&self, text: &str) -> Result<proto::Profile, Failure> {
        let request = proto::PutProfileRequest { text: text.into() };
        let response = self.pki_admin().put_profile(request).await?;
        response.into_inner().profile.ok_or_else(Failure::nonsense)
    }

    /// A profile: `name`, or `name@version`.
    ///
    /// # Errors
    /// What the server says.
    pub async fn profile(&self, profile: &str) -> Result<proto::Profile, Failure> {
        let request = proto::GetProfileRequest {
            profile: profile.into(),
        };
        let call = async || self.pki_admin().get_profile(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        response.profile.ok_or_else(Failure::nonsense)
    }

    /// The newest version of each profile.
    ///
    /// # Errors
    /// What the server says.
    pub async fn profiles(&self) -> Result<Vec<proto::Profile>, Failure> {
        let call = async || {
            let request = proto::ListProfilesRequest {};
            self.pki_admin().list_profiles(request).await
        };
        Ok(repeat(Attempts::default(), call).await?.profiles)
    }

    /// Lets no certificate be issued under a profile any more. Tried once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn retire_profile(&self, name: &str) -> Result<proto::Profile, Failure> {
        let request = proto::RetireProfileRequest { name: name.into() };
        let response = self.pki_admin().retire_profile(request).await?;
        response.into_inner().profile.ok_or_else(Failure::nonsense)
    }

    /// A key for ACME's external account binding. Tried once: a key whose answer got lost
    /// is of no use to anybody.
    ///
    /// # Errors
    /// What the server says.
    pub async fn create_acme_key(
        &self,
        identity: &str,
        profiles: &[String],
    ) -> Result<proto::CreateAcmeKeyResponse, Failure> {
        let request = proto::CreateAcmeKeyRequest {
            identity: identity.into(),
            profiles: profiles.to_vec(),
        };
        Ok(self
            .pki_admin()
            .create_acme_key(request)
            .await?
            .into_inner())
    }

    /// Blocks a public key for ever and revokes what carries it; lists what is revoked now.
    /// Tried once: to be sure, do it again, the second time changes nothing.
    ///
    /// # Errors
    /// What the server says.
    pub async fn block_key(
        &self,
        spki_sha256: &[u8],
        why: &str,
    ) -> Result<Vec<proto::CertificateRef>, Failure> {
        let request = proto::BlockKeyRequest {
            spki_sha256: Bytes::copy_from_slice(spki_sha256),
            why: why.into(),
        };
        let response = self.pki_admin().block_key(request).await?;
        Ok(response.into_inner().revoked)
    }
}
