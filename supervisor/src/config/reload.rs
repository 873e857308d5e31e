//! What holds after a reload; pure. The counterpart of [`Effect`]: a key that needs a restart of the
//! server keeps its value here, so that it is named again by each reload until there was one.

use shared::id::ModelName;

use super::flat::{self, Effect};
use super::settings::{
    Config, Devices, Http, Limits, Log, ModelSettings, Repository, Traces, WorkerSettings,
};

impl Config {
    /// What a server that runs with `self` runs with once `new` was applied.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let new = new.clone();
        let Http { listen, activation_wait, .. } = self.http;
        let Limits { threads, ref cgroup, .. } = self.limits;
        let Repository { required_timeout, .. } = self.repository;
        let Devices { headroom, release_timeout, .. } = new.devices;
        Self {
            runtime_file: self.runtime_file.clone(),
            scratch: self.scratch.clone(),
            log: Log { format: self.log.format, ..new.log },
            traces: Traces { sample: new.traces.sample, ..self.traces.clone() },
            http: Http { listen, activation_wait, ..new.http },
            metrics: self.metrics.clone(),
            admin: self.admin.clone(),
            limits: Limits { threads, cgroup: cgroup.clone(), ..new.limits },
            devices: Devices { headroom, release_timeout, ..self.devices.clone() },
            repository: Repository { required_timeout, ..new.repository },
            ..new
        }
    }

    /// `self`, but for one model what `new` says of it.
    #[must_use]
    pub fn with_model_of(&self, new: &Self, name: &ModelName) -> Self {
        let mut with = self.clone();
        let settings = new.model(name);
        if *settings == with.defaults {
            with.models.remove(name);
        } else {
            with.models.insert(name.clone(), settings.clone());
        }
        with
    }
}

impl ModelSettings {
    /// What it takes for a model that runs with `self` to run with `new`; `None` if that is so.
    /// Whether it is enabled is another question.
    #[must_use]
    pub fn effect_of(&self, new: &Self) -> Option<Effect> {
        let (old, new) = (flat::model_entries(self), flat::model_entries(new));
        let pairs = old.into_iter().zip(new);
        let changed = pairs.filter(|(old, new)| old.value != new.value);
        changed.map(|(_, new)| new.effect).max()
    }

    /// Takes over what holds without new workers.
    pub fn adopt_live(&mut self, new: &Self) {
        let worker = new.worker.clone();
        self.worker = WorkerSettings {
            queue: worker.queue,
            load_timeout: worker.load_timeout,
            infer_timeout: worker.infer_timeout,
            drain_timeout: worker.drain_timeout,
            stop_timeout: worker.stop_timeout,
            handshake_timeout: worker.handshake_timeout,
            idle_timeout: worker.idle_timeout,
            poison: worker.poison,
            ..self.worker.clone()
        };
        self.restart = new.restart.clone();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Change, Diff, schema};

    /// Another value than the default for every key. A key that is missing here fails a test.
    const OTHER: &str = r#"
        runtime_file = "other"
        scratch = "other"
        [log]
        format = "json"
        filter = "debug"
        [traces]
        endpoint = "http://127.0.0.1:4318"
        sample = 0.5
        timeout = "1s"
        queue = 16
        [http]
        listen = "127.0.0.1:1"
        max_connections = 1
        header_timeout = "1s"
        body_timeout = "1s"
        stall_timeout = "1s"
        idle_timeout = "1s"
        activation_wait = "1s"
        repository_control = true
        [metrics]
        listen = "off"
        max_connections = 1
        [admin]
        socket = "off"
        group = "other"
        audit_log = "other"
        max_connections = 1
        [limits]
        max_body = "1MiB"
        max_decompressed = "1MiB"
        max_reply = "1MiB"
        buffer_memory = "1MiB"
        max_chunks = 1
        max_json_depth = 4
        max_models = 1
        max_workers = 1
        arena_memory = "1GiB"
        threads = 1
        cgroup = "off"
        [devices]
        nvml = "off"
        poll_interval = "1s"
        answer_timeout = "1s"
        headroom = "1MiB"
        release_timeout = "1s"
        measured = "other"
        [repository]
        paths = ["other"]
        startup = "none"
        required = []
        required_timeout = "1s"
        follow_symlinks = true
        [worker]
        instances = 2
        threads = 2
        slots = 2
        slot_size = "1MiB"
        queue = 2
        load_timeout = "1s"
        infer_timeout = "1s"
        drain_timeout = "1s"
        stop_timeout = "1s"
        handshake_timeout = "1s"
        idle_timeout = "1s"
        start = "exec"
        confinement = "none"
        memory_limit = "1GiB"
        cpu_limit = 1.5
        cpu_weight = 2
        max_processes = 8
        max_descriptors = 64
        scratch_limit = "none"
        gpu_memory_limit = "1GiB"
        gpu_soft_limit = 0.5
        gpu_segments = "expandable"
        gpu_spread = 2
        poison_after = 5
        poison_ttl = "1s"
        log_lines_per_second = 1
        log_line_bytes = 64
        log_tail_lines = 1
        [restart]
        max_restarts = 1
        window = "2s"
        reset_after = "2s"
        no_retry_on = ["hang"]
        on_oom = "stop"
        [restart.backoff]
        initial = "1s"
        factor = 3
        max = "2s"
        jitter = 0.5
        [shutdown]
        grace = "2s"
        drain_timeout = "1s"
    "#;

    fn load(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), &[]).unwrap()
    }

    fn keys<'a>(changes: impl IntoIterator<Item = &'a Change>) -> BTreeSet<&'a str> {
        changes.into_iter().map(|change| change.key.as_str()).collect()
    }

    #[test]
    fn what_needs_a_restart_stays_and_all_else_changes() {
        let (old, new) = (load(""), load(OTHER));
        let all = Diff::between(&old, &new);
        let every: BTreeSet<String> = schema::all_keys().into_iter().collect();
        assert_eq!(keys(&all.changes), every.iter().map(String::as_str).collect());
        let holds = old.reloaded(&new);
        let (done, left) = (Diff::between(&old, &holds), Diff::between(&holds, &new));
        let (restart, live): (Vec<&Change>, Vec<&Change>) =
            all.changes.iter().partition(|change| change.effect == Effect::Server);
        assert_eq!(keys(&done.changes), keys(live));
        assert_eq!(keys(&left.changes), keys(restart));
        assert_eq!(holds.reloaded(&new), holds);
    }

    #[test]
    fn a_model_adopts_what_holds_without_new_workers_and_nothing_else() {
        let (old, new) = (load(""), load(OTHER));
        assert_eq!(old.defaults.effect_of(&old.defaults), None);
        assert_eq!(old.defaults.effect_of(&new.defaults), Some(Effect::Workers));
        let mut adopted = old.defaults.clone();
        adopted.adopt_live(&new.defaults);
        assert_eq!(old.defaults.effect_of(&adopted), Some(Effect::Live));
        let (before, after) = (flat::model_entries(&adopted), flat::model_entries(&new.defaults));
        for (adopted, new) in before.iter().zip(&after) {
            assert_eq!(adopted.value == new.value, new.effect == Effect::Live, "{}", new.key);
        }
    }

    #[test]
    fn one_model_is_taken_from_a_new_configuration_and_the_rest_is_not() {
        let old = load("[worker]\nslots = 3\n[models.a]\nslots = 4\n[models.b]\nslots = 5");
        let new =
            load("[worker]\nslots = 9\nqueue = 9\n[models.a]\nslots = 6\n[models.b]\nslots = 7");
        let name = |name: &str| ModelName::new(name).unwrap();
        let with = old.with_model_of(&new, &name("a"));
        assert_eq!(with.model(&name("a")), new.model(&name("a")));
        assert_eq!(with.model(&name("b")), old.model(&name("b")));
        assert_eq!(with.with_model_of(&old, &name("a")), old);
        // One without a section has the new defaults, and alone.
        let with = old.with_model_of(&new, &name("c"));
        assert_eq!(with.model(&name("c")).worker.slots, 9);
        assert_eq!(with.model(&name("d")).worker.slots, 3);
    }
}
