//! What differs between vendors and cannot be probed, as data. What can be probed is.

/// Set-up that suits a kind of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// Sessions that are worth having for wrap and unwrap.
    pub workers: usize,
}

/// A token that is reached over a wire wants several operations under way.
const USUAL: Quirks = Quirks { workers: 8 };

/// By the beginning of CK_TOKEN_INFO.manufacturerID.
const KNOWN: [(&str, Quirks); 1] = [
    // One lock around everything: a second thread makes it slower.
    ("SoftHSM", Quirks { workers: 1 }),
];

pub(super) fn of(manufacturer: &str) -> Quirks {
    KNOWN
        .iter()
        .find(|(name, _)| manufacturer.starts_with(name))
        .map_or(USUAL, |(_, quirks)| *quirks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softhsm_is_known_and_others_are_usual() {
        assert_eq!(of("SoftHSM project").workers, 1);
        assert_eq!(of("Thales"), USUAL);
    }
}
