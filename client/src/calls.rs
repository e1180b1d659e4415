//! The common calls with plain types: one method each, tried again where that is safe
//! ([`repeat`]). They fail when one item fails; who wants to go on with the
//! others, or needs an option that is not here, takes [`Client::crypto`],
//! [`Client::keys`], [`Client::jobs`], [`Client::pki`] and [`Client::pki_admin`], which
//! offer every call of the contract.

mod jobs;
mod pki;
mod pki_admin;

use std::collections::BTreeMap;

use bytes::Bytes;

#[cfg(doc)]
use crate::FailureKind;
use crate::{Attempts, Client, Failure, proto, repeat};

pub use jobs::SignedReport;
pub use pki::Bundle;

/// Non-secret pairs bound to what is encrypted.
pub type Context = BTreeMap<String, String>;

/// A batch under one header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// 136 bytes, to be kept with the items.
    pub header: Bytes,
    /// One for each plaintext, 20 bytes longer.
    pub items: Vec<Bytes>,
    /// The version that protected it.
    pub key_version: u32,
}

/// A batch opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// In the order of the items.
    pub plaintexts: Vec<Bytes>,
    /// The envelope stands under an old version: [`Client::rewrap`] its header.
    pub rewrap_due: bool,
}

/// A key for the caller's own cipher.
pub struct DataKey {
    /// Use it, forget it.
    pub plaintext: Bytes,
    /// 136 bytes, to be kept.
    pub wrapped: Bytes,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataKey").finish_non_exhaustive()
    }
}

/// A key for the caller's own cipher, of which the appliance keeps the wrapped form.
pub struct KeptDataKey {
    /// Use it, forget it.
    pub plaintext: Bytes,
    /// 16 bytes, to be kept.
    pub id: Bytes,
}

impl std::fmt::Debug for KeptDataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptDataKey").finish_non_exhaustive()
    }
}

impl Client {
    /// Encrypts a batch under the primary version of a key: one data key, one header.
    ///
    /// # Errors
    /// What the server says.
    pub async fn encrypt(
        &self,
        key: &str,
        context: &Context,
        plaintexts: Vec<Bytes>,
    ) -> Result<Sealed, Failure> {
        let request = proto::EncryptRequest {
            key: key.to_owned(),
            context: context.clone(),
            plaintexts,
            ..Default::default()
        };
        let call = async || self.crypto().encrypt(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        all(&response.errors)?;
        Ok(Sealed {
            header: response.header,
            items: response.items,
            key_version: response.key_version,
        })
    }

    /// Opens a batch; the header names the key.
    ///
    /// # Errors
    /// [`FailureKind::Data`] when key, context and ciphertext do not belong together.
    pub async fn decrypt(&self, sealed: &Sealed, context: &Context) -> Result<Opened, Failure> {
        let request = proto::DecryptRequest {
            context: context.clone(),
            header: sealed.header.clone(),
            items: sealed.items.clone(),
            ..Default::default()
        };
        let call = async || self.crypto().decrypt(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        all(&response.errors)?;
        Ok(Opened {
            plaintexts: response.plaintexts,
            rewrap_due: !response.rewrap_due.is_empty(),
        })
    }

    /// Moves headers (and wrapped data keys) to the primary versions of their keys. Items
    /// stay as they are and are not sent.
    ///
    /// # Errors
    /// What the server says.
    pub async fn rewrap(&self, headers: Vec<Bytes>) -> Result<Vec<Bytes>, Failure> {
        let request = proto::RewrapRequest {
            envelopes: headers,
            ..Default::default()
        };
        let call = async || self.crypto().rewrap(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        all(&response.errors)?;
        Ok(response.envelopes)
    }

    /// Signs messages the way the key has: ECDSA (DER), Ed25519, RSA-PSS with SHA-256.
    ///
    /// # Errors
    /// What the server says.
    pub async fn sign(&self, key: &str, messages: Vec<Bytes>) -> Result<Vec<Bytes>, Failure> {
        let request = proto::SignRequest {
            key: key.to_owned(),
            inputs: messages,
            ..Default::default()
        };
        let call = async || self.crypto().sign(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        all(&response.errors)?;
        Ok(response.signatures)
    }

    /// Is each the signature of its message, by any version of the key that may verify?
    ///
    /// # Errors
    /// What the server says; a signature that is not valid is `false`.
    pub async fn verify(
        &self,
        key: &str,
        messages: Vec<Bytes>,
        signatures: Vec<Bytes>,
    ) -> Result<Vec<bool>, Failure> {
        let request = proto::VerifyRequest {
            key: key.to_owned(),
            inputs: messages,
            signatures,
            ..Default::default()
        };
        let call = async || self.crypto().verify(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        all(&response.errors)?;
        Ok(response.verdicts.iter().map(|v| v.valid).collect())
    }

    /// HMACs of messages.
    ///
    /// # Errors
    /// What the server says.
    pub async fn mac(&self, key: &str, messages: Vec<Bytes>) -> Result<Vec<Bytes>, Failure> {
        let request = proto::MacRequest {
            key: key.to_owned(),
            inputs: messages,
            ..Default::default()
        };
        let call = async || self.crypto().mac(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        all(&response.errors)?;
        Ok(response.macs)
    }

    /// Is each the HMAC of its message, by any version of the key that may verify?
    ///
    /// # Errors
    /// What the server says; a MAC that is not valid is `false`.
    pub async fn verify_mac(
        &self,
        key: &str,
        messages: Vec<Bytes>,
        macs: Vec<Bytes>,
    ) -> Result<Vec<bool>, Failure> {
        let request = proto::VerifyMacRequest {
            key: key.to_owned(),
            inputs: messages,
            macs,
            ..Default::default()
        };
        let call = async || self.crypto().verify_mac(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        all(&response.errors)?;
        Ok(response.verdicts.iter().map(|v| v.valid).collect())
    }

    /// A data key of 16, 32 or 64 bytes. Keep its wrapped form and its length.
    ///
    /// # Errors
    /// What the server says.
    pub async fn data_key(
        &self,
        key: &str,
        context: &Context,
        length: u32,
    ) -> Result<DataKey, Failure> {
        let request = proto::GenerateDataKeysRequest {
            key: key.to_owned(),
            context: context.clone(),
            lengths: vec![length],
            ..Default::default()
        };
        let call = async || self.crypto().generate_data_keys(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        let made = one(response.data_keys)?;
        Ok(DataKey {
            plaintext: made.plaintext,
            wrapped: made.wrapped,
        })
    }

    /// Opens a wrapped data key. Another length gives another key, not an error.
    ///
    /// # Errors
    /// [`FailureKind::Data`] when key, context and wrapped form do not belong together.
    pub async fn open_data_key(
        &self,
        wrapped: Bytes,
        context: &Context,
        length: u32,
    ) -> Result<Bytes, Failure> {
        let request = proto::DecryptDataKeysRequest {
            context: context.clone(),
            wrapped: vec![wrapped],
            lengths: vec![length],
            ..Default::default()
        };
        let call = async || self.crypto().decrypt_data_keys(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        one(response.plaintexts)
    }

    /// A data key whose wrapped form the appliance keeps: nothing is to be rewrapped here.
    /// Keep its id and its length.
    ///
    /// # Errors
    /// What the server says.
    pub async fn kept_data_key(
        &self,
        key: &str,
        context: &Context,
        length: u32,
    ) -> Result<KeptDataKey, Failure> {
        let request = proto::GenerateDataKeysRequest {
            key: key.to_owned(),
            context: context.clone(),
            lengths: vec![length],
            keep: true,
            ..Default::default()
        };
        // Tried once: a repeat would leave one behind that nobody knows.
        let response = self.crypto().generate_data_keys(request).await?;
        let proto::DataKey { plaintext, id, .. } = one(response.into_inner().data_keys)?;
        Ok(KeptDataKey { plaintext, id })
    }

    /// Opens a data key that the appliance keeps.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] when it was forgotten, or is not ours.
    pub async fn open_kept_data_key(
        &self,
        id: Bytes,
        context: &Context,
        length: u32,
    ) -> Result<Bytes, Failure> {
        let request = proto::DecryptDataKeysRequest {
            context: context.clone(),
            ids: vec![id],
            lengths: vec![length],
            ..Default::default()
        };
        let call = async || self.crypto().decrypt_data_keys(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        one(response.plaintexts)
    }

    /// Forgets kept data keys for ever; says how many there were.
    ///
    /// # Errors
    /// What the server says.
    pub async fn forget_data_keys(&self, key: &str, ids: Vec<Bytes>) -> Result<u32, Failure> {
        let key = key.to_owned();
        let request = proto::ForgetDataKeysRequest { key, ids };
        let call = async || self.crypto().forget_data_keys(request.clone()).await;
        Ok(repeat(Attempts::default(), call).await?.forgotten)
    }

    /// Random bytes, at most 65,536.
    ///
    /// # Errors
    /// What the server says.
    pub async fn random(&self, length: u32) -> Result<Bytes, Failure> {
        let request = proto::GenerateRandomRequest {
            lengths: vec![length],
            ..Default::default()
        };
        let call = async || self.crypto().generate_random(request.clone()).await;
        one(repeat(Attempts::default(), call).await?.values)
    }

    /// A key and its versions.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] when there is none, or none for us.
    pub async fn key(&self, name: &str) -> Result<proto::Key, Failure> {
        let request = proto::GetKeyRequest { name: name.into() };
        let call = async || self.keys().get_key(request.clone()).await;
        repeat(Attempts::default(), call)
            .await?
            .key
            .ok_or_else(Failure::nonsense)
    }

    /// Creates a key. Tried once: an answer that got lost may have been a yes.
    ///
    /// # Errors
    /// What the server says.
    pub async fn create_key(
        &self,
        name: &str,
        spec: proto::KeySpec,
    ) -> Result<proto::Key, Failure> {
        let request = proto::CreateKeyRequest {
            name: name.into(),
            spec: spec.into(),
            ..Default::default()
        };
        let response = self.keys().create_key(request).await?.into_inner();
        response.key.ok_or_else(Failure::nonsense)
    }

    /// Makes a new version the primary one. Tried once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn rotate_key(&self, name: &str) -> Result<proto::Key, Failure> {
        let request = proto::RotateKeyRequest { name: name.into() };
        let response = self.keys().rotate_key(request).await?.into_inner();
        response.key.ok_or_else(Failure::nonsense)
    }
}

fn all(errors: &[proto::ItemError]) -> Result<(), Failure> {
    errors.first().map_or(Ok(()), |e| Err(Failure::item(e)))
}

fn one<T>(items: Vec<T>) -> Result<T, Failure> {
    items.into_iter().next().ok_or_else(Failure::nonsense)
}
