//! The table of [`rules`](super::rules) as filters of the kernel.

use std::collections::BTreeMap;

use nix::libc;
use proto::control::{Device, Taken};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::rules::{Calls, KNOWN, RULES, Refusal, Rule};

/// A number of a system call, and the conditions under which it is meant; empty: always.
type Table = BTreeMap<i64, Vec<SeccompRule>>;

#[derive(Debug, thiserror::Error)]
pub(super) enum SeccompError {
    #[error("the rules make no filter")]
    Compile(#[from] seccompiler::BackendError),
    #[error("the kernel takes no filter")]
    Install(#[from] seccompiler::Error),
}

/// What the filters are made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) device: Device,
    pub(super) data_limit: Option<u64>,
    /// As this process sees itself.
    pub(super) pid: u32,
}

/// Installs the filters on every thread of this process, for good.
pub(super) fn install(subject: Subject) -> Taken {
    match filters(subject).and_then(|filters| apply(&filters)) {
        Ok(()) => Taken::Holds(format!("{} rules", in_force(subject).count())),
        Err(error) => Taken::Missing(shared::text::chain(&error)),
    }
}

fn apply(filters: &[BpfProgram]) -> Result<(), SeccompError> {
    for filter in filters {
        apply_filter_all_threads(filter)?;
    }
    Ok(())
}

/// In the order of their installation: the last refuses to take further ones.
fn filters(subject: Subject) -> Result<[BpfProgram; 3], SeccompError> {
    let not_implemented = SeccompAction::Errno(errno(Refusal::NotImplemented));
    let known: Table = KNOWN.iter().cloned().flatten().map(|number| (number, vec![])).collect();
    let refused = |refusal| {
        let table = table(subject, refusal)?;
        program(table, SeccompAction::Allow, SeccompAction::Errno(errno(refusal)))
    };
    Ok([
        program(known, not_implemented, SeccompAction::Allow)?,
        refused(Refusal::NotImplemented)?,
        refused(Refusal::NotPermitted)?,
    ])
}

fn errno(refusal: Refusal) -> u32 {
    let number = match refusal {
        Refusal::NotPermitted => libc::EPERM,
        Refusal::NotImplemented => libc::ENOSYS,
    };
    number.unsigned_abs()
}

fn program(
    table: Table,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, SeccompError> {
    let filter = SeccompFilter::new(table, otherwise, matched, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}

fn in_force(subject: Subject) -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(move |rule| rule.holds(subject.device, subject.data_limit))
}

fn table(subject: Subject, refusal: Refusal) -> Result<Table, SeccompError> {
    let mut table: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for rule in in_force(subject).filter(|rule| rule.refusal == refusal) {
        for &(_, number) in rule.syscalls {
            let entry = table.entry(number).or_insert_with(|| Some(Vec::new()));
            match (entry, conditions(rule.calls, subject.pid)?) {
                (entry, None) => *entry = None,
                (Some(rules), Some(condition)) => rules.push(condition),
                // It is refused whatever its arguments are.
                (None, Some(_)) => {}
            }
        }
    }
    Ok(table.into_iter().map(|(number, rules)| (number, rules.unwrap_or_default())).collect())
}

/// `None`: whatever the arguments are.
fn conditions(calls: Calls, pid: u32) -> Result<Option<SeccompRule>, SeccompError> {
    let condition = |argument, operator, value: u32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
    };
    let all = match calls {
        Calls::All => return Ok(None),
        Calls::Equal(argument, value) => vec![condition(argument, SeccompCmpOp::Eq, value)?],
        Calls::Other(argument, value) => vec![condition(argument, SeccompCmpOp::Ne, value)?],
        Calls::NoneOf(argument, values) => {
            let other = |&value: &u32| condition(argument, SeccompCmpOp::Ne, value);
            values.iter().map(other).collect::<Result<_, _>>()?
        }
        Calls::Bits(argument, mask, value) => {
            vec![condition(argument, SeccompCmpOp::MaskedEq(mask.into()), value)?]
        }
        Calls::OtherProcess(argument) => vec![condition(argument, SeccompCmpOp::Ne, pid)?],
        Calls::OtherProcessThanSelf(argument) => vec![
            condition(argument, SeccompCmpOp::Ne, pid)?,
            condition(argument, SeccompCmpOp::Ne, 0)?,
        ],
    };
    Ok(Some(SeccompRule::new(all)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_make_filters_for_every_kind_of_worker() {
        for device in [Device::Cpu, Device::Cuda(0)] {
            for data_limit in [None, Some(1 << 28)] {
                let filters = filters(Subject { device, data_limit, pid: 7 }).unwrap();
                // The kernel takes programs of at most 4096 instructions.
                assert!(filters.iter().all(|f| !f.is_empty() && f.len() < 4096));
            }
        }
    }

    #[test]
    fn a_call_that_is_always_refused_has_no_condition_left() {
        let subject = Subject { device: Device::Cpu, data_limit: None, pid: 7 };
        let table = table(subject, Refusal::NotPermitted).unwrap();
        assert!(table[&libc::SYS_socket].is_empty());
        assert_eq!(table[&libc::SYS_kill].len(), 1);
        assert_eq!(table[&libc::SYS_mmap].len(), 1, "huge pages");
    }
}
