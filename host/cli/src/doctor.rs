//! `pi-vers doctor`: is everything there that calls need? Each check says ✓, or ✗ and what to do.

use std::path::PathBuf;
use std::sync::Arc;

use pi_vers_host::Host;
use serde_json::json;
use vers_client::{Api, Settings};

use crate::args::Doctor;
use crate::failure::{Code, Failure};
use crate::terminal::{Style, Terminal};
use crate::{dirs, local, setup};

/// The checks, side by side with their results.
pub(crate) struct Checks {
    terminal: Arc<Terminal>,
    json: bool,
    worst: Code,
}

impl Checks {
    pub(crate) fn new(terminal: Arc<Terminal>, json: bool) -> Self {
        Self {
            terminal,
            json,
            worst: Code::Ok,
        }
    }

    /// The code of the first that failed.
    pub(crate) fn worst(&self) -> Code {
        self.worst
    }

    pub(crate) fn add(&mut self, name: &str, result: Result<String, Failure>) {
        let ok = result.is_ok();
        let (text, code) = match &result {
            Ok(text) => (text.clone(), Code::Ok),
            Err(failure) => (failure.line(), failure.code),
        };
        // The first that failed decides: the later ones may fail because of it.
        if self.worst == Code::Ok {
            self.worst = code;
        }
        if self.json {
            self.terminal
                .line(json!({ "check": name, "ok": ok, "text": text }).to_string());
        } else {
            let mark = if ok {
                self.terminal.styled(Style::Good, "✓")
            } else {
                self.terminal.styled(Style::Bad, "✗")
            };
            self.terminal.line(format!("{mark} {name:14} {text}"));
        }
    }
}

/// Checks it all.
pub(crate) async fn doctor(terminal: Arc<Terminal>, options: Doctor) -> Result<Code, Failure> {
    let mut checks = Checks::new(terminal, options.json);
    let shown = |path: PathBuf| format!("{} (private)", path.display());
    checks.add("state", dirs::state().map(shown));
    checks.add("cache", dirs::cache().map(shown));
    let policy = setup::policy(options.policy.as_deref());
    checks.add(
        "policy",
        policy
            .as_ref()
            .map(|_| policy_text(&options))
            .map_err(Clone::clone),
    );
    let settings = setup::settings();
    checks.add(
        "settings",
        settings.as_ref().map(settings_text).map_err(Clone::clone),
    );
    checks.add("engine", engine(policy.unwrap_or_default()).await);
    checks.add("local platform", local_platform().await);
    if let (Ok(settings), false) = (settings, options.offline) {
        platform(&mut checks, &settings).await;
    }
    Ok(checks.worst)
}

/// Whether there is a key, and whether the platform takes it.
pub(crate) async fn platform(checks: &mut Checks, settings: &Settings) {
    let key = settings.api_key().await;
    let has_key = key.is_ok();
    checks.add(
        "key",
        key.map(|_| format!("from {}", key_source(settings)))
            .map_err(Failure::from),
    );
    checks.add("platform", reach(settings, has_key).await);
}

fn policy_text(options: &Doctor) -> String {
    let file = setup::policy_file(options.policy.as_deref());
    let user = match file {
        Ok(file) if file.exists() => file.display().to_string(),
        Ok(file) => format!(
            "{} is not there: only the shipped grants hold",
            file.display()
        ),
        Err(failure) => failure.line(),
    };
    let project = std::path::Path::new("pi-vers.toml").exists();
    if project {
        format!("{user}, narrowed by ./pi-vers.toml")
    } else {
        user
    }
}

fn settings_text(settings: &Settings) -> String {
    let mut text = format!("{}, VMs at *.{}", settings.base_url(), settings.vm_domain());
    if let Some(address) = settings.vm_connect() {
        text = format!("{text} by way of {address}");
    }
    if let Some(ca) = &settings.tls().ca {
        text = format!("{text}, trusting {}", ca.display());
    }
    if settings.tls().insecure {
        text = format!("{text}, certificates are NOT verified (VERS_INSECURE_TLS)");
    }
    text
}

/// Loads every shipped extension: the engine, the cache and the components at once.
pub(crate) async fn engine(policy: pi_vers_host::policy::Policy) -> Result<String, Failure> {
    // Settings do not matter here; those of the environment may be wrong.
    let nowhere = Settings::discover(
        vers_client::Environment::of([("", ""); 0]),
        vers_client::Overrides::default(),
    )?;
    let host: Host = setup::host(policy, nowhere).await?;
    let begun = std::time::Instant::now();
    let extensions = setup::extensions(&host, &[]).await?;
    let cached = extensions
        .iter()
        .filter(|extension| extension.from_cache())
        .count();
    Ok(format!(
        "{} extension(s) loaded in {} ms, {cached} from the cache",
        extensions.len(),
        begun.elapsed().as_millis()
    ))
}

/// Whether a local platform runs, or else whether one could: by starting one in a directory of its own.
async fn local_platform() -> Result<String, Failure> {
    let state = dirs::local(None)?;
    if let Some(endpoint) = vers_local::find(&state).await? {
        return Ok(format!(
            "running at {} (tier {})",
            endpoint.api_url,
            local::tier(endpoint.tier)
        ));
    }
    let trial = tempfile::tempdir()
        .map_err(|why| Failure::internal(format!("cannot make a temporary directory: {why}")))?;
    let options = local::options(&trial.path().join("local"))?;
    let platform = vers_local::Platform::start(options).await?;
    let lines = local::capability_lines(platform.capabilities());
    platform.shutdown(vers_local::End::DestroyAll).await?;
    let notes: Vec<&str> = lines.iter().skip(1).map(|line| line.trim()).collect();
    let can = lines
        .first()
        .map(|line| line.trim_start_matches("tier").trim().to_owned())
        .unwrap_or_default();
    Ok(std::iter::once(format!("works here: {can}").as_str())
        .chain(notes)
        .collect::<Vec<_>>()
        .join("; "))
}

/// Where the key comes from, never the key: asks the same sources in the same order.
pub(crate) fn key_source(settings: &Settings) -> String {
    if std::env::var("VERS_API_KEY").is_ok_and(|key| !key.trim().is_empty()) {
        return "VERS_API_KEY".to_owned();
    }
    let directories = [settings.vers_home(), settings.dot_vers()]
        .into_iter()
        .flatten();
    let files = directories
        .flat_map(|directory| ["keys.json", "config.json"].map(|name| directory.join(name)));
    let found: Vec<String> = files
        .filter(|file| file.is_file())
        .map(|file| file.display().to_string())
        .collect();
    match found.as_slice() {
        [] => "a file".to_owned(),
        [one] => one.clone(),
        several => format!("the first with a key of {}", several.join(", ")),
    }
}

async fn reach(settings: &Settings, has_key: bool) -> Result<String, Failure> {
    let begun = std::time::Instant::now();
    let api = Api::new(settings.clone())?;
    if !has_key {
        return Err(Failure::new(
            Code::Platform,
            "unauthorized",
            "not asked, for want of a key",
        )
        .next("`pi-vers login`, or set VERS_API_KEY"));
    }
    let vms = api.list_vms().await?;
    let how = if settings.base_url().scheme() == "https" {
        "over verified TLS"
    } else {
        "on this machine"
    };
    let how = if settings.tls().insecure {
        "over UNVERIFIED TLS"
    } else {
        how
    };
    Ok(format!(
        "answered {how} in {} ms, {} VM(s)",
        begun.elapsed().as_millis(),
        vms.len()
    ))
}
