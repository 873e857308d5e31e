//! Which of the versions on disk to serve; pure.

use std::collections::BTreeSet;

use shared::id::ModelVersion;

use super::manifest::VersionPolicy;

/// What a policy asks of the versions that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// On disk, and asked for.
    pub load: BTreeSet<ModelVersion>,
    /// Asked for by number, and not on disk.
    pub missing: BTreeSet<ModelVersion>,
}

pub fn select(
    available: impl IntoIterator<Item = ModelVersion>,
    policy: &VersionPolicy,
) -> Selection {
    let available: BTreeSet<ModelVersion> = available.into_iter().collect();
    match policy {
        VersionPolicy::All => Selection { load: available, missing: BTreeSet::new() },
        VersionPolicy::Latest(count) => {
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            let load = available.into_iter().rev().take(count).collect();
            Selection { load, missing: BTreeSet::new() }
        }
        VersionPolicy::Specific(wanted) => Selection {
            load: wanted.intersection(&available).copied().collect(),
            missing: wanted.difference(&available).copied().collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn versions(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<ModelVersion> {
        numbers.into_iter().filter_map(ModelVersion::new).collect()
    }

    #[test]
    fn the_latest_are_the_highest_numbers() {
        let chosen = select(versions([9, 10, 2]), &VersionPolicy::Latest(2));
        assert_eq!(chosen.load, versions([9, 10]));
    }

    #[test]
    fn specific_versions_that_do_not_exist_are_named() {
        let policy = VersionPolicy::Specific(versions([1, 3]));
        let chosen = select(versions([1, 2]), &policy);
        assert_eq!(chosen, Selection { load: versions([1]), missing: versions([3]) });
    }

    fn policy() -> impl Strategy<Value = VersionPolicy> {
        prop_oneof![
            Just(VersionPolicy::All),
            (1..5_u32).prop_map(VersionPolicy::Latest),
            proptest::collection::vec(1..12_u64, 1..5)
                .prop_map(|numbers| VersionPolicy::Specific(versions(numbers))),
        ]
    }

    proptest! {
        #[test]
        fn only_what_is_on_disk_is_chosen_and_enough_of_it(
            numbers in proptest::collection::vec(1..12_u64, 0..8),
            policy in policy(),
        ) {
            let available = versions(numbers);
            let chosen = select(available.clone(), &policy);
            prop_assert!(chosen.load.is_subset(&available));
            prop_assert!(chosen.missing.is_disjoint(&available));
            match policy {
                VersionPolicy::All => prop_assert_eq!(chosen.load, available),
                VersionPolicy::Latest(count) => {
                    prop_assert_eq!(chosen.load.len(), available.len().min(count as usize));
                    let lowest = chosen.load.first().copied();
                    let left = available.difference(&chosen.load).max().copied();
                    prop_assert!(lowest >= left);
                }
                VersionPolicy::Specific(wanted) => {
                    let both: BTreeSet<_> = chosen.load.union(&chosen.missing).copied().collect();
                    prop_assert_eq!(both, wanted);
                }
            }
        }
    }
}
