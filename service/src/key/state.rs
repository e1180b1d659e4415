//! The states of a key version and the one table of legal moves (NIST SP 800-57
//! part 1 revision 5, §7).

/// State of a key version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// Generated; protects nothing until every node knows of it.
    PreActivation,
    /// Protects and processes.
    Active,
    /// Does neither for now; reversible. Stricter than the source, which lets a
    /// suspended key process: an operator who suspends wants it to stop.
    Suspended,
    /// Processes only.
    Deactivated,
    /// Processes only by explicit exception; there is none yet.
    Compromised,
    /// The material is gone, the record stays.
    Destroyed,
}

impl KeyState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::PreActivation,
        Self::Active,
        Self::Suspended,
        Self::Deactivated,
        Self::Compromised,
        Self::Destroyed,
    ];

    /// May it protect new data?
    #[must_use]
    pub fn may_protect(self) -> bool {
        matches!(self, Self::Active)
    }

    /// May it open what it protected? A version before its activation may: what there is to
    /// open was protected by a node that knows already that it is active, and nobody here
    /// can have made it otherwise.
    #[must_use]
    pub fn may_process(self) -> bool {
        matches!(self, Self::PreActivation | Self::Active | Self::Deactivated)
    }

    /// The table of legal moves.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use KeyState as S;
        match (self, next) {
            (S::PreActivation, S::Active | S::Compromised | S::Destroyed)
            | (S::Active, S::Suspended | S::Deactivated | S::Compromised)
            | (S::Suspended, S::Active | S::Deactivated | S::Compromised | S::Destroyed)
            | (S::Deactivated, S::Active | S::Suspended | S::Compromised | S::Destroyed)
            | (S::Compromised, S::Destroyed) => true,
            (
                S::PreActivation
                | S::Active
                | S::Suspended
                | S::Deactivated
                | S::Compromised
                | S::Destroyed,
                _,
            ) => false,
        }
    }

    /// As written in commands, policies and the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PreActivation => "pre-activation",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deactivated => "deactivated",
            Self::Compromised => "compromised",
            Self::Destroyed => "destroyed",
        }
    }

    /// The inverse of [`KeyState::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == text)
    }
}

#[cfg(test)]
mod tests {
    use KeyState as S;

    use super::*;

    #[test]
    fn the_end_is_the_end() {
        for next in S::ALL {
            assert!(!S::Destroyed.may_become(next));
            assert_eq!(S::Compromised.may_become(next), next == S::Destroyed);
        }
    }

    #[test]
    fn no_state_becomes_itself_and_nothing_becomes_pre_activation() {
        for state in S::ALL {
            assert!(!state.may_become(state));
            assert!(!state.may_become(S::PreActivation));
        }
    }

    #[test]
    fn an_active_version_is_never_destroyed_in_one_step() {
        assert!(!S::Active.may_become(S::Destroyed));
    }

    #[test]
    fn names_are_unique_and_read_back() {
        for state in S::ALL {
            assert_eq!(S::parse(state.name()), Some(state));
        }
        assert_eq!(S::parse("enabled"), None);
    }
}
