//! The whole path over TLS: encrypt against an echo of the same bytes on the same stack
//! and against a plain AEAD loop, sign and MAC against the token's own calls, in one run,
//! in turns.
//!
//! Every figure is the median of several rounds in which the echo and the daemon take
//! turns, because the machine may be shared. Ratios are what counts. Audit is durable,
//! one DEK per batch, one HSM wrap per request.
//!
//! `cargo bench -p keywright-benches --bench end_to_end` prints the tables, `-- token` only
//! the last one, `-- rewrap` the one before, `-- 1x64` the rows of that shape; with `--test` it only shows that it runs.
#![allow(
    clippy::cast_precision_loss,
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

use std::path::{Path, PathBuf};

use bytes::Bytes;
use keywright_benches::{
    Server, aead, connect,
    load::{Plan, drive, median},
    raw::{self, RawToken, Work, serve_raw},
    serve_echo,
};
use keywright_client::Client;
use keywright_proto::v1::{
    CreateKeyRequest, DecryptRequest, EncryptRequest, Form, KeyRules, KeySpec, MacRequest, Packed,
    RewrapRequest, RotateKeyRequest, SignRequest, UpdateKeyRequest,
};

/// A batch, and what its rate is to be of that of an echo of the same bytes.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Items.
    count: usize,
    /// Bytes of each.
    size: usize,
    /// With a DEK of its own, as a key is when nobody says otherwise.
    per_batch: f64,
    /// With the DEK on lease.
    lease: f64,
}

const SHAPES: [Shape; 5] = [
    shape(1000, 64, 0.65, 0.70),
    shape(100, 256, 0.65, 0.80),
    shape(1000, 1024, 0.92, 0.92),
    shape(16, 65_536, 0.97, 0.97),
    shape(1, 64, 0.50, 0.85),
];

const fn shape(count: usize, size: usize, per_batch: f64, lease: f64) -> Shape {
    Shape {
        count,
        size,
        per_batch,
        lease,
    }
}

/// What decrypting a batch reaches of encrypting the same.
const DECRYPT_TARGET: f64 = 0.95;
const KEY: &str = "bench/key";
/// One data key for the batches of a minute.
const LEASED: &str = "bench/leased";
/// Items and bytes of each of a batch to sign or authenticate.
const SIGNED: (usize, usize) = (100, 64);
/// Of what a token alone unwraps and wraps.
const REWRAP_TARGET: f64 = 0.90;
/// Headers that share one DEK, as under a lease, and how many times as many of them a
/// second as of headers with a DEK each.
const SHARED: (usize, f64) = (1000, 20.0);
/// Requests in flight on one connection.
const IN_FLIGHT: usize = 32;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, dir] = args.as_slice()
        && flag == "--echo"
    {
        return serve_echo(&PathBuf::from(dir));
    }
    if let [flag, module] = args.as_slice()
        && flag == raw::FLAG
    {
        return serve_raw(module.into());
    }
    let plan = Plan::of(&args, IN_FLIGHT);
    let dir = tempfile::tempdir().unwrap();
    let daemon = Server::daemon(dir.path());
    let echo = Server::echo(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let to_daemon = connect(dir.path(), daemon.addr).await;
        let to_echo = connect(dir.path(), echo.addr).await;
        let create = CreateKeyRequest { name: KEY.into(), spec: KeySpec::Aes256.into(), ..Default::default() };
        to_daemon.keys().create_key(create).await.unwrap();
        create_leased(&to_daemon).await;
        if args.iter().any(|a| a == "token") {
            return against_the_token(&to_daemon, &daemon, dir.path(), plan).await;
        }
        if args.iter().any(|a| a == "rewrap") {
            return other_operations(&to_daemon, &to_echo, dir.path(), plan).await;
        }
        println!("\nEncrypt over TLS, {IN_FLIGHT} requests in flight, durable audit, a DEK and an HSM wrap for each batch or a DEK on lease;");
        println!("median of {} rounds of {:?} in turns with an echo of the same bytes.\n", plan.rounds, plan.window);
        println!("| shape | layout | DEK | encrypt items/s | MB/s | echo items/s | ratio to echo | target | | AEAD loop items/s | of the AEAD loop | server CPU us/request |");
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
        let named = |shape: &Shape| {
            let name = format!("{}x{}", shape.count, shape.size);
            args.contains(&name)
        };
        let some = SHAPES.iter().any(named);
        for shape in SHAPES.into_iter().filter(|shape| !some || named(shape)) {
            for packed in [false, true] {
                for key in [KEY, LEASED] {
                    row(&to_daemon, &to_echo, &daemon, plan, shape, packed, key).await;
                }
            }
        }
        if some {
            return;
        }
        other_operations(&to_daemon, &to_echo, dir.path(), plan).await;
        against_the_token(&to_daemon, &daemon, dir.path(), plan).await;
    });
}

async fn create_leased(to_daemon: &Client) {
    let create = CreateKeyRequest {
        name: LEASED.into(),
        spec: KeySpec::Aes256.into(),
        ..Default::default()
    };
    to_daemon.keys().create_key(create).await.unwrap();
    let lend = UpdateKeyRequest {
        name: LEASED.into(),
        rules: Some(KeyRules {
            lease_seconds: 60,
            ..Default::default()
        }),
        ..Default::default()
    };
    to_daemon.keys().update_key(lend).await.unwrap();
}

async fn row(
    to_daemon: &Client,
    to_echo: &Client,
    daemon: &Server,
    plan: Plan,
    Shape {
        count,
        size,
        per_batch,
        lease,
    }: Shape,
    packed: bool,
    key: &str,
) {
    let (dek, target) = match key {
        LEASED => ("lease", lease),
        _ => ("per batch", per_batch),
    };
    let mut request = encrypt_request(count, size, packed);
    request.key = key.into();
    let run = |client: &Client, request: &EncryptRequest| {
        let (client, request) = (client.clone(), request.clone());
        async move {
            drive(plan, move || {
                let (c, r) = (client.clone(), request.clone());
                async move {
                    c.crypto().encrypt(r).await.unwrap();
                }
            })
            .await
        }
    };
    let (mut ours, mut theirs, mut ratios, mut cpu) = (vec![], vec![], vec![], vec![]);
    for round in 0..=plan.rounds {
        let echo = run(to_echo, &request).await;
        let before = daemon.cpu_seconds();
        let encrypt = run(to_daemon, &request).await;
        // The first round warms up.
        if round > 0 {
            cpu.push((daemon.cpu_seconds() - before) * 1e6 / encrypt.requests);
            ours.push(encrypt.per_second * count as f64);
            theirs.push(echo.per_second * count as f64);
            ratios.push(encrypt.per_second / echo.per_second);
        }
    }
    let aead = aead::per_second(count, size, plan.window);
    let (ours, theirs, ratio) = (median(&mut ours), median(&mut theirs), median(&mut ratios));
    println!(
        "| {count}x{size} B | {} | {dek} | {ours:.0} | {:.0} | {theirs:.0} | {ratio:.2} | {target:.2} | {} | {aead:.0} | {:.2} | {:.0} |",
        if packed { "packed" } else { "repeated" },
        ours * size as f64 / 1e6,
        met(ratio, target),
        ours / aead,
        median(&mut cpu),
    );
}

fn met(measured: f64, target: f64) -> &'static str {
    if measured >= target { "met" } else { "missed" }
}

fn encrypt_request(count: usize, size: usize, packed: bool) -> EncryptRequest {
    let (plaintexts, packed_plaintexts) = items(count, size, packed);
    EncryptRequest {
        key: KEY.into(),
        plaintexts,
        packed_plaintexts,
        form: Form::Detached.into(),
        ..Default::default()
    }
}

fn items(count: usize, size: usize, packed: bool) -> (Vec<Bytes>, Option<Packed>) {
    let all = Bytes::from(vec![0x5a; count * size]);
    if packed {
        let lengths = vec![u32::try_from(size).unwrap(); count];
        (Vec::new(), Some(Packed { data: all, lengths }))
    } else {
        (
            (0..count)
                .map(|i| all.slice(i * size..(i + 1) * size))
                .collect(),
            None,
        )
    }
}

/// Decrypt against encrypt of the same items, and rewrap against a token that unwraps and wraps and nothing
/// else.
async fn other_operations(to_daemon: &Client, to_echo: &Client, dir: &Path, plan: Plan) {
    let mut token = RawToken::start(&dir.join("rewrap"), Path::new(raw::SOFTHSM2));
    let sealed = to_daemon
        .crypto()
        .encrypt(encrypt_request(1000, 64, true))
        .await
        .unwrap()
        .into_inner();
    let decrypt = DecryptRequest {
        header: sealed.header.clone(),
        packed_items: sealed.packed_items,
        ..Default::default()
    };
    // 256 envelopes, each with its own DEK.
    let mut headers = Vec::new();
    for _ in 0..256 {
        let one = to_daemon
            .crypto()
            .encrypt(encrypt_request(1, 64, false))
            .await
            .unwrap();
        headers.push(one.into_inner().header);
    }
    to_daemon
        .keys()
        .rotate_key(RotateKeyRequest { name: KEY.into() })
        .await
        .unwrap();
    let rewrap = RewrapRequest {
        envelopes: headers,
        ..Default::default()
    };
    let (mut d, mut e, mut r, mut of_encrypt) = (vec![], vec![], vec![], vec![]);
    // One DEK, and a salt of its own for each envelope.
    let one = rewrap.envelopes.first().expect("256 of them").clone();
    let shared = RewrapRequest {
        envelopes: (0..SHARED.0)
            .map(|n| {
                let mut header = one.to_vec();
                header[20..28].copy_from_slice(&(n as u64).to_be_bytes());
                header.into()
            })
            .collect(),
        ..Default::default()
    };
    let (mut raw_rewraps, mut rewrap_ratio) = (vec![], vec![]);
    let (mut s, mut shared_ratio) = (vec![], vec![]);
    for round in 0..=plan.rounds {
        let call = |client: &Client| {
            let c = client.clone();
            let q = decrypt.clone();
            move || {
                let (c, q) = (c.clone(), q.clone());
                async move {
                    c.crypto().decrypt(q).await.unwrap();
                }
            }
        };
        let echoed = drive(plan, call(to_echo)).await;
        let decrypted = drive(plan, call(to_daemon)).await;
        let raw = token.per_second(Work::Rewrap, plan.window);
        let (c, q) = (to_daemon.clone(), rewrap.clone());
        let rewrapped = drive(plan, move || {
            let (c, q) = (c.clone(), q.clone());
            async move {
                c.crypto().rewrap(q).await.unwrap();
            }
        })
        .await;
        let (c, q) = (to_daemon.clone(), shared.clone());
        let together = drive(plan, move || {
            let (c, q) = (c.clone(), q.clone());
            async move {
                c.crypto().rewrap(q).await.unwrap();
            }
        })
        .await;
        let (c, q) = (to_daemon.clone(), encrypt_request(1000, 64, true));
        let encrypted = drive(plan, move || {
            let (c, q) = (c.clone(), q.clone());
            async move {
                c.crypto().encrypt(q).await.unwrap();
            }
        })
        .await;
        if round > 0 {
            d.push(decrypted.per_second * 1000.0);
            e.push(decrypted.per_second / echoed.per_second);
            r.push(rewrapped.per_second * 256.0);
            raw_rewraps.push(raw);
            rewrap_ratio.push(rewrapped.per_second * 256.0 / raw);
            let many = together.per_second * SHARED.0 as f64;
            s.push(many);
            shared_ratio.push(many / (rewrapped.per_second * 256.0));
            of_encrypt.push(decrypted.per_second / encrypted.per_second);
        }
    }
    println!("\n| operation | items/s | ratio to echo | ratio to encrypt | target | |");
    println!("|---|---|---|---|---|---|");
    let ratio = median(&mut of_encrypt);
    println!(
        "| decrypt 1000x64 B packed | {:.0} | {:.2} | {ratio:.2} | {DECRYPT_TARGET:.2} | {} |",
        median(&mut d),
        median(&mut e),
        met(ratio, DECRYPT_TARGET),
    );
    let ratio = median(&mut rewrap_ratio);
    println!(
        "\n| operation | headers/s | token unwrap and wrap/s | ratio to the token | target | |"
    );
    println!("|---|---|---|---|---|---|");
    println!(
        "| rewrap 256 headers of 256 DEKs | {:.0} | {:.0} | {ratio:.2} | {REWRAP_TARGET:.2} | {} |",
        median(&mut r),
        median(&mut raw_rewraps),
        met(ratio, REWRAP_TARGET),
    );
    let (ratio, (count, target)) = (median(&mut shared_ratio), SHARED);
    println!(
        "\n| operation | headers/s | times those of 256 DEKs | target | |\n|---|---|---|---|---|"
    );
    println!(
        "| rewrap {count} headers of one DEK | {:.0} | {ratio:.1} | {target:.0} | {} |",
        median(&mut s),
        met(ratio, target),
    );
}

/// Sign and MAC over TLS against the same calls on a token without Keywright.
async fn against_the_token(to_daemon: &Client, daemon: &Server, dir: &Path, plan: Plan) {
    let mut token = RawToken::start(dir, Path::new(raw::SOFTHSM2));
    let (count, size) = SIGNED;
    println!(
        "\nOver TLS with durable audit, {IN_FLIGHT} requests in flight, against C_SignInit and C_Sign alone on a SoftHSM2 token"
    );
    println!(
        "in another process, one thread for each worker of the daemon: no queue, hash, check, encoding, audit or wire there,"
    );
    println!(
        "but a few free locks and the handle look-up of keywright-hsm's session, the lowest layer open to others.\n"
    );
    println!(
        "| operation | items/s | token calls/s | ratio to the token | target | | server CPU us/item | token us/call |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (work, name, spec, target) in [
        (Work::Sign, "sign P-256", KeySpec::EcP256, 0.85),
        (Work::Mac, "MAC HMAC-SHA-256", KeySpec::HmacSha256, 0.70),
    ] {
        let key = format!("bench/{}", spec as i32);
        let create = CreateKeyRequest {
            name: key.clone(),
            spec: spec.into(),
            ..Default::default()
        };
        to_daemon.keys().create_key(create).await.unwrap();
        let inputs = items(count, size, false).0;
        let (mut ours, mut theirs, mut ratios, mut cpu) = (vec![], vec![], vec![], vec![]);
        for round in 0..=plan.rounds {
            let calls = token.per_second(work, plan.window);
            let before = daemon.cpu_seconds();
            let (c, k, i) = (to_daemon.clone(), key.clone(), inputs.clone());
            let over_tls = drive(plan, move || {
                let (c, key, inputs) = (c.clone(), k.clone(), i.clone());
                async move { ask_token(&c, work, key, inputs).await }
            })
            .await;
            // The first round warms up.
            if round > 0 {
                let done = over_tls.per_second * count as f64;
                cpu.push(
                    (daemon.cpu_seconds() - before) * 1e6 / (over_tls.requests * count as f64),
                );
                ratios.push(done / calls);
                ours.push(done);
                theirs.push(calls);
            }
        }
        let (ratio, calls) = (median(&mut ratios), median(&mut theirs));
        println!(
            "| {name}, {count}x{size} B | {:.0} | {calls:.0} | {ratio:.2} | {target:.2} | {} | {:.1} | {:.1} |",
            median(&mut ours),
            met(ratio, target),
            median(&mut cpu),
            1e6 / calls,
        );
    }
}

async fn ask_token(client: &Client, work: Work, key: String, inputs: Vec<Bytes>) {
    let count = inputs.len();
    let made = match work {
        Work::Sign => {
            let request = SignRequest {
                key,
                inputs,
                ..Default::default()
            };
            let answer = client.crypto().sign(request).await.unwrap().into_inner();
            answer.signatures.len() - answer.errors.len()
        }
        Work::Mac => {
            let request = MacRequest {
                key,
                inputs,
                ..Default::default()
            };
            let answer = client.crypto().mac(request).await.unwrap().into_inner();
            answer.macs.len() - answer.errors.len()
        }
        Work::Mint | Work::Rewrap | Work::Issue => panic!("has a benchmark of its own"),
    };
    assert_eq!(made, count, "items failed");
}
