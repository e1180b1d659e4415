//! Random bytes: HSM generator XOR operating system generator.

use super::{App, Call};
use crate::{
    error::{Error, Reason, Result},
    policy::act,
};

/// One string of random bytes for each length.
///
/// # Errors
/// Permission, limits, HSM.
pub async fn random(app: &App, call: &mut Call, lengths: &[u32]) -> Result<Vec<Vec<u8>>> {
    call.grant::<act::GenerateRandom>(app, None)?;
    let limits = &app.limits;
    let mut total = 0usize;
    for length in lengths {
        let n = usize::try_from(*length).unwrap_or(usize::MAX);
        if n == 0 || n > limits.random_item_bytes {
            return Err(Error::field(
                Reason::ItemTooLarge,
                "lengths",
                format!(
                    "a length of {n} is not from 1 to {}",
                    limits.random_item_bytes
                ),
            ));
        }
        total = total.saturating_add(n);
    }
    if total > limits.random_bytes {
        return Err(Error::field(
            Reason::BatchTooLarge,
            "lengths",
            format!("{total} bytes; at most {} in one call", limits.random_bytes),
        ));
    }
    let pool = app.hsm.random(total, call.deadline).await?;
    let mut rest = pool.as_slice();
    let mut values = Vec::with_capacity(lengths.len());
    for length in lengths {
        let n = usize::try_from(*length).unwrap_or(0);
        let (value, after) = rest.split_at_checked(n).unwrap_or((rest, &[]));
        values.push(value.to_vec());
        rest = after;
    }
    call.items(values.len(), 0, total);
    Ok(values)
}
