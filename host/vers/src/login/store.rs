//! Keeping the key where all Vers tools look, without touching what else is there.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::secret::Secret;

const KEYS: &str = "keys.json";
const CONFIG: &str = "config.json";

/// Fails if the key could not be kept.
pub(super) async fn check(directory: &Path) -> Result<()> {
    blocking(directory, |directory| {
        prepare(directory)?;
        read(&directory.join(KEYS))?;
        read(&directory.join(CONFIG)).map(drop)
    })
    .await
}

/// Adds the key to both files, or replaces it there.
pub(super) async fn keep(directory: &Path, key: &Secret) -> Result<()> {
    let key = key.clone();
    blocking(directory, move |directory| {
        prepare(directory)?;
        let value = || Value::String(key.expose().to_owned());
        let path = directory.join(KEYS);
        let mut file = read(&path)?;
        match file
            .entry("keys")
            .or_insert_with(|| Value::Object(Map::new()))
        {
            Value::Object(keys) => keys.insert("VERS_API_KEY".into(), value()),
            other => {
                *other = serde_json::json!({ "VERS_API_KEY": value() });
                None
            }
        };
        write(&path, &file)?;
        let path = directory.join(CONFIG);
        let mut file = read(&path)?;
        for name in ["api_key", "versApiKey"] {
            file.insert(name.into(), value());
        }
        write(&path, &file)
    })
    .await
}

async fn blocking(
    directory: &Path,
    work: impl FnOnce(&Path) -> Result<()> + Send + 'static,
) -> Result<()> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || work(&directory))
        .await
        .unwrap_or_else(|_| Err(Error::other("keep the API key: broken off")))
}

fn failed(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::other(format!(
        "keep the API key in {}: {why}; repair it, or set VERS_API_KEY instead",
        path.display()
    ))
}

fn prepare(directory: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .and_then(|()| std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)))
        .map_err(|e| failed(directory, e))
}

/// What is there; nothing if there is no file. A file that is not understood is not overwritten.
fn read(path: &Path) -> Result<Map<String, Value>> {
    match std::fs::read(path) {
        Ok(text) if text.iter().all(u8::is_ascii_whitespace) => Ok(Map::new()),
        Ok(text) => {
            serde_json::from_slice(&text).map_err(|_| failed(path, "it is not a JSON object"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(failed(path, error)),
    }
}

fn write(path: &Path, file: &Map<String, Value>) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let replace = || -> std::io::Result<()> {
        // A temporary file has mode 0600.
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        let text = zeroize::Zeroizing::new(serde_json::to_vec_pretty(file)?);
        temporary.write_all(&text)?;
        temporary.write_all(b"\n")?;
        temporary.as_file().sync_all()?;
        temporary.persist(path)?;
        Ok(())
    };
    replace().map_err(|e| failed(path, e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn other_tools_settings_survive_a_login() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".vers");
        keep(&directory, &"first".into()).await.unwrap();
        let (keys, config) = (directory.join(KEYS), directory.join(CONFIG));
        std::fs::write(
            &config,
            r#"{"update_check":{"last_check":1},"api_key":"old"}"#,
        )
        .unwrap();
        std::fs::write(&keys, r#"{"keys":{"OTHER":"x"},"more":[1]}"#).unwrap();
        std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o644)).unwrap();
        check(&directory).await.unwrap();
        keep(&directory, &"second".into()).await.unwrap();
        let json =
            |path: &Path| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(
            json(&keys),
            serde_json::json!({"keys":{"OTHER":"x","VERS_API_KEY":"second"},"more":[1]})
        );
        assert_eq!(
            json(&config),
            serde_json::json!({"update_check":{"last_check":1},"api_key":"second","versApiKey":"second"})
        );
        for path in [&keys, &config] {
            assert_eq!(
                std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert_eq!(
            std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777,
            0o700
        );
        // What is not understood is left alone, and told before a key is made.
        std::fs::write(&keys, "{broken").unwrap();
        assert!(check(&directory).await.is_err());
        assert!(keep(&directory, &"third".into()).await.is_err());
        assert_eq!(std::fs::read(&keys).unwrap(), b"{broken");
    }
}
