//! The calls of `Jobs`. What reads is tried again, and so are the lease (a repeat takes a
//! new one, or renews the same) and the checkpoint (told twice it counts once). Beginning
//! and changing a job are tried once.

use bytes::Bytes;
use tonic::Streaming;

use crate::{Attempts, Client, Failure, proto, repeat};

/// Jobs of one page; the most a server gives.
const PAGE: u32 = 1_000;

/// What a job came to, signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReport {
    /// JSON in UTF-8.
    pub report: Bytes,
    /// ECDSA with SHA-256 on P-256 over it, DER.
    pub signature: Bytes,
    /// The appliance's public key, PEM.
    pub public_key_pem: String,
}

impl Client {
    /// Begins a job. Tried once: an answer that got lost may have been a yes; then
    /// [`open_job`](Self::open_job) finds it.
    ///
    /// # Errors
    /// What the server says.
    pub async fn create_job(
        &self,
        request: proto::CreateJobRequest,
    ) -> Result<proto::Job, Failure> {
        let response = self.jobs().create_job(request).await?.into_inner();
        response.job.ok_or_else(Failure::nonsense)
    }

    /// A job as it is now.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`](crate::FailureKind::NotFound) when there is none, or none
    /// for us.
    pub async fn job(&self, id: &str) -> Result<proto::Job, Failure> {
        let request = proto::GetJobRequest { id: id.into() };
        let call = async || self.jobs().get_job(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        response.job.ok_or_else(Failure::nonsense)
    }

    /// All jobs of a key, newest first; an empty name: of all keys.
    ///
    /// # Errors
    /// What the server says.
    pub async fn list_jobs(&self, key: &str, open_only: bool) -> Result<Vec<proto::Job>, Failure> {
        let mut jobs = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = proto::ListJobsRequest {
                key: key.into(),
                open_only,
                page_size: PAGE,
                page_token,
            };
            let call = async || self.jobs().list_jobs(request.clone()).await;
            let page = repeat(Attempts::default(), call).await?;
            jobs.extend(page.jobs);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(jobs);
            }
        }
    }

    /// The job of a key over one subject that has not ended, if there is one.
    ///
    /// # Errors
    /// What the server says.
    pub async fn open_job(&self, key: &str, subject: &str) -> Result<Option<proto::Job>, Failure> {
        let open = self.list_jobs(key, true).await?;
        Ok(open
            .into_iter()
            .find(|j| j.key == key && j.subject == subject))
    }

    /// The job now, and again whenever it has changed, until it has ended. The stream is
    /// not opened again when it breaks.
    ///
    /// # Errors
    /// What the server says.
    pub async fn watch_job(&self, id: &str) -> Result<Streaming<proto::WatchJobResponse>, Failure> {
        let request = proto::WatchJobRequest { id: id.into() };
        let call = async || self.jobs().watch_job(request.clone()).await;
        repeat(Attempts::default(), call).await
    }

    /// Pauses, resumes or cancels a job. Tried once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn change_job(
        &self,
        id: &str,
        change: proto::JobChange,
    ) -> Result<proto::Job, Failure> {
        let request = proto::ChangeJobRequest {
            id: id.into(),
            change: change.into(),
        };
        let response = self.jobs().change_job(request).await?.into_inner();
        response.job.ok_or_else(Failure::nonsense)
    }

    /// Takes or renews the lease of a job.
    ///
    /// # Errors
    /// What the server says.
    pub async fn lease_job(
        &self,
        request: proto::LeaseJobRequest,
    ) -> Result<proto::LeaseJobResponse, Failure> {
        let call = async || self.jobs().lease_job(request.clone()).await;
        repeat(Attempts::default(), call).await
    }

    /// Reports one step of a job.
    ///
    /// # Errors
    /// What the server says.
    pub async fn checkpoint_job(
        &self,
        request: proto::CheckpointJobRequest,
    ) -> Result<proto::CheckpointJobResponse, Failure> {
        let call = async || self.jobs().checkpoint_job(request.clone()).await;
        repeat(Attempts::default(), call).await
    }

    /// What a job that has ended came to, signed by the appliance.
    ///
    /// # Errors
    /// What the server says.
    pub async fn job_report(&self, id: &str) -> Result<SignedReport, Failure> {
        let request = proto::GetJobReportRequest { id: id.into() };
        let call = async || self.jobs().get_job_report(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        Ok(SignedReport {
            report: response.report,
            signature: response.signature,
            public_key_pem: response.public_key_pem,
        })
    }
}
