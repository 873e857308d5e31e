//! A model from its specification to an engine that is warm and a fact that says so.
//!
//! What fails here keeps the model from serving, but for its warm-up: a model that cannot run zeros may
//! run what clients send. A device that is lost meanwhile is the end in any case.

use std::time::{Duration, Instant};

use proto::control::{LoadSpec, Loaded, MAX_BUILD_BYTES, OnDevice};
use shared::limits::MAX_TENSORS;
use shared::sys::process::peak_rss;
use shared::text::clean;

use crate::engine::{Arenas, Engine, EngineError, LoadError, Loader};
use crate::pump::{Exhaustion, Warmed, Warmup, warm_up};
use crate::telemetry;

/// A model that runs, and what was learned while it was loaded.
#[expect(missing_debug_implementations, reason = "an engine has none")]
pub struct Ready {
    pub engine: Box<dyn Engine>,
    pub exhaustion: Option<Exhaustion>,
    pub fact: Loaded,
}

/// Loads and warms up the model of `spec` with one of `engines`.
pub fn load(
    spec: &LoadSpec,
    engines: &[(&str, Loader)],
    arenas: &Arenas,
) -> Result<Ready, LoadError> {
    let Some((_, loader)) = engines.iter().find(|(name, _)| *name == spec.engine) else {
        let known: Vec<&str> = engines.iter().map(|(name, _)| *name).collect();
        let (engine, known) = (&spec.engine, known.join(", "));
        return Err(LoadError::Permanent(format!(
            "this worker has no engine {engine:?}, only {known}"
        )));
    };
    let start = Instant::now();
    let mut engine = loader(spec)?;
    let load_nanos = nanos(start.elapsed());
    let warmed = warm_up(engine.as_mut(), spec.max_batch_size);
    if let Some(fault) = fault_of(&warmed) {
        // As at the end of a pump: its destructors would ask the device for something.
        std::mem::forget(engine);
        return Err(LoadError::DeviceFault(fault));
    }
    let warmup_nanos = tell(&warmed, engine.as_mut());
    let schema = engine.schema();
    for (what, specs) in [("inputs", &schema.inputs), ("outputs", &schema.outputs)] {
        if specs.len() > MAX_TENSORS {
            let (has, most) = (specs.len(), MAX_TENSORS);
            let message = format!("the model has {has} {what}, at most {most} are possible");
            return Err(LoadError::Permanent(message));
        }
    }
    engine.adopt(arenas);
    let (inputs, outputs) = (schema.inputs, schema.outputs);
    let on_device = engine.on_device().map(|used| OnDevice {
        allocator_limit: used.allocator_limit,
        peak: used.peak,
        warmup: warmed.extent,
    });
    let build = clean(&engine.build(), MAX_BUILD_BYTES);
    let peak_rss = peak_rss();
    let fact = Loaded { inputs, outputs, load_nanos, warmup_nanos, peak_rss, build, on_device };
    Ok(Ready { engine, exhaustion: warmed.exhaustion, fact })
}

/// The device's fault that a warm-up ended with, if it did.
fn fault_of(warmed: &Warmed) -> Option<String> {
    match (&warmed.outcome, &warmed.too_large) {
        (Warmup::Failed(EngineError::DeviceFault(text)), _)
        | (_, Some((_, EngineError::DeviceFault(text)))) => Some(text.clone()),
        (Warmup::Done(_) | Warmup::Skipped { .. } | Warmup::Failed(_), _) => None,
    }
}

/// Logs how the warm-up went, and returns how long the first runs took.
fn tell(warmed: &Warmed, engine: &mut dyn Engine) -> u64 {
    if let Some((rows, error)) = &warmed.too_large {
        telemetry::warning(format_args!(
            "a batch of {rows}, as max_batch_size allows, does not run: {error}"
        ));
        engine.trim();
    }
    match &warmed.outcome {
        Warmup::Done(took) => nanos(*took),
        Warmup::Skipped { input } => {
            telemetry::info(format_args!(
                "no warm-up: the type or shape of {input:?} is not known"
            ));
            0
        }
        Warmup::Failed(error) => {
            telemetry::warning(format_args!("the warm-up on zeros failed: {error}"));
            engine.trim();
            0
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
