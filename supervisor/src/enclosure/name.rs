//! Names of what belongs to a supervisor and to its workers; pure.

use shared::id::WorkerId;

/// Starts the name of everything that a supervisor makes, so that a later one knows it again.
const PREFIX: &str = "bulkhead.";
/// Bytes of a model's name that are kept; a number before it tells workers apart.
const MODEL_BYTES: usize = 64;

/// The folder of a supervisor. `attempt` counts names that were taken.
pub(super) fn claim(pid: u32, attempt: u32) -> String {
    match attempt {
        0 => format!("{PREFIX}{pid}"),
        _ => format!("{PREFIX}{pid}.{attempt}"),
    }
}

/// Whether a folder of this name was made by a supervisor, or is a part of one that was moved out
/// while it was removed.
pub(super) fn is_claim(name: &str) -> bool {
    let digit = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    name.strip_prefix(PREFIX).is_some_and(digit)
}

/// What belongs to one worker. `serial` is never given twice: while a model is loaded anew, two
/// workers have the same id.
pub(super) fn leaf(serial: u64, worker: &WorkerId) -> String {
    let instance = &worker.instance;
    // ASCII, by the rules for such names.
    let model = instance.model.as_str().get(..MODEL_BYTES).unwrap_or(instance.model.as_str());
    let (version, index, generation) = (instance.version, instance.index, worker.generation);
    format!("{serial}.{model}.{version}.{index}.{generation}")
}

/// Where a folder inside `name` is moved to while that is removed, and what that name begins with.
pub(super) fn moved(name: &str, number: u64) -> String {
    format!("{name}~{number}")
}

/// Whether `found` is `name` or was moved out of it.
pub(super) fn is_part(found: &str, name: &str) -> bool {
    let number = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
    found.strip_prefix(name).is_some_and(|rest| {
        rest.is_empty() || rest.split('~').skip(1).all(number) && rest.starts_with('~')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::id::{Generation, InstanceId, ModelName, ModelVersion};

    use super::*;

    fn worker(model: &str) -> WorkerId {
        let (model, version) = (ModelName::new(model).unwrap(), ModelVersion::new(3).unwrap());
        let instance = InstanceId { model, version, index: 1 };
        WorkerId { instance, generation: Generation(7) }
    }

    #[test]
    fn names_tell_what_they_belong_to() {
        assert_eq!(leaf(12, &worker("digits")), "12.digits.3.1.7");
        assert_eq!(claim(5, 0), "bulkhead.5");
        assert_eq!(claim(5, 2), "bulkhead.5.2");
        assert!(!is_claim("bulkhead.service") && !is_claim("bulkhead") && !is_claim("x"));
    }

    #[test]
    fn parts_of_one_worker_are_not_those_of_another() {
        assert!(is_part("1.m.1.0.1~5", "1.m.1.0.1") && is_part("1.m.1.0.1", "1.m.1.0.1"));
        assert!(is_part(&moved(&moved("a", 1), 2), "a"));
        assert!(!is_part("1.m.1.0.10", "1.m.1.0.1") && !is_part("1.m.1.0.1~x", "1.m.1.0.1"));
        assert!(!is_part("1.m.1.0.1~", "1.m.1.0.1"));
    }

    proptest! {
        #[test]
        fn every_leaf_is_one_short_harmless_component(
            model in "[a-zA-Z0-9_+@~=][a-zA-Z0-9._+@~=-]{0,120}", serial: u64,
        ) {
            if let Ok(model) = ModelName::new(&model) {
                let name = leaf(serial, &worker(model.as_str()));
                prop_assert!(name.len() <= 150);
                prop_assert!(!name.contains(['/', '\n', '\0']));
                prop_assert!(name.starts_with(|c: char| c.is_ascii_digit()));
                prop_assert!(!is_claim(&name));
            }
        }

        #[test]
        fn every_claim_is_known_again(pid: u32, attempt: u32, number: u64) {
            prop_assert!(is_claim(&claim(pid, attempt)));
            prop_assert!(is_claim(&moved(&claim(pid, attempt), number)));
        }
    }
}
