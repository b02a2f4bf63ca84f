//! The host: one for a process. Holds the engine, the policy, the platform's client and the secrets.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pi_vers_policy::{Grants, Lookup, Policy};
use pi_vers_system::secrets::Secrets;
use tokio::sync::{OnceCell, mpsc};
use vers_client::{Api, Environment, Fleet, Overrides, Settings, Ssh, SshOptions};
use wasmtime::component::Linker;

use crate::audit::Audit;
use crate::capability;
use crate::engine::{Cache, Engine};
use crate::error::Error;
use crate::extension::{Code, Extension, LARGEST, Script, is_script};
use crate::guest::Guest;
use crate::harness::Harness;
use crate::services::{Message, Services};
use crate::session::Session;
use crate::stand_in::StandIn;
use crate::tape::Tape;
use crate::types::FlagValue;

/// A host. Cheap to clone.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    engine: Engine,
    linker: Linker<Guest>,
    cache: Option<Arc<Cache>>,
    policy: Policy,
    api: Api,
    ssh: Ssh,
    fleet: Fleet,
    secrets: Arc<Secrets>,
    audit: Option<Arc<dyn Audit>>,
    stand_in: Option<Arc<dyn StandIn>>,
    tape: Option<Tape>,
    state: PathBuf,
    /// Where no extension writes, whatever it is granted.
    guarded: Arc<[PathBuf]>,
    script_runner: Option<Cow<'static, [u8]>>,
    /// Compiled when the first script is loaded: one for all scripts.
    script_code: OnceCell<Code>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("state", &self.0.state)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Host`]. Everything has a default: no grants, no cache, the platform of the environment.
#[derive(Default)]
pub struct HostBuilder {
    cache: Option<PathBuf>,
    state: Option<PathBuf>,
    policy: Policy,
    settings: Option<Settings>,
    secrets: Option<Arc<Secrets>>,
    audit: Option<Arc<dyn Audit>>,
    guarded: Vec<PathBuf>,
    stand_in: Option<Arc<dyn StandIn>>,
    tape: Option<Tape>,
    script_runner: Option<Cow<'static, [u8]>>,
}

impl std::fmt::Debug for HostBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostBuilder")
            .field("cache", &self.cache)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl HostBuilder {
    /// Where compiled components are kept. Without it each start compiles.
    #[must_use]
    pub fn cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = Some(directory.into());
        self
    }

    /// Where extensions' stores and host keys are kept. Without it: a directory that goes with the process.
    #[must_use]
    pub fn state(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state = Some(directory.into());
        self
    }

    /// What extensions may do. Without it: nothing but log, wait and show.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Which platform, with which key, and the environment that extensions may read variables of and the fleet is found by. Without it: as
    /// the environment and the user's files say.
    #[must_use]
    pub fn platform(mut self, settings: Settings) -> Self {
        self.settings = Some(settings);
        self
    }

    /// The secrets extensions may use by name. Without it: none.
    #[must_use]
    pub fn secrets(mut self, secrets: Arc<Secrets>) -> Self {
        self.secrets = Some(secrets);
        self
    }

    /// Where every judged use of a capability is recorded, for example an [`AuditFile`](crate::AuditFile). Without it: nowhere.
    #[must_use]
    pub fn audit(mut self, audit: Arc<dyn Audit>) -> Self {
        self.audit = Some(audit);
        self
    }

    /// Files and directories that say what extensions may do: where the policy is, a project's file that narrows it. No extension writes
    /// there whatever it is granted. The cache and the state are among them without being named. Absolute paths; those that are not there are guarded against being made.
    #[must_use]
    pub fn guarded(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.guarded.extend(paths);
        self
    }

    /// What takes the world's place: for tests of extensions. Without it: the world.
    #[must_use]
    pub fn stand_in(mut self, stand_in: Arc<dyn StandIn>) -> Self {
        self.stand_in = Some(stand_in);
        self
    }

    /// Records this host's session on a tape, or replays the one on it: then no extension reaches the world, whatever the policy grants. A
    /// tape is good for one session. Without it: neither.
    #[must_use]
    pub fn tape(mut self, tape: Tape) -> Self {
        self.tape = Some(tape);
        self
    }

    /// The component that runs scripts, for example `script-runner` of this project. Without it: a script is refused.
    #[must_use]
    pub fn script_runner(mut self, wasm: impl Into<Cow<'static, [u8]>>) -> Self {
        self.script_runner = Some(wasm.into());
        self
    }

    /// Builds the host. Connects nowhere and runs nothing yet.
    ///
    /// # Errors
    /// When the engine, the cache or the client can't be set up.
    pub fn build(self) -> Result<Host, Error> {
        let engine = Engine::new()?;
        let linker = capability::linker(&engine, self.tape.is_some())?;
        let mut guarded = self.guarded;
        guarded.extend(self.cache.clone());
        let cache = self
            .cache
            .map(|directory| engine.cache(&directory))
            .transpose()?
            .map(Arc::new);
        let platform = |why: vers_client::Error| Error::Platform(why.to_string());
        let settings = match self.settings {
            Some(settings) => settings,
            None => Settings::discover(Environment::process(), Overrides::default())
                .map_err(platform)?,
        };
        let state = self.state.unwrap_or_else(|| {
            std::env::temp_dir().join(format!("pi-vers-{}", std::process::id()))
        });
        guarded.push(state.clone());
        let options = SshOptions {
            known_hosts: Some(state.join("known-hosts.json")),
            ..SshOptions::default()
        };
        let fleet = Fleet::new(&settings).map_err(platform)?;
        let api = Api::new(settings).map_err(platform)?;
        let ssh = Ssh::new(api.clone(), options).map_err(platform)?;
        let secrets = self.secrets.unwrap_or_default();
        Ok(Host(Arc::new(Inner {
            engine,
            linker,
            cache,
            policy: self.policy,
            api,
            ssh,
            fleet,
            secrets,
            audit: self.audit,
            stand_in: self.stand_in,
            tape: self.tape,
            state,
            guarded: guarded.into(),
            script_runner: self.script_runner,
            script_code: OnceCell::new(),
        })))
    }
}

impl Host {
    /// Begins to build a host.
    #[must_use]
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }

    /// Loads an extension: checks, compiles (or takes from the cache), links and describes it. `origin` names it
    /// in messages.
    ///
    /// # Errors
    /// One sentence for each way a component can be wrong.
    pub async fn load(&self, origin: &str, wasm: impl Into<Arc<[u8]>>) -> Result<Extension, Error> {
        let code = self.compile(origin, wasm.into()).await?;
        Extension::new(&self.0.engine, origin, code, None).await
    }

    /// Loads an extension that is a script, in an instance of the [runner](HostBuilder::script_runner) of its own.
    ///
    /// # Errors
    /// What is wrong with the script, with its place; or that this host has no runner.
    pub async fn load_script(&self, origin: &str, source: &[u8]) -> Result<Extension, Error> {
        let script = Script::read(origin, source)?;
        let Some(runner) = &self.0.script_runner else {
            return Err(Error::Script {
                origin: origin.into(),
                why: "this host has no runner for scripts; give HostBuilder::script_runner one"
                    .into(),
            });
        };
        let code = self
            .0
            .script_code
            .get_or_try_init(|| self.compile("the script runner", Arc::from(&**runner)))
            .await?;
        Extension::new(&self.0.engine, origin, code.clone(), Some(script)).await
    }

    async fn compile(&self, origin: &str, wasm: Arc<[u8]>) -> Result<Code, Error> {
        let Inner {
            engine,
            linker,
            cache,
            ..
        } = &*self.0;
        Code::load(engine, linker, cache.clone(), origin, wasm).await
    }

    /// Loads an extension from a file: a component, or a script (`.js`, `.mjs`).
    ///
    /// # Errors
    /// As [`Host::load`], and when the file can't be read.
    pub async fn load_file(&self, path: &Path) -> Result<Extension, Error> {
        let origin = path.display().to_string();
        let unread = |why: std::io::Error| Error::Read {
            origin: origin.clone(),
            why: why.to_string(),
        };
        let size = tokio::fs::metadata(path).await.map_err(unread)?.len();
        if size > LARGEST as u64 {
            return Err(Error::NotAComponent {
                origin,
                why: format!("{} MiB is more than a component may have", size >> 20),
            });
        }
        let bytes = tokio::fs::read(path).await.map_err(unread)?;
        // What begins as a component is one, whatever it is called.
        if is_script(path) && !bytes.starts_with(b"\0asm") {
            return self.load_script(&origin, &bytes).await;
        }
        self.load(&origin, bytes).await
    }

    /// Opens a session of these extensions behind a front end. Nothing runs before [`Session::start`] or the
    /// first call.
    ///
    /// # Errors
    /// When two extensions claim the same tool or command, or the host's [tape](HostBuilder::tape) can't be begun.
    pub fn session(
        &self,
        harness: Arc<dyn Harness>,
        extensions: Vec<Extension>,
    ) -> Result<Session, Error> {
        let session = Session::new(self.clone(), harness, extensions)?;
        if let Some(tape) = &self.0.tape {
            tape.begin(&self.0.secrets, session.extensions())?;
        }
        Ok(session)
    }

    /// What the policy says of an extension.
    #[must_use]
    pub fn lookup(&self, extension: &Extension) -> Lookup {
        self.0.policy.grants(extension.name(), &extension.digest())
    }

    /// The platform's REST API, with the host's key.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.0.api
    }

    /// The connections to VMs that all sessions share.
    #[must_use]
    pub fn ssh(&self) -> &Ssh {
        &self.0.ssh
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// What an extension may do in a session in this directory. Grants of other bytes do not hold.
    pub(crate) fn grants(&self, extension: &Extension, directory: &Path) -> Arc<Grants> {
        let grants = match self.lookup(extension) {
            Lookup::Granted(grants) => grants,
            Lookup::Changed { granted_to, .. } => {
                tracing::warn!(target: "audit", extension = extension.name(), %granted_to, now = %extension.digest(), "its bytes changed: its grants do not hold");
                Grants::of_other_bytes(extension.name())
            }
            Lookup::Unknown => Grants::nothing(extension.name()),
        };
        let home = std::env::home_dir();
        Arc::new(grants.at(directory, home.as_deref()))
    }

    pub(crate) fn services(
        &self,
        harness: Arc<dyn Harness>,
        flags: HashMap<String, BTreeMap<String, FlagValue>>,
    ) -> (Services, mpsc::Receiver<Message>) {
        let inner = &self.0;
        let (mut services, messages) = Services::new(
            harness,
            (inner.api.clone(), inner.ssh.clone(), inner.fleet.clone()),
            (inner.secrets.clone(), inner.audit.clone()),
            (inner.state.clone(), inner.guarded.clone()),
            flags,
        );
        services.stand_in = inner.stand_in.clone();
        services.tape = inner.tape.clone();
        (services, messages)
    }
}
