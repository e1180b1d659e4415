//! The envelope alone: items sealed and opened in process, against nothing but the AEAD.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "a benchmark"
)]

use std::{collections::BTreeMap, hint::black_box};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use keywright_hsm::{Dek, WrappedDek};
use keywright_service::{
    envelope::{Binding, Context, Header, ITEM_OVERHEAD, Kind, Schedule},
    key::{KeyId, TenantId, VersionNumber},
};

const SHAPES: [(usize, usize); 4] = [(1000, 64), (100, 256), (1000, 1024), (16, 65_536)];

fn dek() -> Dek {
    Dek::take(&mut [7; 32])
}

fn schedule(context: &Context) -> Schedule {
    let binding = Binding {
        kind: Kind::Items,
        key_id: KeyId([1; 16]),
        tenant: TenantId([2; 16]),
        salt: [3; 16],
        context,
    };
    Schedule::derive(&dek(), &binding).unwrap()
}

fn envelope(c: &mut Criterion) {
    let context = Context::new(&BTreeMap::new()).unwrap();
    for (count, size) in SHAPES {
        let mut group = c.benchmark_group(format!("{count}x{size}"));
        group.throughput(Throughput::Elements(count as u64));
        let plaintext = vec![0x5a; size];
        let mut out = vec![0; count * (size + ITEM_OVERHEAD)];
        let seal_all = |out: &mut [u8]| {
            let mut sealer = schedule(&context).sealer().unwrap();
            for item in out.chunks_mut(size + ITEM_OVERHEAD) {
                sealer.seal(b"", &plaintext, item).unwrap();
            }
        };
        group.bench_function("seal", |b| b.iter(|| seal_all(black_box(&mut out))));
        seal_all(&mut out);
        let mut plain = vec![0; size];
        group.bench_function("open", |b| {
            b.iter(|| {
                let opener = schedule(&context).opener().unwrap();
                for item in out.chunks(size + ITEM_OVERHEAD) {
                    opener.open(b"", black_box(item), &mut plain).unwrap();
                }
            });
        });
        group.finish();
    }
    let header = Header::assemble(
        Kind::Items,
        KeyId([1; 16]),
        [3; 16],
        [4; 32],
        VersionNumber::FIRST,
        &WrappedDek([5; 60]),
    );
    c.bench_function("header parse", |b| {
        b.iter(|| Header::parse(black_box(&header.as_bytes()[..])).unwrap());
    });
    c.bench_function("derive", |b| {
        b.iter_batched(|| (), |()| schedule(&context), BatchSize::SmallInput);
    });
}

criterion_group!(benches, envelope);
criterion_main!(benches);
