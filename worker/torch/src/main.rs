//! The worker that runs TorchScript models.

fn main() -> std::process::ExitCode {
    worker::run(&[("pytorch", engine_torch::load)])
}
