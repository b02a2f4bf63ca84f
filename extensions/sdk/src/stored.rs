//! Values of the extension's store as types.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::system::store;

/// How often [`update`] tries again when others change the value at the same time.
const TRIES: u32 = 16;

fn read<T: DeserializeOwned>(key: &str, text: Option<&str>) -> Result<Option<T>, Error> {
    let parsed = text.map(serde_json::from_str).transpose();
    parsed.map_err(|why| {
        Error::Invalid(format!(
            "what the store has under {key} does not fit: {why}"
        ))
    })
}

fn write<T: Serialize>(key: &str, value: &T) -> Result<String, Error> {
    let written = serde_json::to_string(value);
    written.map_err(|why| {
        Error::Invalid(format!(
            "what is to be stored under {key} is no JSON: {why}"
        ))
    })
}

/// The value under this key, if there is one.
///
/// # Errors
/// The store's; `Error::Invalid` when it is of another shape.
pub async fn get<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    read(key, store::get(key.into()).await?.as_deref())
}

/// Sets the value under this key. It is durable when this returns.
///
/// # Errors
/// The store's.
pub async fn set<T: Serialize>(key: &str, value: &T) -> Result<(), Error> {
    store::set(key.into(), write(key, value)?).await
}

/// Changes the value under this key in one step, also where other calls and other sessions change it; returns what it is now. Where there is
/// none, it begins with the default. `change` may run more than once.
///
/// # Errors
/// The store's; `Error::Invalid` when what is there is of another shape; `Error::Conflict` when others change it without a pause.
pub async fn update<T: Default + Serialize + DeserializeOwned>(
    key: &str,
    change: impl Fn(&mut T),
) -> Result<T, Error> {
    for _ in 0..TRIES {
        let old = store::get(key.into()).await?;
        let mut value: T = read(key, old.as_deref())?.unwrap_or_default();
        change(&mut value);
        if store::swap(key.into(), old, Some(write(key, &value)?)).await? {
            return Ok(value);
        }
    }
    Err(Error::Conflict(format!(
        "what the store has under {key} is changed all the time"
    )))
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::declare::{Declaration, Nothing, tool};
    use crate::testing::{Kit, read as shown};
    use crate::{ToolCall, ToolError};
    use serde_json::json;

    #[test]
    fn changes_at_once_are_all_made() {
        let count = async |_: &ToolCall, _: Nothing| {
            let all: Vec<u32> = update("all", |all: &mut Vec<u32>| all.push(1)).await?;
            Ok::<_, ToolError>(all.len().to_string())
        };
        let kit =
            Kit::new(Declaration::new("x", "1", "X").tool(tool("it", "It", "Counts."), count));
        kit.hold("store.swap");
        let (one, two) = (kit.begin("it", json!({})), kit.begin("it", json!({})));
        kit.release("store.swap");
        let told = [shown(&one.finish()), shown(&two.finish())];
        assert_eq!(told, ["1", "2"]);
        assert_eq!(kit.stored("all"), Some(json!([1, 1])));
        kit.store("all", &json!("other"));
        let why = shown(&kit.call("it", json!({})));
        assert!(why.contains("under all does not fit"), "{why}");
    }
}
