//! Which clients are set up, and whether what they start is there.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use pi_vers_host::visible;
use serde_json::Value;

use super::super::document::find;
use super::super::entry::{self, Owner, Server};
use super::super::options::{Client, Scope};
use super::super::places::Places;
use super::super::{plan, word};
use crate::doctor::Checks;
use crate::failure::{Code, Failure};

/// A line for each client that names this program, or one that none does.
pub(super) fn check(checks: &mut Checks) {
    let places = match Places::new() {
        Ok(places) => places,
        Err(why) => return checks.add("clients", Err(why)),
    };
    let mut any = false;
    for client in Client::value_variants() {
        for scope in [Scope::User, Scope::Local, Scope::Project] {
            // Not every client has every scope.
            let Ok(place) = places.servers(*client, scope) else {
                continue;
            };
            let name = word_of(*client);
            let data = match plan::read(&place) {
                Ok((kept, data)) if kept.text.is_some() => data,
                Ok(_) => continue,
                Err(why) => {
                    any = true;
                    checks.add(&name, Err(why));
                    continue;
                }
            };
            let servers = find(&data, &place.path).and_then(Value::as_object);
            for (key, value) in servers.into_iter().flatten() {
                if let Owner::Ours(server) = entry::owner(value) {
                    any = true;
                    let path = std::env::var_os("PATH");
                    let found = starts(&server, path.as_deref());
                    let at = format!(
                        "{} in {}",
                        visible(key),
                        visible(&place.file.display().to_string())
                    );
                    let redirected = hooked(&places, *client, scope, key);
                    checks.add(&name, told(*client, scope, &at, found, redirected));
                }
            }
        }
    }
    if !any {
        let text = "none is set up; `pi-vers mcp setup claude` or codex, cursor, vscode, desktop";
        checks.add("clients", Ok(text.to_owned()));
    }
}

fn word_of(client: Client) -> String {
    let word = client.to_possible_value();
    word.map(|word| word.get_name().to_owned())
        .unwrap_or_default()
}

/// The file that the client would start.
fn starts(server: &Server, path: Option<&OsStr>) -> Result<PathBuf, String> {
    let command = Path::new(&server.command);
    let runs = |file: &Path| {
        std::fs::metadata(file)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let shown = visible(&server.command);
    if command.components().count() > 1 {
        return match runs(command) {
            true => Ok(command.to_owned()),
            false => Err(format!("{shown} is not there, or can't be run")),
        };
    }
    let directories = path.map(std::env::split_paths).into_iter().flatten();
    let mut files = directories.map(|directory| directory.join(command));
    files
        .find(|file| runs(file))
        .ok_or_else(|| format!("{shown} is nowhere in the PATH"))
}

/// Whether the client asks before it uses tools of its own; `None`: it can't.
fn hooked(places: &Places, client: Client, scope: Scope, name: &str) -> Option<bool> {
    let place = places.hooks(client, scope)?;
    let hooks = |data: &Value| !plan::hooks(data, &place.path, name).is_empty();
    Some(plan::read(&place).is_ok_and(|(_, data)| hooks(&data)))
}

fn told(
    client: Client,
    scope: Scope,
    at: &str,
    found: Result<PathBuf, String>,
    redirected: Option<bool>,
) -> Result<String, Failure> {
    let file = found.map_err(|why| {
        let setup = format!(
            "`pi-vers mcp setup {} --scope {}`",
            word_of(client),
            word(scope)
        );
        Failure::new(Code::Tool, "client", format!("{at}: {why}")).next(setup)
    })?;
    let mut text = format!("{at} starts {}", visible(&file.display().to_string()));
    match redirected {
        Some(true) => text.push_str(", with the hook"),
        Some(false) => text.push_str(", without the hook"),
        None => {}
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("pi-vers");
        let server = |command: &Path| Server {
            command: command.to_string_lossy().into_owned(),
            arguments: Vec::new(),
        };
        let name = server(Path::new("pi-vers"));
        let path = Some(root.path().as_os_str());
        assert!(
            starts(&server(&file), path)
                .unwrap_err()
                .contains("not there")
        );
        assert!(starts(&name, path).unwrap_err().contains("PATH"));
        std::fs::write(&file, "").unwrap();
        assert!(starts(&server(&file), path).is_err(), "it can't be run");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&file, mode).unwrap();
        assert_eq!(starts(&server(&file), path).unwrap(), file);
        assert_eq!(starts(&name, path).unwrap(), file);
    }
}
