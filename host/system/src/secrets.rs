//! Secrets (signatures first; the bodies follow).
use std::borrow::Cow;

/// The one place that holds secrets; share it in an `Arc`.
#[derive(Debug, Default)]
pub struct Secrets(());

/// One value, wiped when dropped; `Debug` shows nothing.
#[derive(Debug, Clone)]
pub struct Secret(());

impl Secret {
    /// The value itself.
    pub fn expose(&self) -> &str {
        unimplemented!()
    }
}

impl Secrets {
    /// None held yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// Those of the names that are set.
    pub fn from_env<I, S>(_names: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        unimplemented!()
    }
    /// Replaces a value of the same name (the old one goes on being redacted).
    pub fn insert(&self, _name: &str, _value: String) {
        unimplemented!()
    }
    /// The value by name.
    pub fn get(&self, _name: &str) -> Option<Secret> {
        unimplemented!()
    }
    /// The names, sorted.
    pub fn names(&self) -> Vec<String> {
        unimplemented!()
    }
    /// The text without any held value.
    pub fn redact<'t>(&self, _text: &'t str) -> Cow<'t, str> {
        unimplemented!()
    }
}
