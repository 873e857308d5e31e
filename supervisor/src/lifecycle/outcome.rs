//! What an event led to, or why it changed nothing.

use super::effect::Effects;

/// What an event led to.
#[must_use = "effects that are not carried out leave the machine waiting for ever"]
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The event counted, even if nothing has to be done now.
    Accepted(Effects),
    Ignored(Ignored),
}

/// Why an event changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// What it asks for is so, or is under way.
    Repeat,
    /// It speaks of an earlier generation, timer or reservation.
    Stale,
    /// Wanted, but quarantined until an operator acts.
    Quarantined,
    /// It has no meaning in this state.
    Unlisted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IgnoredCounts {
    pub repeats: u64,
    pub stale: u64,
    pub quarantined: u64,
    pub unlisted: u64,
}

pub(super) const NO_EFFECTS: Outcome = Outcome::Accepted(Effects::new());
pub(super) const REPEAT: Outcome = Outcome::Ignored(Ignored::Repeat);
pub(super) const STALE: Outcome = Outcome::Ignored(Ignored::Stale);
pub(super) const UNLISTED: Outcome = Outcome::Ignored(Ignored::Unlisted);

impl Outcome {
    #[must_use]
    pub fn into_effects(self) -> Effects {
        match self {
            Self::Accepted(effects) => effects,
            Self::Ignored(_) => Effects::new(),
        }
    }
}

impl IgnoredCounts {
    pub(super) fn count(&mut self, why: Ignored) {
        let counter = match why {
            Ignored::Repeat => &mut self.repeats,
            Ignored::Stale => &mut self.stale,
            Ignored::Quarantined => &mut self.quarantined,
            Ignored::Unlisted => &mut self.unlisted,
        };
        *counter += 1;
    }
}
