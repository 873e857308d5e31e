//! What the log says of a worker's confinement.

use proto::control::{Measure, Taken};
use shared::id::{Generation, InstanceId};
use tracing::{info, warn};

/// Says what holds, and warns of each measure that does not; of one that was missing in `before`, the
/// last report, only once.
pub(super) fn log(id: &InstanceId, generation: Generation, now: &[Measure], before: &[Measure]) {
    let (model, version, instance) = (id.model.as_str(), id.version.get(), id.index);
    let mut holds = Vec::new();
    for measure in now {
        match &measure.outcome {
            Taken::Holds(how) if how.is_empty() => holds.push(measure.name.clone()),
            Taken::Holds(how) => holds.push(format!("{} ({how})", measure.name)),
            Taken::Missing(why) => {
                if !before.contains(measure) {
                    let (measure, generation) = (measure.name.as_str(), generation.0);
                    warn!(
                        model,
                        version,
                        instance,
                        generation,
                        measure,
                        why,
                        "confinement: a measure is missing"
                    );
                }
            }
        }
    }
    if holds.is_empty() {
        return;
    }
    let (holds, generation) = (holds.join(", "), generation.0);
    info!(model, version, instance, generation, holds, "worker confined");
}
