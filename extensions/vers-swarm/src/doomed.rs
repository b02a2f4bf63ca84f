//! VMs that nobody was told of.
//!
//! A VM that is made is deleted again unless somebody says that it is kept: whatever becomes of the call that made it. A call that
//! was given up can do nothing more itself, so the deletion is handed to the background, and the session's end waits for it.

use std::cell::Cell;

use pi_vers_sdk::bell::Bell;
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::harness::ui::{self, Severity};
use pi_vers_sdk::platform::vms;
use pi_vers_sdk::show::warning;
use pi_vers_sdk::{Error, background, outcome};

/// How often a deletion is tried.
const TRIES: u32 = 4;
/// The wait after the first failure, in milliseconds; it doubles.
const BACKOFF: u64 = 1_000;

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
    static OVER: Bell = const { Bell::new() };
}

/// A VM that is being made or deleted. The session's end waits for it.
struct UnderWay(());

impl UnderWay {
    fn new() -> Self {
        UNDER_WAY.set(UNDER_WAY.get() + 1);
        Self(())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get().saturating_sub(1));
        if UNDER_WAY.get() == 0 {
            OVER.with(Bell::ring);
        }
    }
}

/// A new VM. Dropped, it is deleted.
#[derive(Debug)]
pub(crate) struct Doomed(Option<String>);

impl Doomed {
    pub(crate) fn new(vm: String) -> Self {
        Self(Some(vm))
    }

    /// Makes one from a commit. Given up, the VM is deleted as soon as there is one.
    pub(crate) async fn restored(commit: String) -> Result<Self, Error> {
        let under_way = UnderWay::new();
        background::claimed(async move {
            let made = vms::restore(vms::Origin::Commit(commit)).await;
            let made = made.map(Self::new);
            drop(under_way);
            made
        })
        .await
    }

    pub(crate) fn vm(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// It is somebody's now.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }

    /// Deletes it now, and says in words what became of it. Given up, it is deleted later.
    pub(crate) async fn delete(mut self) -> String {
        let vm = self.vm().to_owned();
        match delete(&vm).await {
            Ok(()) => {
                self.0 = None;
                "The VM was deleted.".into()
            }
            Err(error) => format!(
                "Deleting the VM failed ({}) and is tried again in the background.",
                outcome::explain(&error)
            ),
        }
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        if let Some(vm) = self.0.take() {
            background::spawn(insist(vm, UnderWay::new()));
        }
    }
}

/// Deletes a VM; one that is gone already counts as deleted.
///
/// # Errors
/// The platform's.
pub(crate) async fn delete(vm: &str) -> Result<(), Error> {
    match vms::delete(vm.to_owned()).await {
        Ok(()) | Err(Error::NotFound(_)) => Ok(()),
        // The platform says this of a VM that does not exist, too.
        Err(Error::Denied(why)) => match vms::get(vm.to_owned()).await {
            Err(Error::NotFound(_)) => Ok(()),
            _ => Err(Error::Denied(why)),
        },
        Err(error) => Err(error),
    }
}

async fn insist(vm: String, _under_way: UnderWay) {
    for tried in 0..TRIES {
        match delete(&vm).await {
            Ok(()) => break,
            Err(Error::Cancelled) => {
                left(&vm, "the session ended");
                break;
            }
            Err(error) if tried + 1 == TRIES => left(&vm, &outcome::explain(&error)),
            Err(_) => {
                if timers::sleep(BACKOFF << tried).await.is_err() {
                    left(&vm, "the session ended");
                    break;
                }
            }
        }
    }
}

fn left(vm: &str, why: &str) {
    let text = format!(
        "VM {vm}, which nobody uses, could not be deleted: {why}. `pi-vers fleet gc` or vers_vm_delete deletes it."
    );
    warning(&text);
    ui::notify(&text, Severity::Warning);
}

/// Waits until all that is to be deleted is.
pub(crate) async fn all_deleted() {
    while UNDER_WAY.get() > 0 {
        OVER.with(Bell::next).await;
    }
}
