//! Naming the step that failed, in the helper: the name travels to the caller and to the user.

use std::fmt;

/// A failed step: what was done, and why it did not work.
#[derive(Debug)]
pub(super) struct Failed(String);

pub(super) type Step<T> = Result<T, Failed>;

impl Failed {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Attaches the step to any error.
pub(super) trait Named<T> {
    fn named(self, what: impl FnOnce() -> String) -> Step<T>;
}

impl<T, E: fmt::Display> Named<T> for Result<T, E> {
    fn named(self, what: impl FnOnce() -> String) -> Step<T> {
        self.map_err(|e| Failed(format!("{}: {e}", what())))
    }
}
