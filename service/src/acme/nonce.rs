//! Nonces against replayed requests (RFC 8555 §6.5). The server remembers only those that
//! came back: a nonce carries its time and our MAC.

use std::collections::BTreeSet;

use aws_lc_rs::hmac;
use parking_lot::Mutex;

use super::{decode64, encode64};

/// Older nonces are refused; the client asks with a new one.
const LIFE_MS: i64 = 60 * 60 * 1000;
/// Used nonces that are remembered.
const REMEMBERED: usize = 1 << 16;
const TIME_LEN: usize = 8;
const RANDOM_LEN: usize = 16;
const TAG_LEN: usize = 16;

/// Makes nonces and takes each back once.
pub struct Nonces {
    key: hmac::Key,
    used: Mutex<Used>,
    capacity: usize,
}

#[derive(Default)]
struct Used {
    /// By age, so that the oldest is forgotten first.
    seen: BTreeSet<(i64, [u8; RANDOM_LEN])>,
    /// What is as old or older is refused: nobody remembers whether it was used.
    floor_ms: i64,
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces")
    }
}

impl Nonces {
    /// With a fresh key: nonces of an earlier run are answered with `badNonce`, and
    /// clients ask again.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            used: Mutex::default(),
            capacity: REMEMBERED,
        }
    }

    /// A new one, from fresh random bytes.
    #[must_use]
    pub fn make(&self, now_ms: i64, random: [u8; RANDOM_LEN]) -> String {
        let mut bytes = Vec::with_capacity(TIME_LEN + RANDOM_LEN + TAG_LEN);
        bytes.extend(now_ms.to_be_bytes());
        bytes.extend(random);
        let tag = hmac::sign(&self.key, &bytes);
        bytes.extend(tag.as_ref().iter().take(TAG_LEN));
        encode64(&bytes)
    }

    /// Is it ours, young, and here for the first time? It is used from now on.
    #[must_use]
    pub fn take(&self, nonce: &str, now_ms: i64) -> bool {
        let Some((made_ms, random)) = self.open(nonce) else {
            return false;
        };
        if made_ms > now_ms || now_ms - made_ms > LIFE_MS {
            return false;
        }
        let mut used = self.used.lock();
        if made_ms <= used.floor_ms || !used.seen.insert((made_ms, random)) {
            return false;
        }
        if used.seen.len() > self.capacity
            && let Some((oldest, _)) = used.seen.pop_first()
        {
            used.floor_ms = used.floor_ms.max(oldest);
        }
        true
    }

    fn open(&self, nonce: &str) -> Option<(i64, [u8; RANDOM_LEN])> {
        let bytes = decode64(nonce)?;
        let (head, tag) = bytes.split_at_checked(TIME_LEN + RANDOM_LEN)?;
        let whole = hmac::sign(&self.key, head);
        let ours = whole.as_ref().get(..TAG_LEN)?;
        aws_lc_rs::constant_time::verify_slices_are_equal(ours, tag).ok()?;
        let (time, random) = head.split_first_chunk()?;
        Some((i64::from_be_bytes(*time), random.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    #[test]
    fn a_nonce_is_good_once_and_not_for_ever() {
        let nonces = Nonces::new(&[1; 32]);
        let nonce = nonces.make(NOW, [1; 16]);
        assert!(nonces.take(&nonce, NOW + 5));
        assert!(!nonces.take(&nonce, NOW + 6));
        let old = nonces.make(NOW, [2; 16]);
        assert!(!nonces.take(&old, NOW + LIFE_MS + 1));
        assert!(!nonces.take(&nonces.make(NOW + 9, [3; 16]), NOW));
        assert!(!Nonces::new(&[2; 32]).take(&nonces.make(NOW, [4; 16]), NOW));
    }

    #[test]
    fn what_is_forgotten_is_refused_not_taken_again() {
        let mut nonces = Nonces::new(&[1; 32]);
        nonces.capacity = 4;
        let all: Vec<String> = (0..20).map(|i| nonces.make(NOW + i, [9; 16])).collect();
        for nonce in &all {
            assert!(nonces.take(nonce, NOW + 50));
        }
        for nonce in &all {
            assert!(!nonces.take(nonce, NOW + 50));
        }
        assert!(nonces.used.lock().seen.len() <= 5);
    }

    proptest! {
        #[test]
        fn nobody_else_makes_one(text in "[A-Za-z0-9_-]{0,60}", flip in 0..40usize) {
            let nonces = Nonces::new(&[1; 32]);
            prop_assert!(!nonces.take(&text, NOW));
            let mut bytes = decode64(&nonces.make(NOW, [7; 16])).unwrap();
            bytes[flip] ^= 1;
            prop_assert!(!nonces.take(&encode64(&bytes), NOW));
        }
    }
}
