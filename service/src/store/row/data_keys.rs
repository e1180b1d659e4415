//! Rows of the data keys' table.

use sqlx::{FromRow, Row, any::AnyRow};

use super::{corrupt, id};
use crate::{
    envelope::{Header, Kept},
    key::TenantId,
    store::Result,
};

rows! {
    struct KeptRow {
        tenant_id: Vec<u8>,
        header: Vec<u8>,
        created_ms: i64,
    }
}

impl KeptRow {
    pub(in crate::store) fn kept(self) -> Result<Kept> {
        Ok(Kept {
            tenant: TenantId(id(self.tenant_id, "tenant id")?),
            header: Header::parse(&self.header).map_err(|_| corrupt("data key"))?,
            created_ms: self.created_ms,
        })
    }
}
