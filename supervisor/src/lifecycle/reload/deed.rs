//! What a model's task does about a wish; pure.

use super::plan::Wish;
use crate::config::Effect;

/// What there is of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) struct There {
    pub(in crate::lifecycle) state: Presence,
    /// What the wished settings take, against those that it runs with.
    pub(in crate::lifecycle) change: Option<Effect>,
    pub(in crate::lifecycle) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Presence {
    /// It has workers, or had until they were given up.
    Loaded,
    /// The last try to load it has brought nothing.
    Failed,
    /// There was no room for it, which may be another matter by now.
    Denied,
    /// Nobody has loaded it, or somebody has unloaded it.
    Unloaded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Place {
    Same,
    /// Its folder is another one than that which was loaded.
    Moved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Deed {
    Nothing,
    /// New settings for the workers that are there.
    Adopt,
    /// New workers in the place of those that are there.
    Renew,
    Load,
    /// The settings are kept for its next load.
    Keep,
    Disable,
    Forget,
}

impl Deed {
    pub(in crate::lifecycle) fn about(wish: Wish, there: There) -> Self {
        let There { state, change, place } = there;
        match (wish, state) {
            (Wish::Forget, _) => Self::Forget,
            (Wish::Disable, _) => Self::Disable,
            (Wish::Renew, Presence::Loaded) => Self::Renew,
            (Wish::Stay | Wish::Serve | Wish::Load, Presence::Loaded) => match (place, change) {
                (Place::Moved, _) | (Place::Same, Some(Effect::Workers | Effect::Server)) => {
                    Self::Renew
                }
                (Place::Same, Some(Effect::Live)) => Self::Adopt,
                (Place::Same, None) => Self::Nothing,
            },
            (Wish::Load, Presence::Failed | Presence::Denied | Presence::Unloaded)
            | (Wish::Renew, Presence::Failed | Presence::Denied)
            | (Wish::Serve, Presence::Denied) => Self::Load,
            // What it failed with has changed.
            (Wish::Stay | Wish::Serve, Presence::Failed) | (Wish::Stay, Presence::Denied) => {
                match change.is_some() || place == Place::Moved {
                    true => Self::Load,
                    false => Self::Nothing,
                }
            }
            (Wish::Renew, Presence::Unloaded) => Self::Keep,
            (Wish::Stay | Wish::Serve, Presence::Unloaded) => match change {
                Some(_) => Self::Keep,
                None => Self::Nothing,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [Presence; 4] =
        [Presence::Loaded, Presence::Failed, Presence::Denied, Presence::Unloaded];
    const CHANGES: [Option<Effect>; 3] = [None, Some(Effect::Live), Some(Effect::Workers)];

    fn there(state: Presence, change: Option<Effect>, place: Place) -> There {
        There { state, change, place }
    }

    #[test]
    fn what_has_not_changed_is_not_touched() {
        for state in STATES {
            assert_eq!(Deed::about(Wish::Stay, there(state, None, Place::Same)), Deed::Nothing);
        }
        let loaded = there(Presence::Loaded, None, Place::Same);
        assert_eq!(Deed::about(Wish::Load, loaded), Deed::Nothing);
    }

    #[test]
    fn workers_are_replaced_only_for_what_takes_new_ones() {
        let loaded =
            |change, place| Deed::about(Wish::Stay, there(Presence::Loaded, change, place));
        assert_eq!(loaded(Some(Effect::Live), Place::Same), Deed::Adopt);
        assert_eq!(loaded(Some(Effect::Workers), Place::Same), Deed::Renew);
        assert_eq!(loaded(None, Place::Moved), Deed::Renew);
        let named = there(Presence::Loaded, None, Place::Same);
        assert_eq!(Deed::about(Wish::Renew, named), Deed::Renew);
    }

    #[test]
    fn what_somebody_has_unloaded_stays_unloaded_unless_its_load_is_wished() {
        for change in CHANGES {
            let unloaded = there(Presence::Unloaded, change, Place::Same);
            assert_ne!(Deed::about(Wish::Stay, unloaded), Deed::Load);
            assert_eq!(Deed::about(Wish::Renew, unloaded), Deed::Keep);
            assert_eq!(Deed::about(Wish::Load, unloaded), Deed::Load);
        }
    }

    #[test]
    fn what_failed_is_tried_again_if_it_has_changed() {
        let failed =
            |change, place| Deed::about(Wish::Stay, there(Presence::Failed, change, place));
        assert_eq!(failed(Some(Effect::Live), Place::Same), Deed::Load);
        assert_eq!(failed(None, Place::Moved), Deed::Load);
        assert_eq!(failed(None, Place::Same), Deed::Nothing);
    }

    #[test]
    fn what_had_no_room_is_tried_again_if_it_is_to_serve() {
        for wish in [Wish::Serve, Wish::Load, Wish::Renew] {
            let denied = there(Presence::Denied, None, Place::Same);
            assert_eq!(Deed::about(wish, denied), Deed::Load);
        }
    }

    #[test]
    fn what_is_disabled_or_gone_ends_in_any_state() {
        for state in STATES {
            for change in CHANGES {
                let there = there(state, change, Place::Same);
                assert_eq!(Deed::about(Wish::Disable, there), Deed::Disable);
                assert_eq!(Deed::about(Wish::Forget, there), Deed::Forget);
            }
        }
    }
}
