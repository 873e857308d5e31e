//! The worker whose engines need no framework.

fn main() -> std::process::ExitCode {
    worker::run(&[("echo", worker::engine::echo::load)])
}
