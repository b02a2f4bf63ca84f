//! How to reach a running platform: `endpoint.json` in its state directory, private to its user.
//!
//! The server keeps the file locked while it lives. A file that nobody holds is of a server that was killed, and is
//! removed by whoever finds it.

use crate::error::Error;
use crate::sandbox::Tier;
use crate::state::{Lock, StateDir, read_json, write_json};
use crate::wire;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A running local platform.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `http://127.0.0.1:<port>/api/v1`
    pub api_url: String,
    /// The bearer key. Secret; not shown by `Debug`.
    pub api_key: String,
    /// Where to connect for SSH over TLS, whatever the VM's name resolves to.
    pub ssh_addr: SocketAddr,
    /// VMs are `<id>.<domain>`, their ports `<port>--<id>.<domain>`: names for TLS, not for DNS.
    pub domain: String,
    /// The authority to trust for these names.
    pub ca_pem: PathBuf,
    /// How strongly VMs are fenced.
    pub tier: Tier,
    /// The server's process.
    pub pid: u32,
    /// RFC 3339.
    pub started_at: String,
    /// Of the server.
    pub version: String,
    /// The state directory.
    pub state_dir: PathBuf,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("api_url", &self.api_url)
            .field("ssh_addr", &self.ssh_addr)
            .field("domain", &self.domain)
            .field("tier", &self.tier)
            .field("pid", &self.pid)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Where the REST API listens.
    pub(crate) fn api_addr(&self) -> Option<SocketAddr> {
        self.api_url
            .strip_prefix("http://")?
            .split('/')
            .next()?
            .parse()
            .ok()
    }

    /// Sends a request to the running server.
    pub(crate) async fn call<B: Serialize, T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&B>,
        within: Duration,
    ) -> Result<T, Error> {
        let unreachable = |why: String| Error::Unreachable {
            address: self.api_url.clone(),
            why,
        };
        let address = self
            .api_addr()
            .ok_or_else(|| unreachable("its address is malformed".into()))?;
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|e| unreachable(e.to_string()))?,
            None => Vec::new(),
        };
        let request = wire::Request {
            method,
            path,
            key: &self.api_key,
            body: &body,
        };
        let (status, answer) = wire::send(address, &request, within)
            .await
            .map_err(|e| unreachable(e.to_string()))?;
        if status != 200 {
            let text = String::from_utf8_lossy(&answer);
            return Err(unreachable(format!(
                "{method} {path}: status {status}: {}",
                text.chars().take(300).collect::<String>()
            )));
        }
        serde_json::from_slice(&answer).map_err(|e| unreachable(format!("{method} {path}: {e}")))
    }

    /// Writes the file and holds it.
    pub(crate) fn publish(&self, state: &StateDir) -> Result<Lock, Error> {
        let path = state.path("endpoint.json");
        let new = state.path("endpoint.json.new");
        // Held before it has its name: who finds it finds it held.
        write_json(&new, self)?;
        let file = File::open(&new).map_err(Error::file("open", &new))?;
        let held = Lock::hold(file).map_err(Error::file("lock", &new))?;
        std::fs::rename(&new, &path).map_err(Error::file("write", &path))?;
        Ok(held)
    }
}

/// The platform running on a state directory, if one is: its file is held by its process and `/health` answers. A file
/// left by a killed server is removed.
///
/// # Errors
/// [`Error::Unreachable`] when a server holds the file and does not answer; [`Error::File`], [`Error::Damaged`].
pub async fn find(state_dir: &Path) -> Result<Option<Endpoint>, Error> {
    let path = state_dir.join("endpoint.json");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::file("open", &path)(e)),
    };
    if !Lock::is_held(&file) {
        remove_stale(state_dir, &path)?;
        return Ok(None);
    }
    let endpoint: Endpoint = read_json(&path)?;
    let _: serde_json::Value = endpoint
        .call::<(), _>("GET", "/health", None, Duration::from_secs(10))
        .await?;
    Ok(Some(endpoint))
}

fn remove_stale(state_dir: &Path, path: &Path) -> Result<(), Error> {
    // A server that is starting has the lock, and will write its own file over this one.
    let Some(_lock) = Lock::try_take(&state_dir.join("lock"))? else {
        return Ok(());
    };
    match File::open(path) {
        Ok(file) if !Lock::is_held(&file) => crate::state::remove(path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;

    fn endpoint(state: &StateDir) -> Endpoint {
        Endpoint {
            api_url: "http://127.0.0.1:1/api/v1".into(),
            api_key: "secret".into(),
            ssh_addr: ([127, 0, 0, 1], 2).into(),
            domain: "vm.localhost".into(),
            ca_pem: state.path("ca.pem"),
            tier: Tier::Sandbox,
            pid: 1,
            started_at: String::new(),
            version: String::new(),
            state_dir: state.root().to_owned(),
        }
    }

    #[tokio::test]
    async fn a_file_that_nobody_holds_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(find(dir.path()).await.unwrap().is_none());
        let state = StateDir::create(dir.path()).unwrap();
        let held = endpoint(&state).publish(&state).unwrap();
        // Held, but nothing listens there: that is no "not running".
        assert!(matches!(
            find(dir.path()).await,
            Err(Error::Unreachable { .. })
        ));
        drop(held);
        assert!(find(dir.path()).await.unwrap().is_none());
        assert!(!state.path("endpoint.json").exists());
    }

    #[test]
    fn the_key_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path()).unwrap();
        assert!(!format!("{:?}", endpoint(&state)).contains("secret"));
    }
}
