//! Host and extensions, and the sessions that are opened of them.
//!
//! A harness has one conversation at a time, and each `start` begins one: so each gets a session of its own, with fresh
//! instances. The flags that name the platform and the key come with the first `context`, after `ready`; a host that was
//! built without them is then built again, which the cache makes cheap.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pi_vers_host::{Extension, ExtensionInfo, Host, Session};
use vers_client::{Environment, Overrides, Secret, Settings};

use super::harness::Shim;
use crate::args::Loading;
use crate::failure::Failure;
use crate::local::Local;
use crate::setup;

/// Flags that are the host's own, whichever extension declares them.
pub(crate) const FLAGS: [&str; 2] = ["vers-api-key", "vers-base-url"];

/// Which platform the user named by flags.
#[derive(Clone, Default, PartialEq, Eq)]
struct Named {
    key: Option<String>,
    url: Option<String>,
}

/// See the module.
pub(crate) struct Stage {
    loading: Loading,
    directory: PathBuf,
    local: Option<Settings>,
    named: Named,
    host: Host,
    extensions: Vec<Extension>,
    /// What was left out, in words for people.
    left_out: Vec<String>,
}

impl Stage {
    /// Loads everything for a harness that works in this directory.
    pub(crate) async fn set(
        loading: Loading,
        directory: &Path,
        local: Option<&Local>,
    ) -> Result<Self, Failure> {
        let local = local.map(Local::settings).transpose()?;
        let settings = match &local {
            Some(settings) => settings.clone(),
            None => setup::settings()?,
        };
        let (host, extensions) = setup::load_in(&loading, settings, directory).await?;
        Ok(Self {
            loading,
            directory: directory.to_owned(),
            local,
            named: Named::default(),
            host,
            extensions,
            left_out: Vec::new(),
        })
    }

    /// What the extensions offer.
    pub(crate) fn infos(&self) -> impl Iterator<Item = &ExtensionInfo> + Clone {
        self.extensions.iter().map(Extension::info)
    }

    /// What was left out since the last look.
    pub(crate) fn take_left_out(&mut self) -> Vec<String> {
        std::mem::take(&mut self.left_out)
    }

    /// Opens a session. An extension whose names clash with those of one before it is left out.
    pub(crate) fn open(&mut self, shim: &Arc<Shim>) -> Result<Session, Failure> {
        let (session, left_out) = setup::open(&self.host, shim.clone(), &mut self.extensions)?;
        self.left_out.extend(left_out);
        Ok(session)
    }

    /// Whether the user has named another platform than the host talks to.
    pub(crate) fn is_outdated(&self, shim: &Shim) -> bool {
        self.local.is_none() && self.named != named(shim)
    }

    /// Takes up what the user has named by flags.
    pub(crate) async fn update(&mut self, shim: &Shim) -> Result<(), Failure> {
        if !self.is_outdated(shim) {
            return Ok(());
        }
        let named = named(shim);
        let overrides = Overrides {
            api_key: named.key.clone().map(Secret::new),
            base_url: named.url.clone(),
            ..Overrides::default()
        };
        let settings = Settings::discover(Environment::process(), overrides)?;
        let (host, mut extensions) =
            setup::load_in(&self.loading, settings, &self.directory).await?;
        // What was left out stays out: the harness knows nothing of it.
        extensions.retain(|new| self.extensions.iter().any(|old| old.name() == new.name()));
        (self.host, self.extensions, self.named) = (host, extensions, named);
        Ok(())
    }
}

fn named(shim: &Shim) -> Named {
    let [key, url] = FLAGS.map(|name| shim.text_flag(name));
    Named { key, url }
}
