//! The worker that runs TorchScript models.

use worker::Program;

fn main() {
    worker::run(&Program { engines: &[("pytorch", engine_torch::load)], warm: engine_torch::warm })
}
