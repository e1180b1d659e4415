//! A limit on everything, in one place, units in the names.

use serde::Deserialize;

use crate::envelope::{MAX_AAD_BYTES, MAX_ENVELOPE_BYTES, MAX_ITEM_BYTES, MAX_ITEMS};

/// One row for each limit: name, type, default, and how far `[limits]` may move it.
macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $default:expr, $low:expr => $high:expr;)*) => {
        /// Limits with their defaults; what `[limits]` may change, and how far.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits { $($(#[$doc])* pub $name: $kind,)* }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Limits {
            /// Names of all limits.
            #[cfg(test)]
            pub(super) const NAMES: &[&str] = &[$(stringify!($name)),*];

            fn ranges(&self) -> Result<(), String> {
                $(
                    let range: std::ops::RangeInclusive<$kind> = $low..=$high;
                    if !range.contains(&self.$name) {
                        return Err(format!(
                            concat!("limits.", stringify!($name), ": {} is not from {} to {}"),
                            self.$name, range.start(), range.end(),
                        ));
                    }
                )*
                Ok(())
            }
        }
    };
}

limits! {
    /// Items of one batch.
    batch_items: usize = 4096, 1 => MAX_ITEMS;
    /// Plaintext bytes of one batch.
    batch_bytes: usize = 8 << 20, 1 => MAX_ENVELOPE_BYTES;
    /// Plaintext bytes of one item.
    item_bytes: usize = 1 << 20, 1 => MAX_ITEM_BYTES;
    /// AAD bytes of one item.
    aad_bytes: usize = 8 << 10, 0 => MAX_AAD_BYTES;
    /// Bytes of one gRPC message; leaves room for headers and AADs around
    /// `batch_bytes`, so that what was encrypted in one call can be decrypted in one.
    message_bytes: usize = 16 << 20, 1 << 16 => 256 << 20;
    /// Bytes of one string of random bytes.
    random_item_bytes: usize = 64 << 10, 1 => 1 << 20;
    /// Bytes of random in one call.
    random_bytes: usize = 1 << 20, 1 => 16 << 20;
    /// Batches of one stream that are worked on side by side.
    stream_batches: usize = 4, 1 => 64;
    /// Longest time for one request; a caller may ask for less.
    request_ms: u64 = 30_000, 10 => 600_000;
    /// Longest wait for a durable audit record.
    audit_ms: u64 = 5_000, 10 => 60_000;
    /// Requests at work at one time.
    requests_in_flight: usize = 1024, 1 => 1 << 20;
    /// Open connections.
    connections: usize = 4096, 1 => 1 << 20;
    /// TLS handshake.
    handshake_ms: u64 = 5_000, 10 => 60_000;
    /// HTTP/2 streams of one connection.
    streams_per_connection: u32 = 128, 1 => 10_000;
    /// Streams reset by the peer before they were accepted.
    pending_resets: usize = 20, 1 => 10_000;
    /// Streams reset by us for protocol errors, after which the connection ends.
    local_resets: usize = 1024, 1 => 10_000;
    /// HTTP/2 header list.
    header_list_bytes: u32 = 16 << 10, 1 << 10 => 1 << 20;
    /// HTTP/2 frame.
    frame_bytes: u32 = 256 << 10, 16 << 10 => (16 << 20) - 1;
    /// HTTP/2 flow-control window of a stream.
    window_bytes: u32 = 4 << 20, 64 << 10 => 1 << 30;
    /// The same of a connection: room for others beside streams that stand still.
    connection_window_bytes: u32 = 16 << 20, 64 << 10 => 1 << 30;
    /// Pause before a silent connection is asked for a sign of life.
    keepalive_ms: u64 = 20_000, 100 => 3_600_000;
    /// Age at which a connection is asked to come again.
    connection_age_ms: u64 = 3_600_000, 1_000 => 86_400_000;
    /// Time for open requests when the daemon stops.
    shutdown_ms: u64 = 10_000, 0 => 600_000;
    /// Certificate requests of one batch.
    pki_batch_items: usize = 256, 1 => 4096;
    /// People who must approve a new authority, at least.
    pki_approvals: u32 = 2, 1 => 16;
    /// How often a CRL is made anew when nothing is revoked.
    crl_every_ms: u64 = 3_600_000, 1_000 => 86_400_000;
    /// How long a CRL is good.
    crl_life_ms: u64 = 86_400_000, 60_000 => 2_592_000_000;
    /// Open connections to the public HTTP door.
    http_connections: usize = 1024, 1 => 1 << 16;
    /// Bytes of the head of an HTTP request.
    http_head_bytes: usize = 16 << 10, 8 << 10 => 1 << 20;
    /// Time for the head of an HTTP request, also of the next one on a connection.
    http_head_ms: u64 = 10_000, 100 => 600_000;
    /// Time from the head of an HTTP request to its answer.
    http_request_ms: u64 = 10_000, 100 => 600_000;
    /// Age at which an HTTP connection ends; a list must be through by then.
    http_connection_ms: u64 = 120_000, 1_000 => 3_600_000;
    /// Bytes of CRLs that are kept in memory.
    crl_cache_bytes: u64 = 256 << 20, 0 => 1 << 36;
    /// How long an OCSP answer is good.
    ocsp_life_ms: u64 = 3_600_000, 60_000 => 604_800_000;
    /// Life of an OCSP responder's certificate; it is renewed at half of it.
    ocsp_responder_days: u32 = 14, 1 => 14;
    /// OCSP answers that are signed at one time; more are told to try later.
    ocsp_signing: usize = 64, 1 => 4096;
    /// Bytes of OCSP answers that are kept in memory.
    ocsp_cache_bytes: u64 = 64 << 20, 0 => 1 << 36;
    /// Orders of one ACME account within an hour.
    acme_orders_per_hour: u32 = 300, 1 => 1 << 20;
    /// Requests of one ACME account within a minute.
    acme_requests_per_minute: u32 = 1_200, 1 => 1 << 20;
    /// Hosts that are looked at for ACME at one time.
    acme_validations: usize = 64, 1 => 4096;
    /// Longest time for one look at a host.
    acme_validation_ms: u64 = 10_000, 100 => 120_000;
    /// How long an ACME order, or a proof of control, is good.
    acme_order_ms: u64 = 86_400_000, 60_000 => 2_592_000_000;
    /// Age at which a connection of an ACME client is closed.
    acme_connection_ms: u64 = 120_000, 1_000 => 3_600_000;
    /// Time in which what somebody encrypted reaches its place: a job over old versions
    /// begins when the last of them is older than this.
    job_window_ms: u64 = 120_000, 0 => 604_800_000;
    /// How long a worker has a job without a sign of life.
    job_lease_ms: u64 = 15_000, 1_000 => 600_000;
    /// Jobs that are watched at one time.
    job_watchers: usize = 256, 1 => 1 << 16;
    /// Data keys that are lent at one time.
    leases: usize = 4096, 0 => 1 << 20;
    /// Envelopes that one lent data key may seal.
    lease_envelopes: u32 = 65_536, 1 => 65_536;
    /// Pause between two signs of life to who has one; after three of them without any the
    /// lease is over.
    lease_sign_ms: u64 = 1_000, 100 => 10_000;
    /// A version that was used within this time is not scheduled for destruction.
    retirement_quiet_ms: u64 = 604_800_000, 0 => 31_536_000_000;
    /// Key administrators who must approve it when a store is accepted that the daemon
    /// refuses; 0: the operator alone.
    recovery_approvals: u32 = 2, 0 => 16;
    /// Bytes of one audit segment.
    audit_segment_bytes: u64 = 16 << 20, 4 << 10 => 1 << 30;
}

impl Limits {
    /// Who has a lease and hears nothing for so long has none any more: the time of three
    /// signs of life.
    #[must_use]
    pub fn lease_silence_ms(&self) -> u64 {
        3 * self.lease_sign_ms
    }

    /// Checks that every limit is in its range and fits the others.
    ///
    /// # Errors
    /// The name of the limit and the range.
    pub fn check(&self) -> Result<(), String> {
        self.ranges()?;
        if self.message_bytes < self.batch_bytes {
            return Err("limits.message_bytes: smaller than batch_bytes".into());
        }
        if self.batch_bytes < self.item_bytes {
            return Err("limits.batch_bytes: smaller than item_bytes".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_legal_and_limits_must_fit_each_other() {
        Limits::default().check().unwrap();
        let wrong = [
            Limits {
                message_bytes: 1 << 20,
                ..Limits::default()
            },
            Limits {
                batch_bytes: 1 << 10,
                ..Limits::default()
            },
            Limits {
                batch_items: 0,
                ..Limits::default()
            },
            Limits {
                aad_bytes: MAX_AAD_BYTES + 1,
                ..Limits::default()
            },
        ];
        for limits in wrong {
            assert!(
                limits.check().unwrap_err().starts_with("limits."),
                "{limits:?}"
            );
        }
    }
}
