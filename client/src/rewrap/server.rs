//! What the driver asks of the server; tests have one of their own.

use bytes::Bytes;

use crate::{Attempts, Client, Failure, proto, repeat};

/// The calls of a worker.
pub trait Server {
    /// A key by name.
    fn key(&self, name: &str) -> impl Future<Output = Result<proto::Key, Failure>>;

    /// The open job of a key and subject.
    fn open_job(
        &self,
        key: &str,
        subject: &str,
    ) -> impl Future<Output = Result<Option<proto::Job>, Failure>>;

    /// Begins a job.
    fn create(
        &self,
        request: proto::CreateJobRequest,
    ) -> impl Future<Output = Result<proto::Job, Failure>>;

    /// A job as it is now.
    fn job(&self, id: &str) -> impl Future<Output = Result<proto::Job, Failure>>;

    /// Takes or renews the lease.
    fn lease(
        &self,
        request: proto::LeaseJobRequest,
    ) -> impl Future<Output = Result<proto::LeaseJobResponse, Failure>>;

    /// Reports a step.
    fn checkpoint(
        &self,
        request: proto::CheckpointJobRequest,
    ) -> impl Future<Output = Result<proto::CheckpointJobResponse, Failure>>;

    /// Moves headers of one key; what cannot be moved is named in the answer.
    fn rewrap(
        &self,
        key: &str,
        headers: Vec<Bytes>,
    ) -> impl Future<Output = Result<proto::RewrapResponse, Failure>>;
}

impl Server for Client {
    async fn key(&self, name: &str) -> Result<proto::Key, Failure> {
        Self::key(self, name).await
    }

    async fn open_job(&self, key: &str, subject: &str) -> Result<Option<proto::Job>, Failure> {
        Self::open_job(self, key, subject).await
    }

    async fn create(&self, request: proto::CreateJobRequest) -> Result<proto::Job, Failure> {
        self.create_job(request).await
    }

    async fn job(&self, id: &str) -> Result<proto::Job, Failure> {
        Self::job(self, id).await
    }

    async fn lease(
        &self,
        request: proto::LeaseJobRequest,
    ) -> Result<proto::LeaseJobResponse, Failure> {
        self.lease_job(request).await
    }

    async fn checkpoint(
        &self,
        request: proto::CheckpointJobRequest,
    ) -> Result<proto::CheckpointJobResponse, Failure> {
        self.checkpoint_job(request).await
    }

    async fn rewrap(
        &self,
        key: &str,
        headers: Vec<Bytes>,
    ) -> Result<proto::RewrapResponse, Failure> {
        let request = proto::RewrapRequest {
            envelopes: headers,
            key: key.to_owned(),
            ..Default::default()
        };
        let call = async || self.crypto().rewrap(request.clone()).await;
        repeat(Attempts::default(), call).await
    }
}
