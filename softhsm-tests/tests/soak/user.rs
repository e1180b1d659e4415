//! One client: a connection, a key of its own, and what it has sealed lately.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use keywright_client::{Client, Failure, HEADER_LEN, ITEM_OVERHEAD, proto};

use crate::{
    refused::{self, fails},
    streams,
    tally::Tally,
};

/// Keys that all clients share.
pub(crate) const DATA: &str = "soak/data";
pub(crate) const SIGN: &str = "soak/sign";
pub(crate) const MAC: &str = "soak/mac";

/// Envelopes a client keeps, to open and rewrap them later.
const KEPT: usize = 4;

pub(crate) type Done = Result<(), String>;

/// Weight and name of each kind of step.
pub(crate) const STEPS: [(usize, &str); 15] = [
    (200, "encrypt"),
    (200, "decrypt"),
    (100, "rewrap"),
    (40, "reencrypt"),
    (100, "sign and verify"),
    (100, "mac and verify-mac"),
    (60, "data keys"),
    (40, "streams of encrypt and decrypt"),
    (30, "streams of sign"),
    (50, "random"),
    (60, "get key"),
    (10, "list keys"),
    (100, "refused"),
    (3, "rotate"),
    (7, "suspend and resume"),
];

/// One RPC, counted, with what the server said in our own type.
macro_rules! ask {
    ($user:expr, $service:ident.$rpc:ident($request:expr)) => {{
        $user.tally.calls += 1;
        let answer = $user.client.$service().$rpc($request).await;
        answer
            .map(|response| response.into_inner())
            .map_err(keywright_client::Failure::from)
    }};
}
pub(crate) use ask;

pub(crate) fn check(so: bool, what: &str) -> Done {
    so.then_some(()).ok_or_else(|| format!("wrong: {what}"))
}

pub(crate) fn text(e: Failure) -> String {
    format!("{:?}: {e}", e.reason())
}

/// Marsaglia's xorshift: the same steps in every run, another sequence for each client.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    fn bytes(&mut self, len: usize) -> Bytes {
        (0..len).map(|_| self.next() as u8).collect()
    }

    pub(crate) fn strings(&mut self, most: usize, longest: usize) -> Vec<Bytes> {
        (0..=self.below(most))
            .map(|_| {
                let len = self.below(longest);
                self.bytes(len)
            })
            .collect()
    }
}

/// An envelope and what went into it.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    context: BTreeMap<String, String>,
    aads: Vec<Bytes>,
    form: proto::Form,
    header: Bytes,
    items: Vec<Bytes>,
    plaintexts: Vec<Bytes>,
}

impl Sealed {
    pub(crate) fn decrypt(&self) -> proto::DecryptRequest {
        proto::DecryptRequest {
            context: self.context.clone(),
            form: self.form.into(),
            header: self.header.clone(),
            items: self.items.clone(),
            aads: self.aads.clone(),
            ..Default::default()
        }
    }

    fn check_sizes(&self) -> Done {
        let attached = self.form == proto::Form::Attached;
        let over = ITEM_OVERHEAD + if attached { HEADER_LEN } else { 0 };
        let fits = self.items.len() == self.plaintexts.len()
            && self.header.len() == if attached { 0 } else { HEADER_LEN };
        let mut pairs = self.items.iter().zip(&self.plaintexts);
        check(
            fits && pairs.all(|(i, p)| i.len() == p.len() + over),
            "sizes of an envelope",
        )
    }
}

#[derive(Debug)]
pub(crate) struct User {
    pub(crate) client: Client,
    pub(crate) own: String,
    pub(crate) rng: Rng,
    pub(crate) tally: Tally,
    version: u32,
    sealed: VecDeque<Sealed>,
    last_random: Bytes,
}

pub(crate) async fn create(client: &Client, name: &str, spec: proto::KeySpec) {
    let request = proto::CreateKeyRequest {
        name: name.into(),
        spec: spec.into(),
        ..Default::default()
    };
    client.keys().create_key(request).await.unwrap();
}

impl User {
    pub(crate) async fn new(client: Client, number: usize) -> Self {
        let own = format!("soak/own-{number}");
        create(&client, &own, proto::KeySpec::Aes256).await;
        let seed = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(number as u64 + 1);
        let mut user = Self {
            client,
            own,
            rng: Rng(seed),
            tally: Tally::default(),
            version: 1,
            sealed: VecDeque::new(),
            last_random: Bytes::new(),
        };
        // Whatever comes first finds an envelope.
        user.encrypt().await.unwrap();
        user
    }

    /// One step of a kind that is drawn.
    pub(crate) async fn step(&mut self) {
        let all: usize = STEPS.iter().map(|(weight, _)| weight).sum();
        let mut drawn = self.rng.below(all);
        let mut kind = "";
        for (weight, name) in STEPS {
            kind = name;
            if drawn < weight {
                break;
            }
            drawn -= weight;
        }
        let done = match kind {
            "encrypt" => self.encrypt().await,
            "decrypt" => self.decrypt().await,
            "rewrap" => self.rewrap().await,
            "reencrypt" => self.reencrypt().await,
            "sign and verify" => self.sign().await,
            "mac and verify-mac" => self.mac().await,
            "data keys" => self.data_keys().await,
            "streams of encrypt and decrypt" => streams::encrypt_and_decrypt(self).await,
            "streams of sign" => streams::sign(self).await,
            "random" => self.random().await,
            "get key" => self.get_key().await,
            "list keys" => self.list_keys().await,
            "rotate" => self.rotate().await,
            "suspend and resume" => self.suspend_and_resume().await,
            _ => refused::one(self).await.map(|r| self.tally.refused(r)),
        };
        self.tally.step(kind, done);
    }

    pub(crate) fn kept(&mut self) -> &mut Sealed {
        let at = self.rng.below(self.sealed.len());
        &mut self.sealed[at]
    }

    fn keep(&mut self, sealed: Sealed) {
        self.sealed.push_back(sealed);
        if self.sealed.len() > KEPT {
            self.sealed.pop_front();
        }
    }

    async fn encrypt(&mut self) -> Done {
        let plaintexts = self.rng.strings(32, 2048);
        let mut sealed = Sealed {
            context: BTreeMap::from([("by".into(), self.own.clone())]),
            aads: Vec::new(),
            form: proto::Form::Detached,
            header: Bytes::new(),
            items: Vec::new(),
            plaintexts,
        };
        if self.rng.chance() {
            sealed.form = proto::Form::Attached;
            sealed.aads = vec![self.rng.bytes(16); sealed.plaintexts.len()];
        }
        let (own, packed) = (self.rng.chance(), self.rng.chance());
        let mut request = proto::EncryptRequest {
            key: if own { self.own.clone() } else { DATA.into() },
            context: sealed.context.clone(),
            aads: sealed.aads.clone(),
            form: sealed.form.into(),
            ..Default::default()
        };
        if packed {
            request.packed_plaintexts = Some(pack(&sealed.plaintexts));
        } else {
            request.plaintexts.clone_from(&sealed.plaintexts);
        }
        let answer = ask!(self, crypto.encrypt(request)).map_err(text)?;
        check(answer.errors.is_empty(), "item errors of encrypt")?;
        check(
            packed == answer.packed_items.is_some(),
            "layout of the answer",
        )?;
        let due = if own { self.version } else { 1 };
        check(answer.key_version == due, "version of encrypt")?;
        sealed.header = answer.header;
        sealed.items = answer.packed_items.map_or(answer.items, |p| unpack(&p));
        sealed.check_sizes()?;
        self.keep(sealed);
        Ok(())
    }

    async fn decrypt(&mut self) -> Done {
        let sealed = self.kept().clone();
        let mut request = sealed.decrypt();
        let packed = self.rng.chance();
        if packed {
            request.packed_items = Some(pack(&request.items));
            request.items.clear();
        }
        let answer = ask!(self, crypto.decrypt(request)).map_err(text)?;
        check(answer.errors.is_empty(), "item errors of decrypt")?;
        let opened = answer
            .packed_plaintexts
            .map_or(answer.plaintexts, |p| unpack(&p));
        check(opened == sealed.plaintexts, "what decrypt gave back")
    }

    async fn rewrap(&mut self) -> Done {
        let at = self.rng.below(self.sealed.len());
        let before = self.sealed[at].clone();
        let attached = before.form == proto::Form::Attached;
        let envelopes = if attached {
            before.items.clone()
        } else {
            vec![before.header.clone()]
        };
        let request = proto::RewrapRequest {
            envelopes: envelopes.clone(),
            ..Default::default()
        };
        let answer = ask!(self, crypto.rewrap(request)).map_err(text)?;
        check(answer.errors.is_empty(), "item errors of rewrap")?;
        let count = answer.rewrapped + answer.already_current;
        check(count as usize == envelopes.len(), "count of rewrap")?;
        for (a, b) in envelopes.iter().zip(&answer.envelopes) {
            let same = a.len() == b.len() && a[..68] == b[..68];
            check(
                same && a[HEADER_LEN..] == b[HEADER_LEN..],
                "rewrap touched more than the tail of the header",
            )?;
        }
        let kept = &mut self.sealed[at];
        if attached {
            kept.items = answer.envelopes;
        } else {
            kept.header = answer.envelopes[0].clone();
        }
        kept.check_sizes()
    }

    async fn reencrypt(&mut self) -> Done {
        let before = self.kept().clone();
        let request = proto::ReencryptRequest {
            key: self.own.clone(),
            context: before.context.clone(),
            form: before.form.into(),
            header: before.header.clone(),
            items: before.items.clone(),
            aads: before.aads.clone(),
            ..Default::default()
        };
        let answer = ask!(self, crypto.reencrypt(request)).map_err(text)?;
        check(answer.errors.is_empty(), "item errors of reencrypt")?;
        let due = self.version;
        check(answer.key_version == due, "version of reencrypt")?;
        let after = Sealed {
            header: answer.header,
            items: answer.items,
            ..before
        };
        after.check_sizes()?;
        self.keep(after);
        Ok(())
    }

    async fn sign(&mut self) -> Done {
        let inputs = self.rng.strings(8, 512);
        let request = proto::SignRequest {
            key: SIGN.into(),
            inputs: inputs.clone(),
            ..Default::default()
        };
        let signed = ask!(self, crypto.sign(request)).map_err(text)?;
        check(signed.errors.is_empty(), "item errors of sign")?;
        let (signatures, forged) = self.forge(signed.signatures);
        let request = proto::VerifyRequest {
            key: SIGN.into(),
            inputs,
            signatures,
            ..Default::default()
        };
        let verdicts = ask!(self, crypto.verify(request)).map_err(text)?.verdicts;
        judge(&verdicts, forged, "verdicts of verify")
    }

    async fn mac(&mut self) -> Done {
        let inputs = self.rng.strings(32, 512);
        let request = proto::MacRequest {
            key: MAC.into(),
            inputs: inputs.clone(),
            ..Default::default()
        };
        let made = ask!(self, crypto.mac(request)).map_err(text)?;
        check(made.errors.is_empty(), "item errors of mac")?;
        check(made.macs.iter().all(|m| m.len() == 32), "length of a MAC")?;
        let (macs, forged) = self.forge(made.macs);
        let request = proto::VerifyMacRequest {
            key: MAC.into(),
            inputs,
            macs,
            ..Default::default()
        };
        let answer = ask!(self, crypto.verify_mac(request)).map_err(text)?;
        judge(&answer.verdicts, forged, "verdicts of verify-mac")
    }

    /// Changes the last bit of one string in every other call.
    fn forge(&mut self, mut strings: Vec<Bytes>) -> (Vec<Bytes>, Option<usize>) {
        if strings.is_empty() || self.rng.chance() {
            return (strings, None);
        }
        let at = self.rng.below(strings.len());
        let mut changed = strings[at].to_vec();
        if let Some(last) = changed.last_mut() {
            *last ^= 1;
        }
        strings[at] = changed.into();
        (strings, Some(at))
    }

    async fn data_keys(&mut self) -> Done {
        let lengths = vec![16, 32, 64];
        let context = BTreeMap::from([("by".into(), self.own.clone())]);
        let request = proto::GenerateDataKeysRequest {
            key: self.own.clone(),
            context: context.clone(),
            lengths: lengths.clone(),
            ..Default::default()
        };
        let made = ask!(self, crypto.generate_data_keys(request)).map_err(text)?;
        let (plain, wrapped): (Vec<_>, Vec<_>) = made
            .data_keys
            .into_iter()
            .map(|k| (k.plaintext, k.wrapped))
            .unzip();
        let sizes: Vec<_> = plain.iter().map(Bytes::len).collect();
        check(sizes == [16, 32, 64], "lengths of data keys")?;
        let request = proto::DecryptDataKeysRequest {
            context,
            wrapped,
            lengths,
            key: self.own.clone(),
            ..Default::default()
        };
        let opened = ask!(self, crypto.decrypt_data_keys(request)).map_err(text)?;
        check(
            opened.errors.is_empty() && opened.plaintexts == plain,
            "data keys that were opened again",
        )
    }

    async fn random(&mut self) -> Done {
        let request = proto::GenerateRandomRequest {
            lengths: vec![1, 32, 1000],
            ..Default::default()
        };
        let values = ask!(self, crypto.generate_random(request))
            .map_err(text)?
            .values;
        let sizes: Vec<_> = values.iter().map(Bytes::len).collect();
        check(sizes == [1, 32, 1000], "lengths of random bytes")?;
        let last = std::mem::replace(&mut self.last_random, values[1].clone());
        check(last != values[1], "random bytes that came twice")
    }

    async fn get_key(&mut self) -> Done {
        let name = self.own.clone();
        let request = proto::GetKeyRequest { name: name.clone() };
        let key = ask!(self, keys.get_key(request)).map_err(text)?.key;
        let key = key.ok_or("no key in the answer")?;
        let (due, n) = (self.version, key.versions.len());
        check(
            key.name == name && key.primary_version == due && n == due as usize,
            "the key of our own",
        )
    }

    /// All pages: every key there is, once, in order.
    async fn list_keys(&mut self) -> Done {
        let (mut names, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = proto::ListKeysRequest {
                page_size: 25,
                page_token,
                prefix: "soak/".into(),
            };
            let page = ask!(self, keys.list_keys(request)).map_err(text)?;
            names.extend(page.keys.into_iter().map(|k| k.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let ordered = names.windows(2).all(|w| w[0] < w[1]);
        check(
            ordered && names.len() == crate::CLIENTS + 3,
            "the list of keys",
        )
    }

    async fn rotate(&mut self) -> Done {
        let request = proto::RotateKeyRequest {
            name: self.own.clone(),
        };
        let key = ask!(self, keys.rotate_key(request)).map_err(text)?.key;
        self.version += 1;
        let due = self.version;
        check(
            key.is_some_and(|k| k.primary_version == due),
            "the version after a rotation",
        )
    }

    /// While it is suspended the key does nothing; afterwards it does again.
    pub(crate) async fn suspend_and_resume(&mut self) -> Done {
        let change = |name: &str, state: proto::KeyState| proto::ChangeStateRequest {
            name: name.into(),
            state: state.into(),
            ..Default::default()
        };
        let own = self.own.clone();
        let encrypt = || proto::EncryptRequest {
            key: own.clone(),
            plaintexts: vec![Bytes::from_static(b"x")],
            ..Default::default()
        };
        let sealed = ask!(self, crypto.encrypt(encrypt())).map_err(text)?;
        let decrypt = || proto::DecryptRequest {
            header: sealed.header.clone(),
            items: sealed.items.clone(),
            ..Default::default()
        };
        let request = change(&own, proto::KeyState::Suspended);
        ask!(self, keys.change_state(request)).map_err(text)?;
        let protects = fails(ask!(self, crypto.encrypt(encrypt())), "KEY_STATE");
        let processes = fails(ask!(self, crypto.decrypt(decrypt())), "KEY_STATE");
        let request = change(&own, proto::KeyState::Active);
        ask!(self, keys.change_state(request)).map_err(text)?;
        protects.and(processes)?;
        let opened = ask!(self, crypto.decrypt(decrypt())).map_err(text)?;
        check(
            opened.plaintexts == [Bytes::from_static(b"x")],
            "what a resumed key opens",
        )
    }
}

fn judge(verdicts: &[proto::Verdict], forged: Option<usize>, what: &str) -> Done {
    let mut all = verdicts.iter().enumerate();
    check(
        !verdicts.is_empty() && all.all(|(at, v)| v.valid == (forged != Some(at))),
        what,
    )
}

fn pack(strings: &[Bytes]) -> proto::Packed {
    proto::Packed {
        data: strings.concat().into(),
        lengths: strings.iter().map(|s| s.len() as u32).collect(),
    }
}

fn unpack(packed: &proto::Packed) -> Vec<Bytes> {
    let mut rest = packed.data.clone();
    let lengths = packed.lengths.iter();
    lengths.map(|n| rest.split_to(*n as usize)).collect()
}
