//! `keywright.v1.Crypto`: take over from the guard, run one batch, or a stream of them.

use std::sync::Arc;

use keywright_proto::v1::{
    AsymmetricDecryptRequest, AsymmetricDecryptResponse, DecryptDataKeysRequest,
    DecryptDataKeysResponse, DecryptRequest, DecryptResponse, DecryptStreamRequest, EncryptRequest,
    EncryptResponse, EncryptStreamRequest, ForgetDataKeysRequest, ForgetDataKeysResponse,
    GenerateDataKeysRequest, GenerateDataKeysResponse, GenerateRandomRequest,
    GenerateRandomResponse, LeaseDataKeyRequest, MacRequest, MacResponse, ReencryptRequest,
    ReencryptResponse, RewrapRequest, RewrapResponse, RewrapStreamRequest, SignRequest,
    SignResponse, SignStreamRequest, VerifyMacRequest, VerifyMacResponse, VerifyRequest,
    VerifyResponse, crypto_server::Crypto,
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    batch, convert,
    guard::{begin, visit},
    lease::{self, Signs},
    status::status,
    stream::{self, Answers, Piece},
};
use crate::{
    error,
    ops::{self, App, Call, accounted},
};

/// The handlers.
#[derive(Debug)]
pub(super) struct CryptoDoor {
    app: Arc<App>,
}

impl CryptoDoor {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    /// Takes a request over, runs the operation with its record, and puts the result or
    /// the error on the wire.
    async fn answer<Q, R>(
        &self,
        request: Request<Q>,
        run: impl AsyncFnOnce(&Arc<App>, &mut Call, Q) -> error::Result<R>,
    ) -> Result<Response<R>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        accounted(&self.app, call, async |app, call| {
            run(app, call, request).await
        })
        .await
        .map(Response::new)
        .map_err(|e| status(&e, &id))
    }

    /// Takes a stream over; the guard has a record of it, each batch makes its own.
    fn stream<P, F>(
        &self,
        request: Request<Streaming<P>>,
        run: fn(Arc<App>, Call, P::Batch) -> F,
    ) -> Result<Response<Answers<P::Reply>>, Status>
    where
        P: Piece,
        F: Future<Output = error::Result<P::Answer>> + Send + 'static,
    {
        let (visit, pieces) = visit(request)?;
        let answers = stream::answer(Arc::clone(&self.app), visit, pieces, run);
        Ok(Response::new(answers))
    }
}

/// The service: one batch each with the function in [`batch`], and streams of the same.
macro_rules! door {
    (
        batches { $($rpc:ident($request:ident) -> $response:ident = $run:ident;)* }
        streams { $($stream:ident($piece:ident) -> $kind:ident = $one:ident;)* }
        also { $($also:tt)* }
    ) => {
        #[tonic::async_trait]
        impl Crypto for CryptoDoor {
            $(
                async fn $rpc(
                    &self,
                    request: Request<$request>,
                ) -> Result<Response<$response>, Status> {
                    self.answer(request, batch::$run).await
                }
            )*
            $(
                type $kind = Answers<<$piece as Piece>::Reply>;

                async fn $stream(
                    &self,
                    request: Request<Streaming<$piece>>,
                ) -> Result<Response<Self::$kind>, Status> {
                    self.stream(request, |app, call, batch| async move {
                        let one = async |app: &Arc<App>, call: &mut Call| {
                            batch::$one(app, call, batch).await
                        };
                        accounted(&app, call, one).await
                    })
                }
            )*
            $($also)*
        }
    };
}

door! {
    batches {
        encrypt(EncryptRequest) -> EncryptResponse = encrypt;
        decrypt(DecryptRequest) -> DecryptResponse = decrypt;
        rewrap(RewrapRequest) -> RewrapResponse = rewrap;
        reencrypt(ReencryptRequest) -> ReencryptResponse = reencrypt;
        generate_random(GenerateRandomRequest) -> GenerateRandomResponse = random;
        sign(SignRequest) -> SignResponse = sign;
        verify(VerifyRequest) -> VerifyResponse = verify;
        mac(MacRequest) -> MacResponse = mac;
        verify_mac(VerifyMacRequest) -> VerifyMacResponse = verify_mac;
        asymmetric_decrypt(AsymmetricDecryptRequest) -> AsymmetricDecryptResponse = asymmetric_decrypt;
        generate_data_keys(GenerateDataKeysRequest) -> GenerateDataKeysResponse = generate_data_keys;
        decrypt_data_keys(DecryptDataKeysRequest) -> DecryptDataKeysResponse = decrypt_data_keys;
        forget_data_keys(ForgetDataKeysRequest) -> ForgetDataKeysResponse = forget_data_keys;
    }
    streams {
        encrypt_stream(EncryptStreamRequest) -> EncryptStreamStream = encrypt;
        decrypt_stream(DecryptStreamRequest) -> DecryptStreamStream = decrypt;
        rewrap_stream(RewrapStreamRequest) -> RewrapStreamStream = rewrap;
        sign_stream(SignStreamRequest) -> SignStreamStream = sign;
    }
    also {
        type LeaseDataKeyStream = Signs;

        /// The lease is a request like any other; the signs of life are what it asked for.
        async fn lease_data_key(
            &self,
            request: Request<LeaseDataKeyRequest>,
        ) -> Result<Response<Signs>, Status> {
            let (call, request) = begin(request)?;
            let id = call.entry.request_id.clone();
            let lent = accounted(&self.app, call, async |app, call| {
                let key = convert::key_name("key", &request.key)?;
                ops::lease_data_key(app, call, &key).await
            });
            let lent = lent.await.map_err(|e| status(&e, &id))?;
            Ok(Response::new(lease::signs(Arc::clone(&self.app), lent, id)))
        }
    }
}
