//! The files of the plan, as rules of Landlock; TCP, signals and abstract sockets where the kernel
//! can.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, Scope, path_beneath_rules,
};
use proto::control::{Confinement, LoadSpec, Measure, Taken};

use super::plan::{Access, Need, grants};
use shared::text::chain;

/// Everything that the package knows is asked for; an older kernel takes what it can.
const WANTED: ABI = ABI::V10;
/// The first to restrict TCP.
const NETWORK: ABI = ABI::V4;
/// The first to keep signals and abstract sockets inside.
const SCOPES: ABI = ABI::V6;

/// What came of it.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) measures: Vec<Measure>,
    abi: Option<ABI>,
}

impl Files {
    /// Whether other processes' `/proc` entries are out of reach.
    pub(super) fn fully_shut(&self) -> bool {
        self.abi.is_some()
    }
}

/// Restricts this thread, and those that it starts, to the files of the plan.
pub(super) fn restrict(confinement: &Confinement, spec: &LoadSpec) -> Files {
    let file = (!spec.filename.is_empty()).then(|| spec.folder.join(&spec.filename));
    let file = file.and_then(|file| file.canonicalize().ok());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let library_path = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let need = Need {
        model: [Some(&spec.folder), file.as_deref()],
        scratch: &confinement.scratch,
        device: spec.device,
        maps: &maps,
        library_path: &library_path,
        gpus: gpus(),
    };
    report(enforce(&grants(&need)))
}

fn gpus() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let is_gpu = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nvidia"))
    };
    entries.map(|entry| entry.path()).filter(is_gpu).collect()
}

fn enforce(grants: &[(PathBuf, Access)]) -> Result<LandlockStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?;
    for access in EVERY {
        let paths = grants.iter().filter(|(_, a)| *a == access).map(|(path, _)| path.as_path());
        ruleset = ruleset.add_rules(path_beneath_rules::<_, &Path, _>(paths, rights(access)))?;
    }
    Ok(ruleset.restrict_self()?.landlock)
}

const EVERY: [Access; 5] =
    [Access::Read, Access::ReadWrite, Access::WriteInPlace, Access::Device, Access::Scratch];

fn rights(access: Access) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    match access {
        Access::Read => read,
        Access::ReadWrite => read | AccessFs::WriteFile | AccessFs::Truncate,
        Access::WriteInPlace => read | AccessFs::WriteFile,
        Access::Device => read | AccessFs::WriteFile | AccessFs::IoctlDev,
        Access::Scratch => {
            let never =
                AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
            AccessFs::from_all(WANTED) & !never
        }
    }
}

fn report(enforced: Result<LandlockStatus, RulesetError>) -> Files {
    let abi = match enforced {
        Ok(LandlockStatus::Available { effective_abi, .. }) => Ok(effective_abi),
        Ok(LandlockStatus::NotEnabled) => Err("the kernel has it, and it is turned off".into()),
        Ok(LandlockStatus::NotImplemented) => Err("the kernel does not have it".into()),
        Err(error) => Err(chain(&error)),
    };
    let since = |first: ABI| match &abi {
        Ok(abi) if *abi >= first => Taken::Holds(String::new()),
        Ok(abi) => Taken::Missing(format!(
            "needs ABI {} of Landlock, this kernel has {}",
            first as i32, *abi as i32
        )),
        Err(why) => Taken::Missing(why.clone()),
    };
    let files = match &abi {
        Ok(abi) => Taken::Holds(format!("ABI {}", *abi as i32)),
        Err(why) => Taken::Missing(why.clone()),
    };
    let measure = |name: &str, outcome| Measure { name: name.into(), outcome };
    let measures = vec![
        measure("landlock files", files),
        measure("landlock tcp", since(NETWORK)),
        measure("landlock scopes", since(SCOPES)),
    ];
    Files { measures, abi: abi.ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_it_is_told_of_in_every_measure() {
        let files = report(Ok(LandlockStatus::NotEnabled));
        assert!(!files.fully_shut());
        for measure in &files.measures {
            assert!(matches!(&measure.outcome, Taken::Missing(why) if !why.is_empty()));
        }
    }

    #[test]
    fn an_old_kernel_has_less_and_says_so() {
        let status = LandlockStatus::Available { effective_abi: ABI::V4, kernel_abi: None };
        let files = report(Ok(status));
        assert!(files.fully_shut());
        let missing = files.measures.iter().filter(|m| matches!(m.outcome, Taken::Missing(_)));
        let names: Vec<&str> = missing.map(|measure| measure.name.as_str()).collect();
        assert_eq!(names, ["landlock scopes"]);
    }

    #[test]
    fn no_right_lets_a_program_run_or_a_device_be_made() {
        for access in EVERY {
            assert!(!rights(access).intersects(AccessFs::Execute | AccessFs::MakeChar));
        }
        assert!(!rights(Access::Read).intersects(AccessFs::from_write(ABI::V3)));
    }
}
