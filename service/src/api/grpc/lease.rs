//! A lent data key on the wire: the lease, then signs of life until it ends.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use keywright_proto::v1::{DataKeyLease, LeaseDataKeyResponse};
use tokio::time::sleep;
use tonic::Status;

use super::{convert, status::status};
use crate::{
    config::Limits,
    ops::{App, Lease, Lent},
};

/// What who has a lease is sent.
pub(super) type Signs = Pin<Box<dyn Stream<Item = Result<LeaseDataKeyResponse, Status>> + Send>>;

/// The lease, and a sign of life after each pause for as long as it goes on.
pub(super) fn signs(app: Arc<App>, lent: Lent, id: String) -> Signs {
    enum Next {
        Lease(Lent),
        Sign(Lease),
    }
    let next = (app, Next::Lease(lent), id);
    Box::pin(stream::try_unfold(next, async |(app, next, id)| {
        let lease = match next {
            Next::Lease(lent) => {
                let response = LeaseDataKeyResponse {
                    lease: Some(wire(&lent, &app.limits)),
                };
                return Ok(Some((response, (app, Next::Sign(lent.lease), id))));
            }
            Next::Sign(lease) => lease,
        };
        sleep(Duration::from_millis(app.limits.lease_sign_ms)).await;
        if lease.goes_on(&app).await.map_err(|e| status(&e, &id))? {
            let sign = LeaseDataKeyResponse::default();
            return Ok(Some((sign, (app, Next::Sign(lease), id))));
        }
        Ok(None)
    }))
}

fn wire(lent: &Lent, limits: &Limits) -> DataKeyLease {
    let ms = |ms: u128| u32::try_from(ms).unwrap_or(u32::MAX);
    DataKeyLease {
        plaintext: Bytes::copy_from_slice(lent.dek.expose()),
        wrapped: Bytes::copy_from_slice(&lent.wrapped),
        key_id: Bytes::copy_from_slice(&lent.key.0),
        tenant_id: Bytes::copy_from_slice(&lent.tenant.0),
        key_version: lent.version.get(),
        lifetime_ms: ms(lent.life.as_millis()),
        silence_ms: ms(limits.lease_silence_ms().into()),
        max_envelopes: limits.lease_envelopes,
        max_items: convert::count(limits.batch_items),
        max_item_bytes: convert::count(limits.item_bytes),
        max_aad_bytes: convert::count(limits.aad_bytes),
        max_envelope_bytes: convert::count(limits.batch_bytes),
    }
}
