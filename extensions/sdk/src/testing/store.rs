//! The store: a map.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Kit;
use super::world::{wait_for, world};
use crate::Error;

#[derive(Default)]
pub(crate) struct Store {
    pub(crate) values: BTreeMap<String, String>,
}

fn is_json(value: &str) -> Result<(), Error> {
    let parsed = serde_json::from_str::<serde::de::IgnoredAny>(value);
    parsed
        .map(drop)
        .map_err(|why| Error::Invalid(format!("the value is no JSON: {why}")))
}

/// The value, if there is one.
pub async fn get(key: String) -> Result<Option<String>, Error> {
    wait_for("store.get", json!({ "key": key })).await?;
    Ok(world(|world| world.store.values.get(&key).cloned()))
}

/// Sets a value.
pub async fn set(key: String, value: String) -> Result<(), Error> {
    wait_for("store.set", json!({ "key": key, "value": value })).await?;
    is_json(&value)?;
    world(|world| world.store.values.insert(key, value));
    Ok(())
}

/// Removes a value; no error if there is none.
pub async fn delete(key: String) -> Result<(), Error> {
    wait_for("store.delete", json!({ "key": key })).await?;
    world(|world| world.store.values.remove(&key));
    Ok(())
}

/// The keys that begin with this, sorted.
pub async fn keys(prefix: String) -> Result<Vec<String>, Error> {
    wait_for("store.keys", json!({ "prefix": prefix })).await?;
    Ok(world(|world| {
        world
            .store
            .values
            .keys()
            .filter(|key| key.starts_with(&prefix))
            .cloned()
            .collect()
    }))
}

/// Sets the value only if it is still `old`; says whether it was.
pub async fn swap(key: String, old: Option<String>, new: Option<String>) -> Result<bool, Error> {
    wait_for("store.swap", json!({ "key": key, "old": old, "new": new })).await?;
    if let Some(new) = &new {
        is_json(new)?;
    }
    Ok(world(|world| {
        let is_same = world.store.values.get(&key) == old.as_ref();
        if is_same {
            match new {
                Some(new) => world.store.values.insert(key, new),
                None => world.store.values.remove(&key),
            };
        }
        is_same
    }))
}

impl Kit {
    /// What the store has under this key.
    #[must_use]
    pub fn stored(&self, key: &str) -> Option<Value> {
        world(|world| {
            world
                .store
                .values
                .get(key)
                .and_then(|text| serde_json::from_str(text).ok())
        })
    }

    /// Puts a value into the store, as an earlier session might have.
    pub fn store(&self, key: &str, value: &Value) {
        world(|world| world.store.values.insert(key.into(), value.to_string()));
    }
}
