//! The shop's table: a row for each card, its number encrypted and bound to its row.

use std::collections::BTreeMap;

use bytes::Bytes;
use keywright_client::{Client, proto};
use sqlx::{PgPool, Row, postgres::PgPoolOptions};

pub(crate) const KEY: &str = "shop/cards";
/// Rows that are encrypted in one call; those of one call share a header.
const TOGETHER: i64 = 4;
/// Envelopes that are made side by side.
const ABREAST: usize = 32;

/// A value as an application knows it: whose, and which write it was.
pub(crate) fn plaintext(id: i64, write: u64) -> String {
    format!("card {id} write {write}")
}

/// The write of a plaintext that belongs to this row.
pub(crate) fn write_of(id: i64, plaintext: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(plaintext).ok()?;
    text.strip_prefix(&format!("card {id} write "))?
        .parse()
        .ok()
}

/// Binds a value to its row.
pub(crate) fn aad(id: i64) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

fn context() -> BTreeMap<String, String> {
    BTreeMap::from([("table".to_owned(), "cards".to_owned())])
}

/// Encrypts values of rows; each stands by itself.
pub(crate) async fn seal(client: &Client, values: &[(i64, u64)]) -> Vec<Bytes> {
    let request = proto::EncryptRequest {
        key: KEY.into(),
        context: context(),
        plaintexts: values
            .iter()
            .map(|(id, write)| plaintext(*id, *write).into())
            .collect(),
        aads: values.iter().map(|(id, _)| aad(*id)).collect(),
        form: proto::Form::Attached.into(),
        ..Default::default()
    };
    let sealed = client.crypto().encrypt(request).await.unwrap();
    sealed.into_inner().items
}

/// Opens values of rows.
pub(crate) async fn open(client: &Client, rows: &[(i64, Vec<u8>)]) -> Vec<Bytes> {
    let request = proto::DecryptRequest {
        context: context(),
        form: proto::Form::Attached.into(),
        items: rows.iter().map(|(_, pan)| pan.clone().into()).collect(),
        aads: rows.iter().map(|(id, _)| aad(*id)).collect(),
        ..Default::default()
    };
    let opened = client.crypto().decrypt(request).await.unwrap().into_inner();
    assert!(opened.errors.is_empty(), "{:?}", opened.errors);
    opened.plaintexts
}

/// The database of an application.
#[derive(Debug, Clone)]
pub(crate) struct Shop {
    pub(crate) url: String,
    pub(crate) pool: PgPool,
    pub(crate) rows: i64,
}

impl Shop {
    pub(crate) async fn fill(url: &str, client: &Client, rows: i64) -> Self {
        let pool = PgPoolOptions::new().max_connections(8).connect(url).await;
        let pool = pool.unwrap();
        let create = "CREATE TABLE cards (id bigint PRIMARY KEY, pan bytea NOT NULL)";
        sqlx::raw_sql(create).execute(&pool).await.unwrap();
        let ids: Vec<i64> = (0..rows).collect();
        for some in ids.chunks(usize::try_from(TOGETHER).unwrap() * ABREAST * 8) {
            let mut calls = tokio::task::JoinSet::new();
            for lane in some.chunks(some.len().div_ceil(ABREAST)) {
                let (client, lane) = (client.clone(), lane.to_vec());
                calls.spawn(async move {
                    let mut sealed = Vec::new();
                    for ids in lane.chunks(usize::try_from(TOGETHER).unwrap()) {
                        let values: Vec<_> = ids.iter().map(|id| (*id, 0)).collect();
                        let pans = seal(&client, &values).await;
                        sealed.extend(ids.iter().copied().zip(pans));
                    }
                    sealed
                });
            }
            let sealed = calls.join_all().await.concat();
            let ids: Vec<i64> = sealed.iter().map(|(id, _)| *id).collect();
            let pans: Vec<Vec<u8>> = sealed.iter().map(|(_, pan)| pan.to_vec()).collect();
            sqlx::query("INSERT INTO cards SELECT * FROM unnest($1::bigint[], $2::bytea[])")
                .bind(ids)
                .bind(pans)
                .execute(&pool)
                .await
                .unwrap();
        }
        sqlx::raw_sql("ANALYZE cards").execute(&pool).await.unwrap();
        Self {
            url: url.to_owned(),
            pool,
            rows,
        }
    }

    /// How many rows there are under each version.
    pub(crate) async fn versions(&self) -> Vec<(i32, i64)> {
        let text = "SELECT get_byte(pan, 75), count(*) FROM cards GROUP BY 1 ORDER BY 1";
        let rows = sqlx::query_as(text).fetch_all(&self.pool).await;
        rows.unwrap()
    }

    /// Each row holds what was written to it last, and opens with its own AAD.
    pub(crate) async fn every_row_opens(&self, client: &Client, last: &BTreeMap<i64, u64>) {
        const PAGE: i64 = 2000;
        let mut seen = 0;
        for from in (0..self.rows).step_by(usize::try_from(PAGE).unwrap()) {
            let text = "SELECT id, pan FROM cards WHERE id >= $1 AND id < $2 ORDER BY id";
            let rows = sqlx::query(text).bind(from).bind(from + PAGE);
            let rows = rows.fetch_all(&self.pool).await.unwrap();
            let rows: Vec<(i64, Vec<u8>)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
            for ((id, _), plain) in rows.iter().zip(open(client, &rows).await) {
                let expected = last.get(id).copied().unwrap_or(0);
                assert_eq!(write_of(*id, &plain), Some(expected), "row {id}");
                seen += 1;
            }
        }
        assert_eq!(seen, self.rows);
    }
}
