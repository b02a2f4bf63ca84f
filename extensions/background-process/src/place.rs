//! Where a process shall run: where `bash` would, unless the call says otherwise.

use pi_vers_sdk::active_vm::{self, ActiveVm};
use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::harness::session;
use pi_vers_sdk::{Error, ToolError, outcome};
use serde::Deserialize;

use crate::process::Place;

/// What a call says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum On {
    Vm,
    Local,
}

/// A place and a directory there.
pub(crate) struct Spot {
    pub(crate) place: Place,
    /// For the host; none is its default.
    pub(crate) directory: Option<String>,
    /// For people.
    pub(crate) shown: String,
}

/// Finds the place.
pub(crate) async fn find(on: Option<On>, cwd: Option<&str>) -> Result<Spot, ToolError> {
    if on == Some(On::Local) {
        return local(cwd);
    }
    let active = active_vm::ask().await.map_err(|error| match error {
        Error::TimedOut(why) => outcome::failed(format!(
            "{why}. Say on: \"local\" to run it on this machine."
        )),
        error => outcome::ended("Cannot find out which VM is active", error),
    })?;
    match (active, on) {
        (
            ActiveVm {
                vm_id: Some(vm),
                working_directory,
                ..
            },
            _,
        ) => {
            let (directory, shown) = on_vm(cwd, working_directory.as_deref());
            Ok(Spot {
                place: Place::Vm(vm),
                directory,
                shown,
            })
        }
        (ActiveVm { vm_id: None, .. }, Some(On::Vm)) => Err(outcome::failed(
            "No VM is active. Choose one with vers_vm_use, or leave on away to run it on this machine.",
        )),
        (ActiveVm { vm_id: None, .. }, _) => local(cwd),
    }
}

fn local(cwd: Option<&str>) -> Result<Spot, ToolError> {
    let here = session::working_directory();
    let cwd = cwd.filter(|cwd| !cwd.is_empty());
    if let Some(cwd) = cwd
        && (cwd == "~" || cwd.starts_with("~/"))
    {
        return Err(outcome::failed(format!(
            "cwd is {cwd}, and ~ is known on VMs only. Write it from the root or from {here}."
        )));
    }
    let shown = match cwd {
        None | Some(".") => here,
        Some(cwd) if cwd.starts_with('/') => cwd.into(),
        Some(cwd) => format!("{}/{cwd}", here.trim_end_matches('/')),
    };
    Ok(Spot {
        place: Place::Local,
        directory: cwd.map(str::to_owned),
        shown,
    })
}

/// The directory on a VM, for the host and for people. `left`: where the session's commands have left off.
fn on_vm(cwd: Option<&str>, left: Option<&str>) -> (Option<String>, String) {
    let cwd = cwd.unwrap_or_default();
    let cwd = cwd.strip_prefix("./").unwrap_or(cwd);
    let home = |below: &str| match below.trim_start_matches('/') {
        "" => (None, "~".to_owned()),
        below => (Some(below.to_owned()), format!("~/{below}")),
    };
    match (cwd, left) {
        ("~", _) | ("" | ".", None) => home(""),
        ("" | ".", Some(left)) => (Some(left.into()), left.into()),
        _ if cwd.starts_with("~/") => home(cwd.get(2..).unwrap_or_default()),
        _ if cwd.starts_with('/') => (Some(cwd.into()), cwd.into()),
        (_, None) => home(cwd),
        (_, Some(left)) => {
            let whole = format!("{}/{cwd}", left.trim_end_matches('/'));
            (Some(whole.clone()), whole)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_on_a_vm_is_where_bash_would_be() {
        let some = |host: &str, shown: &str| (Some(host.to_owned()), shown.to_owned());
        let home = (None, "~".to_owned());
        for (cwd, left, expected) in [
            (None, None, home.clone()),
            (None, Some("/srv"), some("/srv", "/srv")),
            (Some("."), Some("/srv"), some("/srv", "/srv")),
            (Some("app"), Some("/srv/"), some("/srv/app", "/srv/app")),
            (Some("./app"), Some("/"), some("/app", "/app")),
            (Some("../x"), Some("/srv"), some("/srv/../x", "/srv/../x")),
            (Some("app"), None, some("app", "~/app")),
            (Some("/etc"), Some("/srv"), some("/etc", "/etc")),
            (Some("~"), Some("/srv"), home.clone()),
            (Some("~//a"), Some("/srv"), some("a", "~/a")),
            (Some(""), None, home),
        ] {
            assert_eq!(on_vm(cwd, left), expected, "{cwd:?} from {left:?}");
        }
    }
}
