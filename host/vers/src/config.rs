//! Where the platform is and who we are: settings from overrides, the environment and the files that the Vers tools
//! share.
//!
//! Two clients of the platform read the same variable in two ways: `VERS_BASE_URL` is written with and without
//! `/api/v1`. Both are accepted. The API key is looked up again for every request, so that a login in another
//! process takes effect at once. Its sources, first hit wins:
//!
//! 1. an override (a flag of the caller)
//! 2. `VERS_API_KEY`
//! 3. `<versHome>/keys.json` (`{"keys":{"VERS_API_KEY":"…"}}`)
//! 4. `<versHome>/config.json` (`versApiKey`, then `api_key`)
//! 5. `~/.vers/keys.json`, then `~/.vers/config.json`, likewise
//!
//! where `<versHome>` is `VERS_HOME`, or `vers` beside the directory that `PI_CODING_AGENT_DIR` names (default
//! `~/.pi/agent`). A file that is missing or malformed counts as empty: other tools write them too.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::{Host, Url};

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// The API of the platform, unless said otherwise.
pub const DEFAULT_BASE_URL: &str = "https://api.vers.sh/api/v1";

const API_PATH: &str = "/api/v1";
/// Key files are small; a huge one is not ours.
const MAX_KEY_FILE: u64 = 1 << 20;

/// Environment variables, of this process or (in tests and embeddings) of a given map.
#[derive(Clone)]
pub struct Environment(Arc<Lookup>);

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

impl Environment {
    /// The variables of this process, read at each look.
    pub fn process() -> Self {
        Self(Arc::new(|name| std::env::var(name).ok()))
    }

    /// Exactly these variables.
    pub fn of<K: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let map: HashMap<String, String> = variables
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        Self(Arc::new(move |name| map.get(name).cloned()))
    }

    /// The value of a variable; an empty or blank one counts as unset.
    pub fn get(&self, name: &str) -> Option<String> {
        (self.0)(name)
            .map(|v| v.trim().to_owned())
            .filter(|v| !v.is_empty())
    }

    fn home(&self) -> Option<PathBuf> {
        self.get("HOME")
            .or_else(|| self.get("USERPROFILE"))
            .map(PathBuf::from)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.get(name)?;
        match (value.strip_prefix('~'), self.home()) {
            (Some(""), Some(home)) => Some(home),
            (Some(rest), Some(home)) if rest.starts_with(['/', '\\']) => {
                Some(home.join(rest.trim_start_matches(['/', '\\'])))
            }
            _ => Some(PathBuf::from(value)),
        }
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::process()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment(…)")
    }
}

/// What the caller lays down; each wins over its environment variable.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The API key, for example of a `--vers-api-key` flag.
    pub api_key: Option<Secret>,
    /// The API's base URL, with or without `/api/v1`.
    pub base_url: Option<String>,
    /// The domain below which VMs answer (`VERS_VM_DOMAIN`).
    pub vm_domain: Option<String>,
    /// Where to dial instead of `<vm>.<domain>:443` (`VERS_VM_CONNECT`); TLS still asks for that name.
    pub vm_connect: Option<SocketAddr>,
    /// A PEM file of certificates to trust besides the system's (`VERS_TLS_CA`).
    pub tls_ca: Option<PathBuf>,
    /// Accept any TLS certificate (`VERS_INSECURE_TLS=1`).
    pub insecure_tls: Option<bool>,
}

/// How certificates are verified.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    /// A PEM file of certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// Verify nothing. Whoever is on the path can then read everything but what SSH host keys protect.
    pub insecure: bool,
}

/// Where the platform is, and how to be let in.
#[derive(Debug, Clone)]
pub struct Settings {
    base_url: Url,
    vm_domain: String,
    vm_connect: Option<SocketAddr>,
    tls: TlsSettings,
    api_key: Option<Secret>,
    environment: Environment,
}

impl Settings {
    /// Reads the settings: overrides first, then the environment, then defaults. Opens no file.
    ///
    /// # Errors
    /// [`Kind::Invalid`] names the setting that is malformed.
    pub fn discover(environment: Environment, overrides: Overrides) -> Result<Self> {
        let base = overrides
            .base_url
            .filter(|url| !url.trim().is_empty())
            .or_else(|| environment.get("VERS_BASE_URL"))
            .or_else(|| environment.get("VERS_URL"))
            .unwrap_or_else(|| DEFAULT_BASE_URL.to_owned());
        let base_url = base_url(&base)?;
        let vm_domain = match overrides
            .vm_domain
            .or_else(|| environment.get("VERS_VM_DOMAIN"))
        {
            Some(domain) => checked_domain(&domain)?,
            None => vm_domain(&base_url),
        };
        let vm_connect = match (overrides.vm_connect, environment.get("VERS_VM_CONNECT")) {
            (Some(address), _) => Some(address),
            (None, Some(text)) => Some(text.parse().map_err(|_| {
                Error::invalid(format!("VERS_VM_CONNECT={text:?} is not an address; write ip:port, for example 127.0.0.1:2443"))
            })?),
            (None, None) => None,
        };
        let insecure = overrides.insecure_tls.unwrap_or_else(|| {
            environment
                .get("VERS_INSECURE_TLS")
                .is_some_and(|v| v == "1" || v == "true")
        });
        let tls = TlsSettings {
            ca: overrides.tls_ca.or_else(|| environment.path("VERS_TLS_CA")),
            insecure,
        };
        let api_key = overrides
            .api_key
            .filter(|key| !key.expose().trim().is_empty());
        Ok(Self {
            base_url,
            vm_domain,
            vm_connect,
            tls,
            api_key,
            environment,
        })
    }

    /// The API's base, always with its path, never with a slash at the end.
    pub fn base_url(&self) -> &Url {
        &self.base_url
    }

    /// The web site that logins go to: the API's host without `api.`.
    pub fn site_url(&self) -> Url {
        let mut site = self.base_url.clone();
        site.set_path("/");
        if let Some(host) = site
            .host_str()
            .and_then(|h| h.strip_prefix("api."))
            .map(str::to_owned)
        {
            // A host that was valid with a label in front is valid without it.
            let _ = site.set_host(Some(&host));
        }
        site
    }

    /// VMs answer at `<id>.<this>`.
    pub fn vm_domain(&self) -> &str {
        &self.vm_domain
    }

    /// The name of a VM, as TLS asks for it.
    pub fn vm_host(&self, vm: impl fmt::Display) -> String {
        format!("{vm}.{}", self.vm_domain)
    }

    /// Where to dial instead of the VM's own name.
    pub fn vm_connect(&self) -> Option<SocketAddr> {
        self.vm_connect
    }

    /// How certificates are verified.
    pub fn tls(&self) -> &TlsSettings {
        &self.tls
    }

    /// Whether the platform runs on this machine.
    pub fn is_local(&self) -> bool {
        is_loopback(&self.base_url)
    }

    /// The directory where the Vers tools keep their state beside the agent's; `None` without a home directory.
    pub fn vers_home(&self) -> Option<PathBuf> {
        self.environment.path("VERS_HOME").or_else(|| {
            let agent = self
                .environment
                .path("PI_CODING_AGENT_DIR")
                .or_else(|| Some(self.environment.home()?.join(".pi").join("agent")))?;
            Some(agent.parent().unwrap_or(Path::new("/")).join("vers"))
        })
    }

    /// `~/.vers`; `None` without a home directory.
    pub fn dot_vers(&self) -> Option<PathBuf> {
        Some(self.environment.home()?.join(".vers"))
    }

    /// `~/.ssh`; `None` without a home directory.
    pub fn dot_ssh(&self) -> Option<PathBuf> {
        Some(self.environment.home()?.join(".ssh"))
    }

    /// The environment these settings were read from.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The API key as it stands now (see the module's documentation for its sources).
    ///
    /// # Errors
    /// [`Kind::Unauthorized`] if no source has one. [`Kind::Invalid`] if it could not be sent in a header.
    pub async fn api_key(&self) -> Result<Secret> {
        let key = match self.find_api_key().await {
            Some(key) => key,
            None => {
                return Err(Error::new(
                    Kind::Unauthorized,
                    "there is no Vers API key: set VERS_API_KEY, or log in with `pi-vers login`",
                ));
            }
        };
        if key.expose().bytes().all(|b| b.is_ascii_graphic()) {
            Ok(key)
        } else {
            Err(Error::invalid(
                "the Vers API key holds characters that a key cannot have; copy it again, or log in with `pi-vers login`",
            ))
        }
    }

    async fn find_api_key(&self) -> Option<Secret> {
        if let Some(key) = &self.api_key {
            return Some(Secret::new(key.expose().trim()));
        }
        if let Some(key) = self.environment.get("VERS_API_KEY") {
            return Some(Secret::new(key));
        }
        for directory in [self.vers_home(), self.dot_vers()].into_iter().flatten() {
            if let Some(key) = key_in(&directory.join("keys.json"), keys_json).await {
                return Some(key);
            }
            if let Some(key) = key_in(&directory.join("config.json"), config_json).await {
                return Some(key);
            }
        }
        None
    }
}

async fn key_in(path: &Path, pick: fn(&serde_json::Value) -> Option<Secret>) -> Option<Secret> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    if !metadata.is_file() || metadata.len() > MAX_KEY_FILE {
        return None;
    }
    let text = zeroize::Zeroizing::new(tokio::fs::read(path).await.ok()?);
    match serde_json::from_slice(&text) {
        Ok(json) => pick(&json),
        Err(_) => {
            tracing::warn!(path = %path.display(), "not a JSON file; looking for the API key elsewhere");
            None
        }
    }
}

fn text_at(json: &serde_json::Value, name: &str) -> Option<Secret> {
    let text = json.get(name)?.as_str()?.trim();
    (!text.is_empty()).then(|| Secret::new(text))
}

fn keys_json(json: &serde_json::Value) -> Option<Secret> {
    text_at(json.get("keys")?, "VERS_API_KEY")
}

fn config_json(json: &serde_json::Value) -> Option<Secret> {
    text_at(json, "versApiKey").or_else(|| text_at(json, "api_key"))
}

/// Both spellings of the base URL made one: `https://host[/prefix]/api/v1`.
fn base_url(text: &str) -> Result<Url> {
    let bad = |why: &str| {
        Error::invalid(format!(
            "the Vers base URL {:?} {why}; write it like {DEFAULT_BASE_URL}",
            crate::error::shown(text)
        ))
    };
    let mut url = Url::parse(text.trim()).map_err(|_| bad("is not a URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::invalid(
            "the Vers base URL holds a user name or password; the API key is the only credential",
        ));
    }
    match url.scheme() {
        "https" => {}
        // The key would cross the network for everyone to read.
        "http" if is_loopback(&url) => {}
        "http" => {
            return Err(bad(
                "is not encrypted, which is accepted for this machine only",
            ));
        }
        _ => return Err(bad("is neither https nor http")),
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/');
    let path = if path.ends_with(API_PATH) {
        path.to_owned()
    } else {
        format!("{path}{API_PATH}")
    };
    url.set_path(&path);
    Ok(url)
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// `api.X` has its VMs at `vm.X`; an API without that label, or with an address for a name, beside itself.
fn vm_domain(base: &Url) -> String {
    match base.host() {
        Some(Host::Domain(name)) => format!("vm.{}", name.strip_prefix("api.").unwrap_or(name)),
        _ => "vm.localhost".to_owned(),
    }
}

fn checked_domain(text: &str) -> Result<String> {
    let domain = text.trim().trim_matches('.').to_ascii_lowercase();
    let label = |l: &str| {
        !l.is_empty() && l.len() < 64 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if domain.split('.').all(label) {
        Ok(domain)
    } else {
        Err(Error::invalid(format!(
            "VERS_VM_DOMAIN={text:?} is not a domain name; write it like vm.vers.sh"
        )))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::discover(
            Environment::of(variables.iter().copied()),
            Overrides::default(),
        )
    }

    #[test]
    fn both_spellings_of_the_base_url_mean_the_same() {
        for text in [
            "https://api.vers.sh",
            "https://api.vers.sh/",
            "https://api.vers.sh/api/v1",
            " https://api.vers.sh/api/v1/// ",
        ] {
            assert_eq!(
                settings(&[("VERS_BASE_URL", text)])
                    .unwrap()
                    .base_url()
                    .as_str(),
                DEFAULT_BASE_URL,
                "{text}"
            );
        }
        assert_eq!(
            settings(&[("VERS_URL", "https://x/y")])
                .unwrap()
                .base_url()
                .as_str(),
            "https://x/y/api/v1"
        );
        assert_eq!(settings(&[]).unwrap().base_url().as_str(), DEFAULT_BASE_URL);
        assert_eq!(
            settings(&[("VERS_BASE_URL", "  ")])
                .unwrap()
                .base_url()
                .as_str(),
            DEFAULT_BASE_URL
        );
    }

    #[test]
    fn a_key_never_travels_in_clear_text_to_another_machine() {
        assert_eq!(
            settings(&[("VERS_BASE_URL", "http://api.vers.sh")])
                .unwrap_err()
                .kind(),
            Kind::Invalid
        );
        for local in [
            "http://127.0.0.1:9",
            "http://[::1]:9",
            "http://localhost:9",
            "http://api.localhost",
        ] {
            assert!(
                settings(&[("VERS_BASE_URL", local)]).unwrap().is_local(),
                "{local}"
            );
        }
        let error = settings(&[("VERS_BASE_URL", "https://me:hunter2@api.vers.sh")]).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn the_vm_domain_follows_the_api_host() {
        let domain = |base: &str| {
            settings(&[("VERS_BASE_URL", base)])
                .unwrap()
                .vm_domain()
                .to_owned()
        };
        assert_eq!(domain("https://api.vers.sh"), "vm.vers.sh");
        assert_eq!(domain("https://api.staging.vers.sh"), "vm.staging.vers.sh");
        assert_eq!(domain("http://127.0.0.1:8080"), "vm.localhost");
        assert_eq!(domain("https://vers.example"), "vm.vers.example");
        let s = settings(&[
            ("VERS_VM_DOMAIN", "vm.lab.example."),
            ("VERS_VM_CONNECT", "127.0.0.1:22443"),
        ])
        .unwrap();
        assert_eq!(s.vm_host("x"), "x.vm.lab.example");
        assert_eq!(s.vm_connect().unwrap().port(), 22443);
        assert_eq!(
            settings(&[("VERS_VM_DOMAIN", "a b")]).unwrap_err().kind(),
            Kind::Invalid
        );
        assert_eq!(
            settings(&[("VERS_VM_CONNECT", "here")]).unwrap_err().kind(),
            Kind::Invalid
        );
        assert_eq!(
            settings(&[]).unwrap().site_url().as_str(),
            "https://vers.sh/"
        );
    }

    #[tokio::test]
    async fn the_key_is_looked_up_in_the_documented_order_and_afresh() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let s = settings(&[("HOME", home)]).unwrap();
        assert_eq!(s.api_key().await.unwrap_err().kind(), Kind::Unauthorized);
        write(
            ".vers/config.json",
            r#"{"api_key":"five","update_check":{}}"#,
        );
        assert_eq!(s.api_key().await.unwrap().expose(), "five");
        write(
            ".vers/config.json",
            r#"{"api_key":"five","versApiKey":"4b"}"#,
        );
        assert_eq!(s.api_key().await.unwrap().expose(), "4b");
        write(".vers/keys.json", r#"{"keys":{"VERS_API_KEY":" four\n"}}"#);
        assert_eq!(s.api_key().await.unwrap().expose(), "four");
        write(".pi/vers/config.json", r#"{"api_key":"three"}"#);
        assert_eq!(s.api_key().await.unwrap().expose(), "three");
        write(".pi/vers/keys.json", "not json");
        assert_eq!(s.api_key().await.unwrap().expose(), "three");
        write(".pi/vers/keys.json", r#"{"keys":{"VERS_API_KEY":"two"}}"#);
        assert_eq!(s.api_key().await.unwrap().expose(), "two");
        write("else/keys.json", r#"{"keys":{"VERS_API_KEY":"elsewhere"}}"#);
        let s = settings(&[("HOME", home), ("VERS_HOME", "~/else")]).unwrap();
        assert_eq!(s.api_key().await.unwrap().expose(), "elsewhere");
        write(
            "agents/vers/keys.json",
            r#"{"keys":{"VERS_API_KEY":"beside"}}"#,
        );
        let s = settings(&[("HOME", home), ("PI_CODING_AGENT_DIR", "~/agents/agent")]).unwrap();
        assert_eq!(s.api_key().await.unwrap().expose(), "beside");
        let s = settings(&[("HOME", home), ("VERS_API_KEY", "one")]).unwrap();
        assert_eq!(s.api_key().await.unwrap().expose(), "one");
        let environment = Environment::of([("HOME", home), ("VERS_API_KEY", "one")]);
        let overrides = Overrides {
            api_key: Some("flag".into()),
            ..Default::default()
        };
        let s = Settings::discover(environment, overrides).unwrap();
        assert_eq!(s.api_key().await.unwrap().expose(), "flag");
        assert!(!format!("{s:?}").contains("flag"));
    }

    #[tokio::test]
    async fn a_key_that_no_header_can_carry_is_refused_unseen() {
        let error = settings(&[("VERS_API_KEY", "abc\ndef")])
            .unwrap()
            .api_key()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(!error.to_string().contains("abc"));
    }

    proptest! {
        #[test]
        fn any_base_url_is_refused_or_becomes_idempotent(text in "(https?://)?[a-z0-9.:\\[\\]/?#@-]{0,40}") {
            if let Ok(url) = base_url(&text) {
                prop_assert!(url.path().ends_with(API_PATH));
                prop_assert_eq!(base_url(url.as_str()).unwrap(), url);
            }
        }

        #[test]
        fn any_json_in_a_key_file_is_survived(text in "\\PC{0,80}") {
            if let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) {
                let _ = (keys_json(&json), config_json(&json));
            }
        }
    }
}
