//! The harness of the end-to-end tests: it starts the real server with real workers.
//!
//! - [`supervisor`]: a server of the test's own, in a temporary folder, on a free port.
//! - [`models`]: its model repository.
//! - [`admin`]: its operators, on their socket and at a prompt.
//! - [`client`]: HTTP to it, down to single bytes; [`aside`]: on a thread of its own.
//! - [`load`]: steady requests beside what a test does.
//! - [`workers`]: its worker processes, as `/proc` shows them.
//! - [`holdings`]: what it holds for them: nothing more after a fault than before.
//! - [`peak`]: the most memory that it has meanwhile.
//! - [`logs`]: what it says.
//! - [`browser`]: a headless Chromium for the status page.
//! - [`cgroups`]: what holds its workers.
//! - [`fake_nvml`]: GPUs for it that are not there.
//! - [`machine`]: a systemd of the test's own, to install it on.
//! - [`scrape`]: its metrics.
//! - [`skip`]: tests that need something that is not there.
//! - [`wait`]: the only place where time passes: conditions with a watchdog.
//!
//! The tests are one file a topic beside this folder. A test that needs something that is not
//! there prints its name and what is missing, and passes ([`skipped`]).
//!
//! The harness panics with a reason where the server could not be started or observed; what is
//! under test it hands back.

pub mod admin;
pub mod aside;
pub mod browser;
pub mod cgroups;
pub mod client;
mod connections;
pub mod fake_nvml;
pub mod holdings;
pub mod load;
pub mod logs;
pub mod machine;
pub mod models;
pub mod peak;
pub mod scrape;
pub mod skip;
pub mod supervisor;
pub mod wait;
pub mod workers;

pub use admin::{Operator, Prompt};
pub use aside::Aside;
pub use browser::{Browser, Look};
pub use client::{Client, Infer, Response};
pub use fake_nvml::{FakeDevice, FakeNvml, Machine, Release};
pub use holdings::Holdings;
pub use load::Load;
pub use models::{Echo, Repository};
pub use peak::Peak;
pub use scrape::Scrape;
pub use skip::{
    another_user_or_skip, another_user_with_torch_or_skip, folder_or_skip, holds_or_skip, say,
    skipped, strict_or_skip, torch_or_skip,
};
pub use supervisor::Supervisor;
