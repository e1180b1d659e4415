//! The parts that ask nobody: sealing, opening and reading, a given number of times. Counted
//! in instructions, which do not depend on who else uses the machine.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use clap::ValueEnum;
use keywright_client::proto::{EncryptRequest, EncryptResponse};
use keywright_hsm::{Dek, WrappedDek};
use keywright_service::{
    envelope::{Binding, Context, Header, ITEM_OVERHEAD, Kind, Schedule},
    key::{KeyId, TenantId, VersionNumber},
};
use prost::Message;

/// Items of a batch and bytes of each.
const ITEMS: usize = 100;
const BYTES: usize = 256;
/// Times a part is done to be counted; what a process costs besides is subtracted.
const TIMES: u32 = 50;
const TENANT: TenantId = TenantId([2; 16]);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Key schedule and 100 items of 256 bytes into one buffer.
    Seal,
    /// The commitment, and the same items back.
    Open,
    /// The context of a request into its digest.
    Context,
    /// A request of 100 items off the wire.
    Decode,
    /// A response of 100 items onto it.
    Encode,
}

impl Part {
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |v| v.get_name().to_owned())
    }

    /// Does it so many times.
    pub(crate) fn repeat(self, times: u32) -> Result<()> {
        let pairs = BTreeMap::from([("table".to_owned(), "cards".to_owned())]);
        let context = Context::new(&pairs)?;
        let binding = Binding {
            kind: Kind::Items,
            key_id: KeyId([1; 16]),
            tenant: TENANT,
            salt: [3; 16],
            context: &context,
        };
        let (header, sealed) = seal(&binding)?;
        let request = request().encode_to_vec();
        for _ in 0..times {
            match self {
                Self::Seal => drop(std::hint::black_box(seal(&binding)?)),
                Self::Open => open(&header, &context, &sealed)?,
                Self::Context => drop(std::hint::black_box(Context::new(&pairs)?)),
                Self::Decode => {
                    let bytes = Bytes::from(request.clone());
                    drop(std::hint::black_box(EncryptRequest::decode(bytes)?));
                }
                Self::Encode => {
                    let all = Bytes::from(sealed.clone());
                    let size = BYTES + ITEM_OVERHEAD;
                    let items = (0..ITEMS).map(|i| all.slice(i * size..(i + 1) * size));
                    let response = EncryptResponse {
                        items: items.collect(),
                        ..Default::default()
                    };
                    drop(std::hint::black_box(response.encode_to_vec()));
                }
            }
        }
        Ok(())
    }

    /// Instructions of one, on a machine that is simulated.
    pub(crate) fn instructions(self) -> Result<f64> {
        let (some, none) = (self.counted(TIMES)?, self.counted(0)?);
        Ok((some - none) / f64::from(TIMES))
    }

    fn counted(self, times: u32) -> Result<f64> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe()?)
            .args(["pure", &self.name(), &times.to_string()])
            .output()
            .context("valgrind (apt-get install valgrind)")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("valgrind ended with {}: {said}", output.status);
        }
        let collected = said.lines().find_map(|l| l.split_once("Collected : "));
        let (_, count) = collected.ok_or_else(|| anyhow!("valgrind said nothing: {said}"))?;
        Ok(count.trim().parse()?)
    }
}

fn failed<E>(what: &'static str) -> impl Fn(E) -> anyhow::Error {
    move |_| anyhow!("{what} failed")
}

fn dek() -> Dek {
    Dek::take(&mut [7; Dek::LEN])
}

fn seal(binding: &Binding<'_>) -> Result<(Header, Vec<u8>)> {
    let schedule = Schedule::derive(&dek(), binding).map_err(failed("deriving"))?;
    let version = VersionNumber::new(1).ok_or_else(|| anyhow!("no version"))?;
    let header = Header::assemble(
        binding.kind,
        binding.key_id,
        binding.salt,
        schedule.commitment(),
        version,
        &WrappedDek([9; WrappedDek::LEN]),
    );
    let mut sealer = schedule.sealer().map_err(failed("sealing"))?;
    let mut out = vec![0; ITEMS * (BYTES + ITEM_OVERHEAD)];
    for item in out.chunks_mut(BYTES + ITEM_OVERHEAD) {
        let sealed = sealer.seal(b"", &[0x5a; BYTES], item);
        sealed.map_err(failed("sealing"))?;
    }
    Ok((header, out))
}

fn open(header: &Header, context: &Context, sealed: &[u8]) -> Result<()> {
    let schedule = Schedule::verify(&dek(), header, TENANT, context).map_err(failed("opening"))?;
    let opener = schedule.opener().map_err(failed("opening"))?;
    let mut out = vec![0; ITEMS * BYTES];
    let rooms = out.chunks_mut(BYTES);
    for (item, room) in sealed.chunks(BYTES + ITEM_OVERHEAD).zip(rooms) {
        opener.open(b"", item, room).map_err(failed("opening"))?;
    }
    drop(std::hint::black_box(out));
    Ok(())
}

fn request() -> EncryptRequest {
    EncryptRequest {
        key: "bench/key".into(),
        plaintexts: vec![Bytes::from_static(&[0x5a; BYTES]); ITEMS],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_can_be_done() {
        for part in Part::value_variants() {
            part.repeat(2).unwrap();
        }
    }
}
