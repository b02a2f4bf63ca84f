//! The store (signatures first; the bodies follow). Values are JSON texts, handed back exactly as they were set.
use crate::Error;
use std::path::Path;

/// One extension's space. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(());

impl Store {
    /// `dir` is made (0700) if missing; `max_bytes` bounds the sum of keys and values.
    pub fn open(_dir: &Path, _extension: &str, _max_bytes: u64) -> Result<Self, Error> {
        unimplemented!()
    }
    /// The value, if there is one.
    pub async fn get(&self, _key: &str) -> Result<Option<String>, Error> {
        unimplemented!()
    }
    /// Durable when it returns.
    pub async fn set(&self, _key: &str, _value: &str) -> Result<(), Error> {
        unimplemented!()
    }
    /// No error if there is none.
    pub async fn delete(&self, _key: &str) -> Result<(), Error> {
        unimplemented!()
    }
    /// Sorted.
    pub async fn keys(&self, _prefix: &str) -> Result<Vec<String>, Error> {
        unimplemented!()
    }
    /// Compares as JSON values; says whether it was `old`.
    pub async fn swap(
        &self,
        _key: &str,
        _old: Option<&str>,
        _new: Option<&str>,
    ) -> Result<bool, Error> {
        unimplemented!()
    }
}
