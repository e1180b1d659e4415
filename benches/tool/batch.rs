//! A batch that is asked for again and again, and whether the answer is one.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use keywright_client::{
    Client, Failure, FailureKind,
    proto::{
        DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, Form, ItemError,
        MacRequest, MacResponse, Packed, RewrapRequest, RewrapResponse, RotateKeyRequest,
        SignRequest, SignResponse,
    },
};

use crate::plan::{Layout, Op, Plan};

/// Its request.
#[derive(Debug)]
pub(crate) enum Kind {
    Encrypt(EncryptRequest),
    Decrypt(DecryptRequest),
    Rewrap(RewrapRequest),
    Sign(SignRequest),
    Mac(MacRequest),
}

/// A request that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) kind: Kind,
    count: usize,
    echo: bool,
}

impl Batch {
    /// Makes what is asked for again and again; decrypting and rewrapping want something
    /// that was encrypted before.
    pub(crate) async fn prepare(client: &Client, plan: &Plan) -> Result<Self> {
        let count = usize::try_from(plan.shape.count)?;
        let items = || items(plan, count);
        let key = || plan.key.clone();
        let kind = match plan.op {
            Op::Encrypt => Kind::Encrypt(encrypt(plan, items()?)?),
            // An echo decrypts nothing, and gives back as much either way.
            Op::Decrypt if plan.echo => {
                let (items, packed_items) = lay(plan.layout, items()?)?;
                Kind::Decrypt(DecryptRequest {
                    items,
                    packed_items,
                    ..Default::default()
                })
            }
            Op::Decrypt => {
                let request = encrypt(plan, items()?)?;
                let sealed = client.crypto().encrypt(request).await;
                let sealed = sealed.map_err(Failure::from)?.into_inner();
                Kind::Decrypt(DecryptRequest {
                    header: sealed.header,
                    items: sealed.items,
                    packed_items: sealed.packed_items,
                    ..Default::default()
                })
            }
            Op::Rewrap => {
                let (envelopes, packed_envelopes) = lay(plan.layout, headers(client, plan).await?)?;
                Kind::Rewrap(RewrapRequest {
                    envelopes,
                    packed_envelopes,
                    ..Default::default()
                })
            }
            Op::Sign => {
                let (inputs, packed_inputs) = lay(plan.layout, items()?)?;
                Kind::Sign(SignRequest {
                    key: key(),
                    inputs,
                    packed_inputs,
                    ..Default::default()
                })
            }
            Op::Mac => {
                let (inputs, packed_inputs) = lay(plan.layout, items()?)?;
                Kind::Mac(MacRequest {
                    key: key(),
                    inputs,
                    packed_inputs,
                    ..Default::default()
                })
            }
        };
        let echo = plan.echo;
        let batch = Self { kind, count, echo };
        // One that is refused would be refused a million times.
        batch.ask(client).await.context("the first request")?;
        Ok(batch)
    }

    /// Sends it once.
    pub(crate) async fn ask(&self, client: &Client) -> Result<(), Failure> {
        let mut crypto = client.crypto();
        match &self.kind {
            Kind::Encrypt(r) => self.check(&crypto.encrypt(r.clone()).await?.into_inner()),
            Kind::Decrypt(r) => self.check(&crypto.decrypt(r.clone()).await?.into_inner()),
            Kind::Rewrap(r) => self.check(&crypto.rewrap(r.clone()).await?.into_inner()),
            Kind::Sign(r) => self.check(&crypto.sign(r.clone()).await?.into_inner()),
            Kind::Mac(r) => self.check(&crypto.mac(r.clone()).await?.into_inner()),
        }
    }

    /// As many results as items, and no error among them.
    pub(crate) fn check(&self, answer: &impl Answer) -> Result<(), Failure> {
        if let Some(e) = answer.errors().first() {
            let text = format!("item {}: {}: {}", e.index, e.reason, e.message);
            return Err(Failure::new(FailureKind::Other, text).because(e.reason.clone()));
        }
        let results = answer.results();
        if self.echo || results == self.count {
            return Ok(());
        }
        let text = format!("{} items were asked for, {results} came back", self.count);
        Err(Failure::new(FailureKind::Other, text))
    }
}

/// The answer to a batch.
pub(crate) trait Answer {
    fn errors(&self) -> &[ItemError];
    fn results(&self) -> usize;
}

macro_rules! answers {
    ($($answer:ident: $repeated:ident, $packed:ident;)*) => {
        $(impl Answer for $answer {
            fn errors(&self) -> &[ItemError] {
                &self.errors
            }

            fn results(&self) -> usize {
                let packed = self.$packed.as_ref().map_or(0, |p| p.lengths.len());
                self.$repeated.len() + packed
            }
        })*
    };
}
answers! {
    EncryptResponse: items, packed_items;
    DecryptResponse: plaintexts, packed_plaintexts;
    RewrapResponse: envelopes, packed_envelopes;
    SignResponse: signatures, packed_signatures;
    MacResponse: macs, packed_macs;
}

/// Slices of one buffer; what they hold does not matter to any of the operations.
fn items(plan: &Plan, count: usize) -> Result<Vec<Bytes>> {
    let bytes = usize::try_from(plan.shape.bytes)?;
    let all = Bytes::from(vec![0x5a; count * bytes]);
    Ok((0..count)
        .map(|i| all.slice(i * bytes..(i + 1) * bytes))
        .collect())
}

fn encrypt(plan: &Plan, items: Vec<Bytes>) -> Result<EncryptRequest> {
    let (plaintexts, packed_plaintexts) = lay(plan.layout, items)?;
    Ok(EncryptRequest {
        key: plan.key.clone(),
        plaintexts,
        packed_plaintexts,
        form: Form::Detached.into(),
        ..Default::default()
    })
}

/// As many headers as items, with a DEK each, and all of an old version.
async fn headers(client: &Client, plan: &Plan) -> Result<Vec<Bytes>> {
    if plan.echo {
        let header = Bytes::from_static(&[0x5a; keywright_client::HEADER_LEN]);
        return Ok(vec![header; usize::try_from(plan.shape.count)?]);
    }
    let mut headers = Vec::new();
    for item in items(plan, usize::try_from(plan.shape.count)?)? {
        let request = EncryptRequest {
            key: plan.key.clone(),
            plaintexts: vec![item],
            form: Form::Detached.into(),
            ..Default::default()
        };
        let sealed = client.crypto().encrypt(request).await;
        headers.push(sealed.map_err(Failure::from)?.into_inner().header);
    }
    let name = plan.key.clone();
    let rotated = client.keys().rotate_key(RotateKeyRequest { name }).await;
    rotated.map_err(Failure::from).context("rotating the key")?;
    Ok(headers)
}

fn lay(layout: Layout, items: Vec<Bytes>) -> Result<(Vec<Bytes>, Option<Packed>)> {
    if layout == Layout::Repeated {
        return Ok((items, None));
    }
    let lengths = items.iter().map(|i| u32::try_from(i.len()));
    let packed = Packed {
        lengths: lengths.collect::<Result<_, _>>()?,
        data: items.concat().into(),
    };
    Ok((Vec::new(), Some(packed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(count: usize) -> Batch {
        Batch {
            kind: Kind::Mac(MacRequest::default()),
            count,
            echo: false,
        }
    }

    #[test]
    fn an_answer_that_lacks_something_is_none() {
        let mut answer = EncryptResponse {
            items: vec![Bytes::new(); 2],
            ..Default::default()
        };
        assert!(batch(2).check(&answer).is_ok());
        assert!(batch(3).check(&answer).is_err());
        answer.errors = vec![ItemError {
            reason: "BUSY".into(),
            ..Default::default()
        }];
        let e = batch(2).check(&answer).unwrap_err();
        assert_eq!(e.reason(), Some("BUSY"));
    }

    #[test]
    fn both_layouts_hold_the_same() {
        let items = || vec![Bytes::from("ab"), Bytes::from("c")];
        let (repeated, none) = lay(Layout::Repeated, items()).unwrap();
        assert_eq!((repeated.len(), none), (2, None));
        let (none, packed) = lay(Layout::Packed, items()).unwrap();
        let packed = packed.unwrap();
        assert!(none.is_empty());
        assert_eq!(
            (&packed.data[..], packed.lengths),
            (&b"abc"[..], vec![2, 1])
        );
    }
}
