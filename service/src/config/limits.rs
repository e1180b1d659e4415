//! A limit on everything, in one place, units in the names.

use serde::Deserialize;

use crate::envelope::{MAX_AAD_BYTES, MAX_ENVELOPE_BYTES, MAX_ITEM_BYTES, MAX_ITEMS};

/// Limits with their defaults; what `[limits]` may change, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Items of one batch.
    pub batch_items: usize,
    /// Plaintext bytes of one batch.
    pub batch_bytes: usize,
    /// Plaintext bytes of one item.
    pub item_bytes: usize,
    /// AAD bytes of one item.
    pub aad_bytes: usize,
    /// Bytes of one gRPC message; leaves room for headers and AADs around
    /// `batch_bytes`, so that what was encrypted in one call can be decrypted in one.
    pub message_bytes: usize,
    /// Bytes of one string of random bytes.
    pub random_item_bytes: usize,
    /// Bytes of random in one call.
    pub random_bytes: usize,
    /// Longest time for one request; a caller may ask for less.
    pub request_ms: u64,
    /// Longest wait for a durable audit record.
    pub audit_ms: u64,
    /// Requests at work at one time.
    pub requests_in_flight: usize,
    /// Open connections.
    pub connections: usize,
    /// TLS handshake.
    pub handshake_ms: u64,
    /// HTTP/2 streams of one connection.
    pub streams_per_connection: u32,
    /// Streams reset by the peer before they were accepted.
    pub pending_resets: usize,
    /// Streams reset by us for protocol errors, after which the connection ends.
    pub local_resets: usize,
    /// HTTP/2 header list.
    pub header_list_bytes: u32,
    /// HTTP/2 frame.
    pub frame_bytes: u32,
    /// HTTP/2 flow-control window of stream and connection.
    pub window_bytes: u32,
    /// Pause before a silent connection is asked for a sign of life.
    pub keepalive_ms: u64,
    /// Age at which a connection is asked to come again.
    pub connection_age_ms: u64,
    /// Time for open requests when the daemon stops.
    pub shutdown_ms: u64,
    /// Bytes of one audit segment.
    pub audit_segment_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_items: 4096,
            batch_bytes: 8 << 20,
            item_bytes: 1 << 20,
            aad_bytes: 8 << 10,
            message_bytes: 16 << 20,
            random_item_bytes: 64 << 10,
            random_bytes: 1 << 20,
            request_ms: 30_000,
            audit_ms: 5_000,
            requests_in_flight: 1024,
            connections: 4096,
            handshake_ms: 5_000,
            streams_per_connection: 128,
            pending_resets: 20,
            local_resets: 1024,
            header_list_bytes: 16 << 10,
            frame_bytes: 256 << 10,
            window_bytes: 4 << 20,
            keepalive_ms: 20_000,
            connection_age_ms: 3_600_000,
            shutdown_ms: 10_000,
            audit_segment_bytes: 16 << 20,
        }
    }
}

impl Limits {
    /// Checks that every limit is in its range.
    ///
    /// # Errors
    /// The name of the limit and the range.
    pub fn check(&self) -> Result<(), String> {
        // Destructured in full: a new limit cannot be forgotten here.
        let Self {
            batch_items,
            batch_bytes,
            item_bytes,
            aad_bytes,
            message_bytes,
            random_item_bytes,
            random_bytes,
            request_ms,
            audit_ms,
            requests_in_flight,
            connections,
            handshake_ms,
            streams_per_connection,
            pending_resets,
            local_resets,
            header_list_bytes,
            frame_bytes,
            window_bytes,
            keepalive_ms,
            connection_age_ms,
            shutdown_ms,
            audit_segment_bytes,
        } = *self;
        let ranges = [
            ("batch_items", batch_items as u64, 1, MAX_ITEMS as u64),
            (
                "batch_bytes",
                batch_bytes as u64,
                1,
                MAX_ENVELOPE_BYTES as u64,
            ),
            ("item_bytes", item_bytes as u64, 1, MAX_ITEM_BYTES as u64),
            ("aad_bytes", aad_bytes as u64, 0, MAX_AAD_BYTES as u64),
            ("message_bytes", message_bytes as u64, 1 << 16, 256 << 20),
            ("random_item_bytes", random_item_bytes as u64, 1, 1 << 20),
            ("random_bytes", random_bytes as u64, 1, 16 << 20),
            ("request_ms", request_ms, 10, 600_000),
            ("audit_ms", audit_ms, 10, 60_000),
            ("requests_in_flight", requests_in_flight as u64, 1, 1 << 20),
            ("connections", connections as u64, 1, 1 << 20),
            ("handshake_ms", handshake_ms, 10, 60_000),
            (
                "streams_per_connection",
                u64::from(streams_per_connection),
                1,
                10_000,
            ),
            ("pending_resets", pending_resets as u64, 1, 10_000),
            ("local_resets", local_resets as u64, 1, 10_000),
            (
                "header_list_bytes",
                u64::from(header_list_bytes),
                1 << 10,
                1 << 20,
            ),
            (
                "frame_bytes",
                u64::from(frame_bytes),
                16 << 10,
                (16 << 20) - 1,
            ),
            ("window_bytes", u64::from(window_bytes), 64 << 10, 1 << 30),
            ("keepalive_ms", keepalive_ms, 100, 3_600_000),
            ("connection_age_ms", connection_age_ms, 1_000, 86_400_000),
            ("shutdown_ms", shutdown_ms, 0, 600_000),
            ("audit_segment_bytes", audit_segment_bytes, 4 << 10, 1 << 30),
        ];
        for (name, value, low, high) in ranges {
            if value < low || value > high {
                return Err(format!(
                    "limits.{name}: {value} is not from {low} to {high}"
                ));
            }
        }
        if message_bytes < batch_bytes {
            return Err("limits.message_bytes: smaller than batch_bytes".into());
        }
        if batch_bytes < item_bytes {
            return Err("limits.batch_bytes: smaller than item_bytes".into());
        }
        Ok(())
    }
}
