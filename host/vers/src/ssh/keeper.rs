//! The task beside each connection that ends it: when it is silent, and when nobody uses it.
//!
//! # Silence
//!
//! Keepalives go out every two seconds. A connection that stays silent for [`SILENCE`] and [`PROOF`] is dead, or its VM
//! is paused: the platform is asked. If it says that the VM is up, or cannot say, the connection is given up, and commands on it fail
//! as lost. A paused VM keeps its commands: taking a commit pauses it for a moment, and all goes on afterwards. So its
//! connections are kept for [`PAUSE`], unless nobody uses them; then they are given up with that reason.
//!
//! # Idleness
//!
//! A connection holds memory and a process on the VM, and may keep it from being put to sleep. What nothing has used for
//! [`SshOptions::idle`](super::SshOptions::idle) is closed, further connections after [`FURTHER`] already. Use begins and
//! ends with a [`Held`](super::lease::Held), which the task hears of; it holds the connection itself only while it acts.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::connection::Link;
use super::machine::{Connection, Machine, Word};
use super::pins::{First, Pins};
use crate::api::{Api, VmId};

/// A keepalive without an answer, and the time for another.
const SILENCE: Duration = Duration::from_secs(4);
/// The last chance. A process that was stopped itself finds a long silence that was its own.
const PROOF: Duration = Duration::from_secs(2);
/// How long the commands of a paused VM are kept.
const PAUSE: Duration = Duration::from_secs(30);
/// How long connections beyond the first are kept.
const FURTHER: Duration = Duration::from_secs(30);
/// How long the platform may take to tell a VM's ancestry.
const ANCESTRY: Duration = Duration::from_secs(10);

/// Ends with the connection.
pub(super) fn start(machine: &Arc<Machine>, connection: &Arc<Connection>) {
    let keeper = Keeper {
        vm: machine.vm,
        idle: machine.options.idle,
        machine: Arc::downgrade(machine),
        connection: Arc::downgrade(connection),
    };
    let link = connection.link().clone();
    let users = connection.users().subscribe();
    let known = machine.dialer.clone();
    let api = machine.api.clone();
    tokio::spawn(async move {
        let watching = async {
            let ((), ()) = tokio::join!(
                note_ancestry(link.vm, link.first, &api, &known.pins),
                keeper.mind_silence(&link)
            );
        };
        tokio::select! {
            () = watching => {}
            () = keeper.mind_idleness(users) => {}
            () = link.closed().cancelled() => {}
        }
    });
}

/// A branch resumes with its parent's host key. One that has another key has made it itself, or is not what it claims;
/// that is worth a line in the log, and no more (see [`pins`](super::pins)).
async fn note_ancestry(vm: VmId, first: First, api: &Api, pins: &Pins) {
    if first != First::WithNewKey {
        return;
    }
    let Ok(Ok(metadata)) = timeout(ANCESTRY, api.metadata(vm)).await else {
        return;
    };
    if let Some(parent) = metadata.grandparent_vm_id
        && pins.knows(parent).await
    {
        tracing::warn!(
            %vm, %parent,
            "this VM descends from one that is known, and does not have its host key; accepted as a first use"
        );
    }
}

struct Keeper {
    vm: VmId,
    idle: Duration,
    machine: Weak<Machine>,
    connection: Weak<Connection>,
}

impl Keeper {
    /// Returns when the connection was given up.
    async fn mind_silence(&self, link: &Link) {
        loop {
            link.pulse().silence(SILENCE).await;
            let began = Instant::now();
            let Some(machine) = self.machine.upgrade() else {
                return link.fail();
            };
            let proof = tokio::time::sleep(PROOF);
            let asked = tokio::select! {
                () = link.pulse().sign() => continue,
                (asked, ()) = async { tokio::join!(machine.ask(), proof) } => asked,
            };
            drop(machine);
            match asked {
                Ok(Word::State(state)) => {
                    tracing::debug!(vm = %self.vm, state = state.as_str(), "a connection is dead");
                    return link.fail_because("its network path is dead");
                }
                Ok(Word::Silence(error)) => {
                    tracing::debug!(vm = %self.vm, %error, "a connection is dead");
                    return link.fail_because("the network is down");
                }
                Err(error) if error.kind() == crate::Kind::Conflict && self.is_used() => {
                    tokio::select! {
                        () = link.pulse().sign() => {}
                        () = sleep_until(began + PAUSE) => return link.fail_because("the VM is paused"),
                    }
                }
                Err(error) if error.kind() == crate::Kind::Conflict => {
                    return link.fail_because("the VM is paused");
                }
                Err(error) => {
                    tracing::debug!(vm = %self.vm, %error, "a connection is dead");
                    return link.fail_because("the VM is gone");
                }
            }
        }
    }

    fn is_used(&self) -> bool {
        let (Some(machine), Some(connection)) = (self.machine.upgrade(), self.connection.upgrade())
        else {
            return false;
        };
        machine.state().is_used(&connection)
    }

    /// Returns when the connection was closed, or dropped.
    async fn mind_idleness(&self, mut users: tokio::sync::watch::Receiver<usize>) {
        loop {
            if users.wait_for(|users| *users == 0).await.is_err() {
                return;
            }
            users.mark_unchanged();
            let since = Instant::now();
            let mut after = FURTHER.min(self.idle);
            loop {
                let Some(at) = since.checked_add(after) else {
                    // For ever.
                    return std::future::pending().await;
                };
                tokio::select! {
                    changed = users.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    () = sleep_until(at) => {}
                }
                let (Some(machine), Some(connection)) =
                    (self.machine.upgrade(), self.connection.upgrade())
                else {
                    return;
                };
                if after < self.idle && machine.is_last(&connection) {
                    after = self.idle;
                } else if machine.retire(&connection) {
                    return;
                } else {
                    // Used after all, by files: look again.
                    break;
                }
            }
        }
    }
}
