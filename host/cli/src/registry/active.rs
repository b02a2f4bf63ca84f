//! What sessions load besides the shipped extensions: those of the lists that are locked and installed.

use std::path::Path;

use pi_vers_host::{Extension, Host};

use super::list::{List, Scope, has_project_list};
use super::store;
use crate::failure::{Code, Failure};

/// An extension that was added.
pub(crate) struct Added {
    pub(crate) name: String,
    /// How messages name it.
    pub(crate) origin: String,
    pub(crate) bytes: Vec<u8>,
}

/// Those of the user and of the project in this directory; the project's take the place of the user's of the same name. With `locked`
/// everything has to be there and as the locks say; without, what is not is left out with a warning.
pub(crate) fn active(directory: &Path, locked: bool) -> Result<Vec<Added>, Failure> {
    let project = has_project_list(directory).then(|| Scope::Project(directory.to_owned()));
    let mut all: Vec<Added> = Vec::new();
    for scope in [Some(Scope::User), project].into_iter().flatten() {
        let words = scope.words();
        let list = List::read(scope)?;
        let differences = list.differences();
        if locked && !differences.is_empty() {
            return Err(refused(&format!("{words}: {}", differences.join("; "))));
        }
        for (name, wanted) in &list.wanted {
            let found = list
                .locked
                .get(name)
                .filter(|locked| locked.source == wanted.source.to_string());
            let digest = found.map(|locked| locked.digest()).transpose()?;
            let bytes = match &digest {
                Some(digest) => store::get(digest)?,
                None => None,
            };
            let Some(bytes) = bytes else {
                let what = match digest {
                    Some(_) => "not installed here",
                    None => "not locked",
                };
                if locked {
                    return Err(refused(&format!("{words}: {name} is {what}")));
                }
                tracing::warn!(
                    "{words}: {name} is {what} and is left out: `pi-vers lock` installs it"
                );
                continue;
            };
            all.retain(|other| other.name != *name);
            all.push(Added {
                name: name.clone(),
                origin: format!("{name} (added)"),
                bytes,
            });
        }
    }
    Ok(all)
}

/// Loads what was added, or is about to be.
pub(crate) async fn load(
    host: &Host,
    origin: &str,
    bytes: Vec<u8>,
) -> Result<Extension, pi_vers_host::Error> {
    // As the host tells them apart: what does not begin as a component is a script.
    match bytes.starts_with(b"\0asm") {
        true => host.load(origin, bytes).await,
        false => host.load_script(origin, &bytes).await,
    }
}

/// Whether sessions here load an added extension of this name.
pub(crate) fn is_added(name: &str) -> bool {
    let here = std::env::current_dir().unwrap_or_default();
    active(&here, false).is_ok_and(|all| all.iter().any(|one| one.name == name))
}

fn refused(why: &str) -> Failure {
    Failure::new(Code::Usage, "locked", why.to_owned())
        .next("`pi-vers lock` puts it right; with --locked nothing else runs")
}

/// The files that change when an extension is added, updated or removed.
pub(crate) fn locks() -> Vec<std::path::PathBuf> {
    let user = crate::dirs::config().map(|config| config.join("extensions.lock"));
    user.into_iter().chain(["pi-vers.lock".into()]).collect()
}

/// All that decides which ones are loaded in this directory.
pub(crate) fn fingerprint(directory: &Path) -> Vec<Vec<u8>> {
    let config = crate::dirs::config().unwrap_or_default();
    let files = [
        config.join("extensions.toml"),
        config.join("extensions.lock"),
        directory.join(crate::setup::PROJECT),
        directory.join("pi-vers.lock"),
    ];
    let read = |path: &std::path::PathBuf| std::fs::read(path).unwrap_or_default();
    let mut all: Vec<Vec<u8>> = files.iter().map(read).collect();
    // Installing one changes no file of these.
    let scopes = [Scope::User, Scope::Project(directory.to_owned())];
    for list in scopes
        .into_iter()
        .filter_map(|scope| List::read(scope).ok())
    {
        for locked in list.locked.values() {
            let here = locked.digest().is_ok_and(|digest| store::has(&digest));
            all.push(vec![u8::from(here)]);
        }
    }
    all
}
