//! Compiles `model_config.proto` in pure Rust: message types, and the descriptors with which the
//! text format is read.

use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;

const FILE: &str = "model_config.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={FILE}");
    let descriptors = protox::compile([FILE], ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("model_config.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
