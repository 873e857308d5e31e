//! What a rule finds.

use std::fmt;

use crate::source::Source;

#[derive(Debug)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    pub(crate) message: String,
}

impl Violation {
    pub(crate) fn new(source: &Source, line: usize, message: String) -> Self {
        Self { path: source.path.clone(), line, message }
    }

    pub(crate) fn of_file(path: &str, message: String) -> Self {
        Self { path: path.to_owned(), line: 1, message }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}
