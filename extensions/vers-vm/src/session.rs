//! What the extension knows in one session: the active VM, and what it has learned about VMs.
//!
//! The active VM belongs to the session, not to the process: every change is an entry of the session, and `start` takes up
//! the last one, so that a resumed or forked session goes on where it was.

use std::cell::RefCell;
use std::collections::HashMap;

use futures::future::{Either, select};
use pi_vers_sdk::active_vm::{self, ActiveVm, Loan};
use pi_vers_sdk::harness::{session, timers, types};
use pi_vers_sdk::show::failure;
use pi_vers_sdk::{Error, FlagValue, args, digest, outcome};
use serde::{Deserialize, Serialize};

use crate::search::Dialect;
use crate::vm_tools::reach;
use crate::wrapper::{Names, parse_state};
use crate::{remote, status};

/// The kind of the session entries that say which VM is active.
const ENTRY: &str = "active-vm";
/// Most bytes of a state file: longer than any path.
const LONGEST_STATE: usize = 64 * 1024;
/// Seconds a command may run, unless the flag says otherwise.
const DEFAULT_TIMEOUT: f64 = 120.0;
/// How long another extension waits for a directory that the VM has to be asked for, in milliseconds.
const ANSWER: u64 = 5_000;

#[derive(Default)]
struct Session {
    active: Option<String>,
    /// In place of `active`, for now, at the wish of another extension: not recorded.
    lent: Option<String>,
    /// Working directories, as far as no command has run since they were read.
    directories: HashMap<String, Option<String>>,
    dialects: HashMap<String, Dialect>,
}

thread_local! {
    static SESSION: RefCell<Session> = RefCell::default();
}

/// An entry of the session.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    vm_id: Option<String>,
}

/// The VM that tools act on; none is this machine.
pub(crate) fn active() -> Option<String> {
    SESSION.with_borrow(|s| s.lent.clone().or_else(|| s.active.clone()))
}

/// Whether tools act on this VM.
pub(crate) fn is_active(vm: &str) -> bool {
    active().as_deref() == Some(vm)
}

/// Chooses the VM that tools act on, shows it and writes it into the session.
pub(crate) async fn activate(vm: Option<String>) {
    set_active(vm.clone());
    SESSION.with_borrow_mut(|s| s.lent = None);
    status::show();
    tell();
    let entry = serde_json::to_string(&Entry { vm_id: vm }).unwrap_or_default();
    if let Err(error) = session::append_entry(ENTRY.into(), entry).await {
        failure(
            "The choice of VM will not survive a restart of the session",
            &error,
        );
    }
}

/// Tells the other extensions which VM is active.
pub(crate) fn tell() {
    active_vm::tell(&ActiveVm {
        vm_id: active(),
        ..ActiveVm::default()
    });
}

/// Answers an extension that asked which VM is active, and where commands run there.
pub(crate) async fn answer(token: String) {
    let vm = active();
    let directory = match &vm {
        Some(vm) => within(ANSWER, working_directory(vm)).await,
        None => None,
    };
    active_vm::tell(&ActiveVm {
        vm_id: vm,
        working_directory: directory.and_then(Result::ok).flatten(),
        answer_to: Some(token),
        error: None,
    });
}

/// Lets tools act on the VM that another extension has for them, or on the chosen one again.
pub(crate) async fn lend(loan: Loan) {
    let error = match &loan.vm_id {
        Some(vm) => reach(vm).await.err().map(|why| outcome::explain(&why)),
        None => None,
    };
    if error.is_none() {
        SESSION.with_borrow_mut(|s| s.lent = loan.vm_id);
        status::show();
        tell();
    }
    active_vm::tell(&ActiveVm {
        vm_id: active(),
        working_directory: None,
        answer_to: Some(loan.token),
        error,
    });
}

/// What `work` comes to, if it does within this many milliseconds.
pub(crate) async fn within<T>(patience: u64, work: impl Future<Output = T>) -> Option<T> {
    let late = timers::sleep(patience);
    futures::pin_mut!(work, late);
    match select(work, late).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// Takes up a choice that the session has recorded already.
pub(crate) fn set_active(vm: Option<String>) {
    SESSION.with_borrow_mut(|s| s.active = vm);
}

/// The VM that was active when the session was last open.
pub(crate) async fn recorded() -> Option<String> {
    let entries = match session::entries(Some(ENTRY.into())).await {
        Ok(entries) => entries,
        Err(error) => {
            failure("Cannot read which VM was active", &error);
            return None;
        }
    };
    args::parse::<Entry>(entries.last()?).ok()?.vm_id
}

/// Names of the session's files on a VM.
pub(crate) fn names() -> Names {
    Names::new(digest::short_name(&session::id(), 16))
}

/// The working directory that the session's commands left behind on a VM; none is the home directory.
///
/// # Errors
/// When the VM cannot be asked.
pub(crate) async fn working_directory(vm: &str) -> Result<Option<String>, Error> {
    if let Some(known) = SESSION.with_borrow(|s| s.directories.get(vm).cloned()) {
        return Ok(known);
    }
    let directory = match remote::read_all(vm, &names().state(), LONGEST_STATE).await {
        Ok(bytes) => parse_state(&bytes),
        Err(Error::NotFound(_) | Error::Limit(_)) => None,
        Err(error) => return Err(error),
    };
    SESSION.with_borrow_mut(|s| s.directories.insert(vm.into(), directory.clone()));
    Ok(directory)
}

/// A command runs on a VM: where it will leave the working directory is not known.
pub(crate) fn forget_directory(vm: &str) {
    SESSION.with_borrow_mut(|s| s.directories.remove(vm));
}

/// Forgets what was learned about a VM that is gone.
pub(crate) fn forget(vm: &str) {
    SESSION.with_borrow_mut(|s| {
        s.directories.remove(vm);
        s.dialects.remove(vm);
    });
}

/// The program that searches on a VM, as far as is known.
pub(crate) fn dialect(vm: &str) -> Dialect {
    SESSION.with_borrow(|s| s.dialects.get(vm).copied().unwrap_or(Dialect::Ripgrep))
}

/// Remembers the program that searches on a VM.
pub(crate) fn set_dialect(vm: &str, dialect: Dialect) {
    SESSION.with_borrow_mut(|s| s.dialects.insert(vm.into(), dialect));
}

/// `--vers-ssh-timeout`, in seconds; 0 is none.
pub(crate) fn default_timeout() -> f64 {
    let value = match session::flag("vers-ssh-timeout") {
        Some(types::FlagValue::Number(seconds)) => Some(seconds),
        Some(FlagValue::Text(text)) => text.trim().parse().ok(),
        Some(FlagValue::Boolean(_)) | None => None,
    };
    value
        .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        .unwrap_or(DEFAULT_TIMEOUT)
}
