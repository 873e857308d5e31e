//! The library stays loaded once it is: Rust's runtime in it is called when a thread ends that has been in
//! there, after whoever loaded it may have let go of it.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
