//! Which devices an instance gets; pure.
//!
//! Of the devices that have room: first those on which the version has the fewest instances, so that
//! one device that falls away takes the fewest of them; then those that are busy the least, in quarters,
//! because a moment's figure says no more; then the one that is left with the least room, so that a
//! large model finds a device in one piece. An instance of several devices gets all or none.

use crate::device::DeviceId;

/// The devices that an instance asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// So many, whichever they are.
    Any(u16),
    /// These, by their numbers.
    These(Vec<u16>),
}

/// A device that can be given work, as it is for one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: DeviceId,
    pub index: u16,
    /// Bytes that nobody has been granted.
    pub free: u64,
    /// Bytes that the instance takes there.
    pub need: u64,
    /// Instances of the same version on it.
    pub siblings: usize,
    /// How busy it was in the last moment, in percent, if that is known.
    pub busy: Option<u8>,
}

/// Why an instance gets no devices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("{wanted} GPUs are wanted and {usable} can be used")]
    TooFew { wanted: usize, usable: usize },
    #[error("there is no GPU {0} that can be used")]
    NotThere(u16),
    /// The one that has the most room beyond what is needed of it.
    #[error("{need} bytes of GPU memory asked, {free} free on GPU {index}, which has the most")]
    NoRoom { need: u64, free: u64, index: u16 },
}

/// Chooses devices, in the order of the wish if it names them and by index otherwise.
pub fn place(wanted: &Wanted, candidates: &[Candidate]) -> Result<Vec<DeviceId>, NoPlace> {
    let has_room = |candidate: &&Candidate| candidate.need <= candidate.free;
    match wanted {
        Wanted::These(indices) => {
            // Named twice is named once: an instance has a device or has it not.
            let once =
                indices.iter().enumerate().filter(|(at, index)| !indices[..*at].contains(index));
            let named = once.map(|(_, &index)| {
                let found = candidates.iter().find(|candidate| candidate.index == index);
                found.ok_or(NoPlace::NotThere(index))
            });
            let named = named.collect::<Result<Vec<_>, _>>()?;
            match named.iter().find(|candidate| !has_room(candidate)) {
                Some(short) => Err(no_room(short)),
                None => Ok(named.into_iter().map(|candidate| candidate.id.clone()).collect()),
            }
        }
        Wanted::Any(count) => {
            let (wanted, usable) = (usize::from(*count), candidates.len());
            if usable < wanted {
                return Err(NoPlace::TooFew { wanted, usable });
            }
            let mut fitting: Vec<&Candidate> = candidates.iter().filter(has_room).collect();
            if fitting.len() < wanted {
                let rest = candidates.iter().filter(|candidate| !has_room(candidate));
                let most = rest.max_by_key(|c| (c.free.saturating_sub(c.need), c.free));
                return Err(most.map_or(NoPlace::TooFew { wanted, usable }, no_room));
            }
            fitting.sort_by_key(|candidate| rank(candidate));
            fitting.truncate(wanted);
            fitting.sort_by_key(|candidate| candidate.index);
            Ok(fitting.into_iter().map(|candidate| candidate.id.clone()).collect())
        }
    }
}

fn rank(candidate: &Candidate) -> (usize, u8, u64, u16) {
    let quarter = candidate.busy.unwrap_or(0).min(99) / 25;
    (candidate.siblings, quarter, candidate.free - candidate.need, candidate.index)
}

fn no_room(candidate: &Candidate) -> NoPlace {
    let Candidate { need, free, index, .. } = *candidate;
    NoPlace::NoRoom { need, free, index }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(index: u16) -> DeviceId {
        DeviceId::new(&format!("GPU-{index}")).unwrap()
    }

    fn device(index: u16, free: u64, siblings: usize, busy: u8) -> Candidate {
        Candidate { id: id(index), index, free, need: 10, siblings, busy: Some(busy) }
    }

    fn one(candidates: &[Candidate]) -> Result<Vec<DeviceId>, NoPlace> {
        place(&Wanted::Any(1), candidates)
    }

    #[test]
    fn siblings_weigh_more_than_load_and_load_more_than_room() {
        assert_eq!(one(&[device(0, 50, 1, 0), device(1, 90, 0, 99)]), Ok(vec![id(1)]));
        assert_eq!(one(&[device(0, 20, 0, 60), device(1, 90, 0, 10)]), Ok(vec![id(1)]));
        // As busy as each other, give or take: the tighter fit.
        assert_eq!(one(&[device(0, 90, 0, 10), device(1, 20, 0, 20)]), Ok(vec![id(1)]));
        assert_eq!(one(&[device(0, 20, 0, 0), device(1, 20, 0, 0)]), Ok(vec![id(0)]));
    }

    #[test]
    fn several_devices_are_granted_together_or_not_at_all() {
        let three = [device(0, 50, 0, 0), device(1, 9, 0, 0), device(2, 10, 0, 0)];
        assert_eq!(place(&Wanted::Any(2), &three), Ok(vec![id(0), id(2)]));
        let short = NoPlace::NoRoom { need: 10, free: 9, index: 1 };
        assert_eq!(place(&Wanted::Any(3), &three), Err(short.clone()));
        assert_eq!(place(&Wanted::These(vec![2, 0, 2]), &three), Ok(vec![id(2), id(0)]));
        assert_eq!(place(&Wanted::These(vec![0, 1]), &three), Err(short));
        let few = NoPlace::TooFew { wanted: 4, usable: 3 };
        assert_eq!(place(&Wanted::Any(4), &three), Err(few));
        assert_eq!(place(&Wanted::These(vec![7]), &three), Err(NoPlace::NotThere(7)));
    }

    #[test]
    fn the_reason_names_the_device_that_comes_nearest() {
        let error = one(&[device(0, 3, 0, 0), device(1, 8, 0, 0)]).unwrap_err().to_string();
        assert!(error.starts_with("10 bytes") && error.contains("8 free on GPU 1"), "{error}");
    }

    fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0_u64..100, 0_u64..100, 0_usize..3, prop::option::of(0_u8..=255));
        prop::collection::vec(one, 0..6).prop_map(|devices| {
            let numbered = (0_u16..).zip(devices);
            let made = numbered.map(|(index, (free, need, siblings, busy))| Candidate {
                id: id(index),
                index,
                free,
                need,
                siblings,
                busy,
            });
            made.collect()
        })
    }

    proptest! {
        #[test]
        fn whoever_is_placed_has_room_on_as_many_devices_as_it_asked_for(
            candidates in any_candidates(), count in 0_u16..4,
        ) {
            let fit = candidates.iter().filter(|c| c.need <= c.free).count();
            match place(&Wanted::Any(count), &candidates) {
                Ok(placed) => {
                    prop_assert_eq!(placed.len(), usize::from(count));
                    let on = |id: &DeviceId| candidates.iter().find(|c| c.id == *id).unwrap();
                    prop_assert!(placed.iter().all(|id| on(id).need <= on(id).free));
                    prop_assert!(placed.windows(2).all(|two| on(&two[0]).index < on(&two[1]).index));
                    let fitting: Vec<_> =
                        candidates.iter().filter(|c| c.need <= c.free).collect();
                    let (chosen, left): (Vec<_>, Vec<_>) =
                        fitting.into_iter().partition(|c| placed.contains(&c.id));
                    let worst = chosen.iter().map(|c| c.siblings).max();
                    let best = left.iter().map(|c| c.siblings).min();
                    prop_assert!(worst.is_none() || best.is_none() || worst <= best);
                }
                Err(_) => prop_assert!(fit < usize::from(count)),
            }
        }
    }
}
