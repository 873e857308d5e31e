//! From the message to the checked [`Manifest`]: the edge at which wire types stop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::model_config as wire;
use proto::model_config::model_config::SchedulingChoice;
use proto::model_config::model_version_policy::PolicyChoice;
use shared::id::{ModelName, ModelVersion};

use super::error::ManifestError;
use super::manifest::{
    DynamicBatching, EngineKind, InstanceGroup, InstanceKind, Manifest, QueuePolicy, TimeoutAction,
    VersionPolicy, Warning,
};
use super::{pbtxt, support, tensors};

/// What was seen in the folders of the versions, for a file that names no engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFile {
    TorchScript,
    Unknown,
}

/// Most workers that the instance groups of one model may ask for.
const MAX_INSTANCES: u16 = 64;
const MAX_BATCH: i32 = 1 << 20;

/// Reads the text of a `config.pbtxt` that lies in the folder `folder`.
pub fn read_manifest(
    text: &str,
    folder: &ModelName,
    file: ModelFile,
) -> Result<Manifest, ManifestError> {
    let message = pbtxt::parse(text)?;
    let warnings = support::review(&message).map_err(ManifestError::Unsupported)?;
    let config: wire::ModelConfig =
        message.transcode_to().expect("both come from one message definition");
    if !config.name.is_empty() && config.name != folder.as_str() {
        return Err(ManifestError::Name { given: shown(&config.name), folder: folder.clone() });
    }
    manifest(config, warnings, file)
}

impl Manifest {
    /// What is known of a model that has a `model.pt` and no `config.pbtxt`.
    pub fn of_torch_file() -> Self {
        manifest(wire::ModelConfig::default(), Vec::new(), ModelFile::TorchScript)
            .expect("an empty configuration has no bad value")
    }
}

fn shown(given: &str) -> String {
    pbtxt::shorten(given, 80)
}

fn manifest(
    config: wire::ModelConfig,
    warnings: Vec<Warning>,
    file: ModelFile,
) -> Result<Manifest, ManifestError> {
    let engine = engine(&config, file)?;
    let max_batch_size = max_batch_size(config.max_batch_size)?;
    let batching = match config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => {
            Some(dynamic_batching(&batching, max_batch_size)?)
        }
        // Refused by the table of supported fields.
        Some(SchedulingChoice::SequenceBatching(_) | SchedulingChoice::EnsembleScheduling(_))
        | None => None,
    };
    let parameters = config.parameters.into_iter().map(|(key, value)| (key, value.string_value));
    Ok(Manifest {
        engine,
        platform: platform(engine, &config.platform, &config.backend),
        filename: filename(engine, &config.default_model_filename)?,
        max_batch_size,
        inputs: tensors::inputs(&config.input, max_batch_size)?,
        outputs: tensors::outputs(&config.output, max_batch_size)?,
        instance_groups: instance_groups(&config.instance_group)?,
        version_policy: version_policy(config.version_policy)?,
        dynamic_batching: batching,
        parameters: parameters.collect(),
        warnings,
    })
}

fn engine(config: &wire::ModelConfig, file: ModelFile) -> Result<EngineKind, ManifestError> {
    let platform = match config.platform.as_str() {
        "" => None,
        "pytorch_libtorch" => Some(EngineKind::Torch),
        given => {
            return Err(ManifestError::Engine { field: "platform", given: shown(given) });
        }
    };
    let backend = match config.backend.as_str() {
        "" => None,
        "pytorch" => Some(EngineKind::Torch),
        "echo" => Some(EngineKind::Echo),
        given => return Err(ManifestError::Engine { field: "backend", given: shown(given) }),
    };
    match (platform, backend, file) {
        (Some(a), Some(b), _) if a != b => Err(ManifestError::Engines {
            platform: config.platform.clone(),
            backend: config.backend.clone(),
        }),
        (_, Some(engine), _) | (Some(engine), None, _) => Ok(engine),
        (None, None, ModelFile::TorchScript) => Ok(EngineKind::Torch),
        (None, None, ModelFile::Unknown) => Err(ManifestError::NoEngine),
    }
}

/// As Triton shows it: the platform, else the backend.
fn platform(engine: EngineKind, platform: &str, backend: &str) -> String {
    let given = [platform, backend].into_iter().find(|text| !text.is_empty());
    given.unwrap_or(engine.platform()).to_owned()
}

fn filename(engine: EngineKind, given: &str) -> Result<Option<String>, ManifestError> {
    let plain = !given.contains(['/', '\\', '\0']) && !matches!(given, "." | "..");
    if !plain || given.len() > 255 {
        return Err(ManifestError::field(
            "default_model_filename",
            format!("{:?} is not the name of a file in a version's folder", shown(given)),
        ));
    }
    match (engine.default_filename(), given) {
        (None, _) => Ok(None),
        (Some(default), "") => Ok(Some(default.to_owned())),
        (Some(_), given) => Ok(Some(given.to_owned())),
    }
}

fn max_batch_size(given: i32) -> Result<u32, ManifestError> {
    let size = u32::try_from(given).ok().filter(|_| given <= MAX_BATCH);
    size.ok_or_else(|| {
        let reason = format!("{given} is not from 0 (no batches) to {MAX_BATCH}");
        ManifestError::field("max_batch_size", reason)
    })
}

fn instance_groups(
    groups: &[wire::ModelInstanceGroup],
) -> Result<Vec<InstanceGroup>, ManifestError> {
    if groups.is_empty() {
        let group =
            InstanceGroup { name: String::new(), kind: InstanceKind::Auto, count: 1, gpus: vec![] };
        return Ok(vec![group]);
    }
    let groups: Vec<_> = groups.iter().map(instance_group).collect::<Result<_, _>>()?;
    let total: usize = groups.iter().map(|group| group.seats().count()).sum();
    if total > MAX_INSTANCES.into() {
        let reason = format!("{total} instances in all; at most {MAX_INSTANCES} are possible");
        return Err(ManifestError::field("instance_group", reason));
    }
    Ok(groups)
}

fn instance_group(group: &wire::ModelInstanceGroup) -> Result<InstanceGroup, ManifestError> {
    use wire::model_instance_group::Kind;
    let kind = match Kind::try_from(group.kind) {
        Ok(Kind::Auto) => InstanceKind::Auto,
        Ok(Kind::Gpu) => InstanceKind::Gpu,
        Ok(Kind::Cpu) => InstanceKind::Cpu,
        Ok(Kind::Model) => InstanceKind::Model,
        Err(_) => {
            let reason = format!("{} is not a kind", group.kind);
            return Err(ManifestError::field("instance_group.kind", reason));
        }
    };
    if kind == InstanceKind::Cpu && !group.gpus.is_empty() {
        let reason = "a group of KIND_CPU cannot name GPUs";
        return Err(ManifestError::field("instance_group.gpus", reason));
    }
    let gpus = group.gpus.iter().map(|&gpu| {
        u16::try_from(gpu).map_err(|_| {
            ManifestError::field("instance_group.gpus", format!("{gpu} is not a device number"))
        })
    });
    Ok(InstanceGroup {
        name: group.name.clone(),
        kind,
        count: instance_count(group.count)?,
        gpus: gpus.collect::<Result<_, _>>()?,
    })
}

/// 0 is what a file says that does not set it.
fn instance_count(given: i32) -> Result<u16, ManifestError> {
    let count = u16::try_from(given).ok().filter(|&count| count <= MAX_INSTANCES);
    let count = count.ok_or_else(|| {
        let reason = format!("{given} is not from 1 to {MAX_INSTANCES}");
        ManifestError::field("instance_group.count", reason)
    })?;
    Ok(count.max(1))
}

fn version_policy(
    policy: Option<wire::ModelVersionPolicy>,
) -> Result<VersionPolicy, ManifestError> {
    match policy.and_then(|policy| policy.policy_choice) {
        None => Ok(VersionPolicy::Latest(1)),
        Some(PolicyChoice::All(_)) => Ok(VersionPolicy::All),
        Some(PolicyChoice::Latest(latest)) if latest.num_versions == 0 => {
            let field = "version_policy.latest.num_versions";
            Err(ManifestError::field(field, "it must be at least 1"))
        }
        Some(PolicyChoice::Latest(latest)) => Ok(VersionPolicy::Latest(latest.num_versions)),
        Some(PolicyChoice::Specific(specific)) => specific_versions(&specific.versions),
    }
}

fn specific_versions(versions: &[i64]) -> Result<VersionPolicy, ManifestError> {
    let field = "version_policy.specific.versions";
    let numbers = versions.iter().map(|&number| {
        let version = u64::try_from(number).ok().and_then(ModelVersion::new);
        version.ok_or_else(|| ManifestError::field(field, format!("{number} is not a version")))
    });
    let versions: BTreeSet<ModelVersion> = numbers.collect::<Result<_, _>>()?;
    if versions.is_empty() {
        return Err(ManifestError::field(field, "it names no version"));
    }
    Ok(VersionPolicy::Specific(versions))
}

fn dynamic_batching(
    batching: &wire::ModelDynamicBatching,
    max_batch_size: u32,
) -> Result<DynamicBatching, ManifestError> {
    let sizes = batching.preferred_batch_size.iter().map(|&size| {
        let size_in_range =
            u32::try_from(size).ok().filter(|size| (1..=max_batch_size).contains(size));
        size_in_range.ok_or_else(|| {
            let reason =
                format!("{size} is not from 1 to max_batch_size, which is {max_batch_size}");
            ManifestError::field("dynamic_batching.preferred_batch_size", reason)
        })
    });
    let policies = batching.priority_queue_policy.iter();
    let policies: BTreeMap<u64, QueuePolicy> = policies
        .map(|(&level, policy)| {
            priority(batching, "priority_queue_policy", level)?;
            Ok((level, queue_policy(policy)?))
        })
        .collect::<Result<_, ManifestError>>()?;
    if batching.priority_levels > 0 || batching.default_priority_level > 0 {
        priority(batching, "default_priority_level", batching.default_priority_level)?;
    }
    let default_policy = batching.default_queue_policy.as_ref();
    Ok(DynamicBatching {
        preferred_batch_sizes: sizes.collect::<Result<_, _>>()?,
        max_queue_delay: Duration::from_micros(batching.max_queue_delay_microseconds),
        preserve_ordering: batching.preserve_ordering,
        priority_levels: batching.priority_levels,
        default_priority_level: batching.default_priority_level,
        default_queue_policy: default_policy.map(queue_policy).transpose()?.unwrap_or_default(),
        priority_queue_policies: policies,
    })
}

fn priority(
    batching: &wire::ModelDynamicBatching,
    field: &str,
    level: u64,
) -> Result<(), ManifestError> {
    let levels = batching.priority_levels;
    if (1..=levels).contains(&level) {
        return Ok(());
    }
    let reason = format!("{level} is not from 1 to priority_levels, which is {levels}");
    Err(ManifestError::field(format!("dynamic_batching.{field}"), reason))
}

fn queue_policy(policy: &wire::ModelQueuePolicy) -> Result<QueuePolicy, ManifestError> {
    use wire::model_queue_policy::TimeoutAction as Action;
    let timeout_action = match Action::try_from(policy.timeout_action) {
        Ok(Action::Reject) => TimeoutAction::Reject,
        Ok(Action::Delay) => TimeoutAction::Delay,
        Err(_) => {
            let reason = format!("{} is not an action", policy.timeout_action);
            return Err(ManifestError::field("queue_policy.timeout_action", reason));
        }
    };
    Ok(QueuePolicy {
        timeout_action,
        default_timeout: Duration::from_micros(policy.default_timeout_microseconds),
        allow_timeout_override: policy.allow_timeout_override,
        max_queue_size: policy.max_queue_size,
    })
}
