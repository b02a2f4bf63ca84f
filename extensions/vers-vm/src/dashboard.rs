//! `/vers`: VMs at a glance, for a person.

use pi_vers_sdk::harness::ui::{self, Severity};
use pi_vers_sdk::platform::vms::{self, State, Vm};
use pi_vers_sdk::show::dialog;
use pi_vers_sdk::system::process::Exit;
use pi_vers_sdk::{Completion, Error, outcome};

use crate::status::short;
use crate::vm_tools::{branch_vm, delete_vm, reach, word};
use crate::{bash, session};

/// The most of a command's output that a notice shows, in characters.
const GLANCE: usize = 500;

const ACTIONS: [(&str, Action); 8] = [
    ("use — Set as active VM", Action::Use),
    ("exec — Run shell command", Action::Exec),
    ("branch — Clone this VM", Action::Branch),
    ("commit — Snapshot", Action::Commit),
    ("pause — Pause", Action::Pause),
    ("resume — Resume", Action::Resume),
    ("delete — Delete", Action::Delete),
    ("cancel", Action::Cancel),
];

#[derive(Clone, Copy)]
enum Action {
    Use,
    Exec,
    Branch,
    Commit,
    Pause,
    Resume,
    Delete,
    Cancel,
}

/// Runs the command; what goes wrong is a notice.
pub(crate) async fn run(arguments: String) -> Result<(), Error> {
    match show(arguments.trim()).await {
        Err(Error::Cancelled) => Err(Error::Cancelled),
        Err(error) => {
            ui::notify(
                &format!("Vers error: {}", outcome::explain(&error)),
                Severity::Error,
            );
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

async fn show(prefix: &str) -> Result<(), Error> {
    let mut vms = vms::list().await?;
    vms.retain(|vm| vm.id.starts_with(prefix));
    if vms.is_empty() {
        let text = if prefix.is_empty() {
            "No VMs running.".into()
        } else {
            format!("There is no VM {prefix}.")
        };
        ui::notify(&text, Severity::Info);
        return Ok(());
    }
    let options: Vec<String> = vms.iter().map(option).collect();
    if !ui::available() {
        ui::notify(&options.join("\n"), Severity::Info);
        return Ok(());
    }
    let chosen = match vms.as_slice() {
        [only] if !prefix.is_empty() => Some(only),
        several => {
            let title = format!("Vers VMs ({})", several.len());
            select(title, options).await?.and_then(|at| several.get(at))
        }
    };
    let Some(vm) = chosen else { return Ok(()) };
    let names = ACTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let chosen = select(format!("VM {}", short(&vm.id)), names).await?;
    match chosen.and_then(|at| ACTIONS.get(at)) {
        Some((_, action)) => act(*action, &vm.id).await,
        None => Ok(()),
    }
}

fn option(vm: &Vm) -> String {
    let star = if session::is_active(&vm.id) {
        " ★"
    } else {
        ""
    };
    format!(
        "{} [{}]{star} ({})",
        short(&vm.id),
        word(vm.state),
        vm.created_at
    )
}

async fn act(action: Action, vm: &str) -> Result<(), Error> {
    let done = match action {
        Action::Use => {
            let resumed = reach(vm).await?;
            session::activate(Some(vm.into())).await;
            let resumed = resumed.map_or_else(String::new, |notice| format!("{notice} "));
            format!(
                "{resumed}Active VM: {}. Tools now route to this VM.",
                short(vm)
            )
        }
        Action::Exec => {
            let asked = ui::input(
                dialog(format!("Command on VM {}", short(vm))),
                "uname -a".into(),
            )
            .await?;
            let Some(script) = asked.filter(|script| !script.trim().is_empty()) else {
                return Ok(());
            };
            let (exit, output) = bash::exec(vm, &script).await?;
            let glance: String = output.chars().take(GLANCE).collect();
            match exit {
                Exit::Code(code) => format!("Exit {code}: {glance}"),
                Exit::Signal(name) => format!("Ended by signal {name}: {glance}"),
            }
        }
        Action::Branch => format!("Branched -> {}", branch_vm(vm).await?),
        Action::Commit => format!("Committed -> {}", vms::commit(vm.into(), false).await?),
        Action::Pause => {
            vms::set_state(vm.into(), State::Paused).await?;
            "Paused.".into()
        }
        Action::Resume => {
            vms::set_state(vm.into(), State::Running).await?;
            "Resumed.".into()
        }
        Action::Delete => {
            if ui::confirm(dialog("Delete VM"), format!("Delete {vm}?")).await? != Some(true) {
                return Ok(());
            }
            delete_vm(vm).await?;
            "Deleted.".into()
        }
        Action::Cancel => return Ok(()),
    };
    ui::notify(&done, Severity::Info);
    Ok(())
}

async fn select(title: String, options: Vec<String>) -> Result<Option<usize>, Error> {
    let chosen = ui::select(dialog(title), options).await?;
    Ok(chosen.and_then(|at| usize::try_from(at).ok()))
}

/// VMs whose ids begin so.
pub(crate) async fn complete(prefix: String) -> Vec<Completion> {
    let vms = vms::list().await.unwrap_or_default();
    vms.into_iter()
        .filter(|vm| vm.id.starts_with(&prefix))
        .map(|vm| Completion {
            label: format!("{} [{}]", vm.id, word(vm.state)),
            description: Some(format!("created {}", vm.created_at)),
            value: vm.id,
        })
        .collect()
}
