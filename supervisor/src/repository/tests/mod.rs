//! Texts of `config.pbtxt` and repositories on disk.

mod disk;
mod texts;
