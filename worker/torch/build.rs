//! Compiles the shim against libtorch's headers, and lets the binaries find libtorch: beside them, where an
//! installation puts it, and where the build found it, unless they are built for other machines
//! (`BULKHEAD_FOR_OTHERS`). Both are a RUNPATH, so that `LD_LIBRARY_PATH` still wins.

use std::path::PathBuf;

fn main() {
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch is");
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/libtorch");
    println!("cargo::rerun-if-env-changed=BULKHEAD_FOR_OTHERS");
    if std::env::var_os("BULKHEAD_FOR_OTHERS").is_none() {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    }
    println!("cargo::rerun-if-changed=shim");
    let include = PathBuf::from(&lib).parent().expect("lib lies in a folder").join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(1)
        .debug(false)
        // Headers of libtorch are not ours to clean.
        .flag("-isystem")
        .flag(&include)
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include"))
        .file("shim/shim.cc")
        .file("shim/device.cc")
        .file("shim/define.cc")
        .file("shim/warm.cc")
        .compile("bulkhead_torch_shim");
}
