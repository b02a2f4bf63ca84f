//! Builds the host and loads the extensions, as the command line and the user's files say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::join_all;
use pi_vers_host::policy::{Error as PolicyError, Policy};
use pi_vers_host::secrets::Secrets;
use pi_vers_host::{Error, Extension, Harness, Host, Session, Tape};
use vers_client::{Environment, Overrides, Settings};

use crate::args::Loading;
use crate::audit;
use crate::dirs;
use crate::failure::Failure;
use crate::registry;
use crate::shipped::{self, SCRIPT_RUNNER, SHIPPED};
use crate::tape;

/// The project's policy, in its directory.
pub(crate) const PROJECT: &str = "pi-vers.toml";

/// The user's policy file: the given one, which then has to be there, or the usual one.
pub(crate) fn policy_file(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(path) => Ok(path.to_owned()),
        None => Ok(dirs::config()?.join("policy.toml")),
    }
}

/// The user's policy over the shipped grants, narrowed by that of the project in the working directory.
pub(crate) fn policy(given: Option<&Path>) -> Result<Policy, Failure> {
    policy_in(given, Path::new(""))
}

/// The same, for the project in this directory.
fn policy_in(given: Option<&Path>, directory: &Path) -> Result<Policy, Failure> {
    let file = policy_file(given)?;
    let user = match Policy::load(&file) {
        Ok(policy) => policy,
        Err(PolicyError::Read { source, .. })
            if given.is_none() && source.kind() == std::io::ErrorKind::NotFound =>
        {
            Policy::empty()
        }
        Err(why) => return Err(why.into()),
    };
    let policy = user.over(shipped::policy()?);
    match Policy::load_project(&directory.join(PROJECT)) {
        // A file that says how an extension is built is no policy unless it has a section of one.
        Ok(project)
            if project.names().next().is_none() && is_manifest(&directory.join(PROJECT)) =>
        {
            Ok(policy)
        }
        Ok(project) => Ok(policy.narrowed_by(project)),
        Err(PolicyError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(policy)
        }
        Err(why) => Err(why.into()),
    }
}

/// Whether a project's file is there for something else than a policy.
fn is_manifest(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    toml::from_str::<toml::Table>(&text).is_ok_and(|table| {
        let others = ["project", "extensions"];
        !table.contains_key("extension") && others.iter().any(|key| table.contains_key(*key))
    })
}

/// The platform of the environment.
pub(crate) fn settings() -> Result<Settings, Failure> {
    Ok(Settings::discover(
        Environment::process(),
        Overrides::default(),
    )?)
}

/// Variables whose values the host holds for the agents that extensions start: handed on by name, shown to nobody.
const SECRETS: [&str; 3] = ["LLM_PROXY_KEY", "VERS_AUTH_TOKEN", "ANTHROPIC_API_KEY"];

/// What extensions may hand on by name, where the policy lets them: the keys of the environment, and the one that the host itself uses,
/// which may stand in a file.
pub(crate) async fn secrets(settings: &Settings) -> Arc<Secrets> {
    let secrets = Secrets::new();
    for name in SECRETS {
        if let Some(value) = settings.environment().get(name) {
            secrets.insert(name, value);
        }
    }
    // Without one, the platform says so to whoever asks it.
    if let Ok(key) = settings.api_key().await {
        secrets.insert("VERS_API_KEY", key.expose().to_owned());
    }
    Arc::new(secrets)
}

/// A host with this policy, for this platform, and the audit log that the environment names.
pub(crate) async fn host(policy: Policy, settings: Settings) -> Result<Host, Failure> {
    audited(policy, settings, &Loading::default(), Path::new(""), None).await
}

/// The same, with the audit log and the files that the command line names, for the project in this directory.
async fn audited(
    policy: Policy,
    settings: Settings,
    loading: &Loading,
    directory: &Path,
    tape: Option<Tape>,
) -> Result<Host, Failure> {
    let audit = loading.audit.as_deref();
    let mut builder = Host::builder().guarded(guarded(loading, directory)?);
    if let Some(log) = audit::log(audit)? {
        builder = builder.audit(log);
    }
    if let Some(tape) = tape {
        builder = builder.tape(tape);
    }
    let host = builder
        .cache(dirs::cache()?.join("compiled"))
        .state(dirs::state()?)
        .policy(policy)
        .secrets(secrets(&settings).await)
        .script_runner(SCRIPT_RUNNER)
        .platform(settings)
        .build()?;
    Ok(host)
}

/// What says what extensions may do, and what they did: where none of them writes.
fn guarded(loading: &Loading, directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let named = [
        dirs::config()?,
        policy_file(loading.policy.as_deref())?,
        directory.join(PROJECT),
    ];
    let audit = loading.audit.clone();
    let audit = audit.or_else(|| std::env::var_os(audit::VARIABLE).map(PathBuf::from));
    let all = named.into_iter().chain(audit).chain(tape::file(loading)?);
    all.filter(|path| !path.as_os_str().is_empty())
        .map(|path| {
            std::path::absolute(&path)
                .map_err(|why| Failure::usage(format!("{} is no path: {why}", path.display())))
        })
        .collect()
}

/// The host and all extensions: the shipped ones and those of the command line.
pub(crate) async fn load(
    loading: &Loading,
    settings: Settings,
) -> Result<(Host, Vec<Extension>), Failure> {
    load_in(loading, settings, Path::new("")).await
}

/// The same, for the project in this directory.
pub(crate) async fn load_in(
    loading: &Loading,
    settings: Settings,
    directory: &Path,
) -> Result<(Host, Vec<Extension>), Failure> {
    let policy = policy_in(loading.policy.as_deref(), directory)?;
    let tape = tape::tape(loading)?;
    let host = audited(policy, settings, loading, directory, tape).await?;
    // Without a directory of its own, a session is in the process's.
    let here = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let added = registry::active(here, loading.locked)?;
    let (own, added) = futures::join!(
        extensions(&host, &loading.extension),
        load_added(&host, added, loading.locked)
    );
    let mut extensions = own?;
    for one in added? {
        // What the command line names takes the place of what was added.
        if !extensions.iter().any(|own| own.name() == one.name()) {
            extensions.push(one);
        }
    }
    Ok((host, extensions))
}

/// Extensions of the lists. One that is broken is left out: it must not take the others' session with it.
async fn load_added(
    host: &Host,
    added: Vec<registry::Added>,
    locked: bool,
) -> Result<Vec<Extension>, Failure> {
    let loads = added
        .into_iter()
        .map(async |one| (one.name, registry::load(host, &one.origin, one.bytes).await));
    let mut all = Vec::new();
    for (name, loaded) in join_all(loads).await {
        match loaded {
            Ok(extension) => all.push(extension),
            Err(why) if locked => return Err(why.into()),
            Err(why) => tracing::warn!("{name} is left out: {why}"),
        }
    }
    Ok(all)
}

/// The shipped extensions and these files, side by side. A file's extension takes the place of a shipped one of its name.
pub(crate) async fn extensions(host: &Host, files: &[PathBuf]) -> Result<Vec<Extension>, Failure> {
    let own = join_all(files.iter().map(|file| host.load_file(file)));
    let shipped = join_all(
        SHIPPED
            .iter()
            .map(async |shipped| host.load(&origin(shipped.name), shipped.wasm).await),
    );
    let (own, shipped) = futures::join!(own, shipped);
    let own = own.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut all = shipped.into_iter().collect::<Result<Vec<_>, _>>()?;
    all.retain(|shipped| !own.iter().any(|own| own.name() == shipped.name()));
    all.extend(own);
    Ok(all)
}

/// Opens a session. An extension whose names clash with those of one before it is left out, also of the list; the second
/// value says so, in words for people.
pub(crate) fn open(
    host: &Host,
    harness: Arc<dyn Harness>,
    extensions: &mut Vec<Extension>,
) -> Result<(Session, Vec<String>), Failure> {
    let mut left_out = Vec::new();
    loop {
        match host.session(harness.clone(), extensions.clone()) {
            Err(Error::Clash {
                what,
                name,
                first,
                second,
            }) if first != second && what != "name" => {
                left_out.push(format!(
                    "The extension {second} is left out: {first} offers the {what} {name}, too."
                ));
                extensions.retain(|extension| extension.name() != second);
            }
            opened => return Ok((opened?, left_out)),
        }
    }
}

/// How messages name a shipped extension.
pub(crate) fn origin(name: &str) -> String {
    format!("{name} (shipped)")
}
