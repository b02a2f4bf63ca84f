//! An extension: one component, checked, compiled and described, ready to be put into sessions.
//!
//! Loading has four steps, each with its own sentence when it fails, and none runs with a grant:
//! read what the bytes import and export (nothing is compiled), compile or take from the cache, link,
//! and ask it to describe itself on an instance that is denied everything and thrown away.

mod anatomy;
mod describe;
mod schema;
mod script;
mod shape;

use std::collections::HashMap;
use std::sync::Arc;

pub use anatomy::Anatomy;
use pi_vers_policy::Digest;
use wasmtime::component::InstancePre;

use crate::engine::{Cache, Engine};
use crate::error::{Error, Problem};
use crate::guest::Guest;
use crate::types::ExtensionInfo;
use schema::Schema;
pub(crate) use script::{Script, is_script};

/// The largest component that is looked at.
pub const LARGEST: usize = 128 << 20;

/// How long compiling may take. An interpreter with its library takes seconds; code that is made to be hard to compile would take
/// hours. The compiler's thread cannot be stopped, but nobody waits for it any longer.
const COMPILE: std::time::Duration = std::time::Duration::from_secs(120);

/// A loaded extension. Cheap to clone; holds no instance.
#[derive(Clone)]
pub struct Extension(Arc<Parts>);

struct Parts {
    origin: String,
    digest: Digest,
    anatomy: Anatomy,
    code: Code,
    script: Option<Arc<Script>>,
    info: ExtensionInfo,
    schemas: HashMap<String, Schema>,
}

/// A component that is compiled and linked, and that nobody has asked anything yet.
#[derive(Clone)]
pub(crate) struct Code {
    digest: Digest,
    anatomy: Anatomy,
    pre: InstancePre<Guest>,
    from_cache: bool,
}

impl std::fmt::Debug for Extension {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extension")
            .field("name", &self.0.info.name)
            .field("digest", &self.0.digest)
            .finish_non_exhaustive()
    }
}

impl Code {
    /// Checks, compiles (or takes from the cache) and links a component.
    pub(crate) async fn load(
        engine: &Engine,
        linker: &wasmtime::component::Linker<Guest>,
        cache: Option<Arc<Cache>>,
        origin: &str,
        wasm: Arc<[u8]>,
    ) -> Result<Self, Error> {
        let digest = Digest::of(&wasm);
        let anatomy = Anatomy::of(origin, &wasm)?;
        anatomy.check(origin)?;
        let (component, from_cache) = {
            let (engine, bytes) = (engine.wasm().clone(), Arc::clone(&wasm));
            let compile = move || match cache {
                Some(cache) => cache.load(&engine, &digest, &bytes),
                None => wasmtime::component::Component::from_binary(&engine, &bytes)
                    .map(|component| (component, false)),
            };
            let compiled = tokio::task::spawn_blocking(compile);
            tokio::time::timeout(COMPILE, compiled)
                .await
                .map_err(|_| Error::NotAComponent {
                    origin: origin.into(),
                    why: format!("compiling it takes longer than {} s", COMPILE.as_secs()),
                })?
                .map_err(|why| Error::Engine(format!("the compiler did not finish: {why}")))?
                .map_err(|why| Error::NotAComponent {
                    origin: origin.into(),
                    why: format!("{why:#}"),
                })?
        };
        let pre = linker.instantiate_pre(&component).map_err(|why| Error::OtherWorld {
            origin: origin.into(),
            why: format!("{why:#}; build it with the `wit/` of this host (`pi-vers inspect` shows what it imports)"),
        })?;
        Ok(Self {
            digest,
            anatomy,
            pre,
            from_cache,
        })
    }
}

impl Extension {
    /// Asks a component what it offers; or a script, in the runner that the component is.
    pub(crate) async fn new(
        engine: &Engine,
        origin: &str,
        code: Code,
        script: Option<Script>,
    ) -> Result<Self, Error> {
        let script = script.map(Arc::new);
        let info = describe::describe(engine, &code.pre, origin, script.as_deref()).await?;
        let mut schemas = HashMap::new();
        for tool in &info.tools {
            let wrong = |why| Error::Description {
                origin: origin.into(),
                why,
            };
            schemas.insert(tool.name.clone(), Schema::compile(tool).map_err(wrong)?);
        }
        let (mut digest, mut anatomy) = (code.digest, code.anatomy.clone());
        if let Some(script) = &script {
            digest = script.digest(&code.digest);
            anatomy.size = script.size();
        }
        Ok(Self(Arc::new(Parts {
            origin: origin.into(),
            digest,
            anatomy,
            code,
            script,
            info,
            schemas,
        })))
    }

    /// The name it gave itself; policy, store and audit know it by name and digest.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.info.name
    }

    /// What it offers.
    #[must_use]
    pub fn info(&self) -> &ExtensionInfo {
        &self.0.info
    }

    /// SHA-256 of its bytes; of a script, that of the script and its runner together.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// Where it came from, for messages.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.0.origin
    }

    /// What it imports and exports.
    #[must_use]
    pub fn anatomy(&self) -> &Anatomy {
        &self.0.anatomy
    }

    /// Whether its code came from the cache instead of the compiler.
    #[must_use]
    pub fn from_cache(&self) -> bool {
        self.0.code.from_cache
    }

    /// The digest of the component that runs it, if it is a script.
    #[must_use]
    pub fn runner(&self) -> Option<Digest> {
        self.0.script.is_some().then_some(self.0.code.digest)
    }

    pub(crate) fn pre(&self) -> &InstancePre<Guest> {
        &self.0.code.pre
    }

    pub(crate) fn script(&self) -> Option<&Script> {
        self.0.script.as_deref()
    }

    /// Everything that is wrong with these arguments; empty: they fit.
    #[must_use]
    pub fn problems(&self, tool: &str, arguments: &serde_json::Value) -> Vec<Problem> {
        self.0
            .schemas
            .get(tool)
            .map_or_else(Vec::new, |schema| schema.problems(arguments))
    }

    pub(crate) fn check_structured(
        &self,
        tool: &str,
        structured: &serde_json::Value,
    ) -> Vec<Problem> {
        self.0
            .schemas
            .get(tool)
            .map_or_else(Vec::new, |schema| schema.output_problems(structured))
    }
}
