//! The worker whose engines need no framework.

use worker::Program;

fn main() {
    worker::run(&Program { engines: &[("echo", worker::engine::echo::load)], warm: || Ok(()) })
}
