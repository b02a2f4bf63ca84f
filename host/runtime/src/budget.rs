//! What extensions may use up of the platform: how many VMs, how deep agents may make agents, and for how long.
//!
//! The count is taken before the platform is asked and given back when nothing came of it: calls run side by side, and whoever
//! counts afterwards lets twenty of them through at once. What is over time is paused and never deleted: its work may be the only copy.
//! All this holds for the VMs of one session. Whose session has ended is found by its labels: `pi-vers fleet`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pi_vers_policy::{Limits, Unit};
use tokio::task::JoinSet;
use vers_client::api::{SetState, VmState};
use vers_client::{Environment, Kind, VmId};

use crate::bindings::vers::harness::types::Error as WitError;
use crate::services::Services;
use crate::types::Severity;

/// How deep this host stands: an agent that nobody started is at 0, one that it starts at 1.
const DEPTH: &str = "VERS_AGENT_DEPTH";

/// The VMs that the extensions of one session made.
#[derive(Default)]
pub(crate) struct Budget {
    held: Mutex<HashMap<Arc<str>, Held>>,
    /// Waits for the ends of lifetimes; ends with the session.
    clocks: Mutex<JoinSet<()>>,
}

/// Of one extension.
#[derive(Default)]
struct Held {
    /// Whether the time of each is over.
    vms: HashMap<VmId, bool>,
    /// Asked for, and not there yet.
    coming: u64,
}

/// Room for VMs that were asked for. Dropped, it is free again.
pub(crate) struct Room {
    services: Arc<Services>,
    extension: Arc<str>,
    count: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(held) = self.services.budget.held().get_mut(&self.extension) {
            held.coming = held.coming.saturating_sub(self.count);
        }
    }
}

impl Budget {
    fn held(&self) -> MutexGuard<'_, HashMap<Arc<str>, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this extension made the VM in this session.
    pub(crate) fn is_own(&self, extension: &Arc<str>, vm: VmId) -> bool {
        self.held()
            .get(extension)
            .is_some_and(|held| held.vms.contains_key(&vm))
    }

    /// Whether it did, and the VM was paused because its time was over.
    pub(crate) fn is_over(&self, extension: &Arc<str>, vm: VmId) -> bool {
        let over = |held: &Held| held.vms.get(&vm).copied();
        self.held().get(extension).and_then(over) == Some(true)
    }

    /// A VM that is deleted.
    pub(crate) fn gone(&self, vm: VmId) {
        for held in self.held().values_mut() {
            held.vms.remove(&vm);
        }
    }

    fn expire(&self, extension: &Arc<str>, vm: VmId) -> bool {
        let mut held = self.held();
        let over = held.get_mut(extension).and_then(|it| it.vms.get_mut(&vm));
        over.map(|over| *over = true).is_some()
    }
}

/// Room for this many VMs of the extension, unless a limit is in the way.
pub(crate) fn room(
    services: &Arc<Services>,
    extension: &Arc<str>,
    limits: &Limits,
    count: u64,
) -> Result<Room, WitError> {
    let own = depth(services.api.settings().environment())?;
    if own >= limits.depth {
        let most = limits.depth;
        return Err(WitError::Limit(format!(
            "this agent was started {own} levels below the first one ({DEPTH}), and the limit `depth` of {extension} lets agents make VMs above level {most} alone: ask the agent that started this one"
        )));
    }
    let mut all = services.budget.held();
    let held = all.entry(extension.clone()).or_default();
    let have = u64::try_from(held.vms.len()).unwrap_or(u64::MAX);
    let coming = held.coming;
    if have.saturating_add(coming).saturating_add(count) > limits.vms {
        let most = limits.vms;
        let coming = match coming {
            0 => String::new(),
            coming => format!(" and asked for {coming} more"),
        };
        return Err(WitError::Limit(format!(
            "{extension} has {have} VMs of its own{coming}, and its limit `vms` allows {most}: delete some first"
        )));
    }
    held.coming = coming.saturating_add(count);
    Ok(Room {
        services: services.clone(),
        extension: extension.clone(),
        count,
    })
}

/// How many agents stand above this one. What cannot be read is no permission.
fn depth(environment: &Environment) -> Result<u64, WitError> {
    let Some(text) = environment.get(DEPTH) else {
        return Ok(0);
    };
    text.parse().map_err(|_| {
        WitError::Limit(format!(
            "{DEPTH}={} is no number, so nobody knows how deep this agent stands: VMs are not made",
            crate::types::visible(&text)
        ))
    })
}

/// The value of a variable that the host knows better than a guest: an agent that is started stands one deeper than this host,
/// whatever the guest believes, since it may not be allowed to know.
pub(crate) fn known(services: &Services, name: &str) -> Option<String> {
    let own = || depth(services.api.settings().environment()).unwrap_or(u64::MAX);
    (name == DEPTH).then(|| own().saturating_add(1).to_string())
}

/// Hands VMs over to the extension that asked for them, and starts their clocks.
pub(crate) fn claim(mut room: Room, limits: &Limits, vms: &[VmId]) {
    let count = std::mem::take(&mut room.count);
    let (services, extension) = (&room.services, &room.extension);
    let mut all = services.budget.held();
    let held = all.entry(extension.clone()).or_default();
    // At once: nobody may count them twice, or not at all.
    held.coming = held.coming.saturating_sub(count);
    held.vms.extend(vms.iter().map(|vm| (*vm, false)));
    drop(all);
    let lifetime = limits.vm_lifetime;
    if lifetime == u64::MAX {
        return;
    }
    let clocks = &services.budget.clocks;
    let mut clocks = clocks.lock().unwrap_or_else(PoisonError::into_inner);
    while clocks.try_join_next().is_some() {}
    for vm in vms.iter().copied() {
        let (services, extension) = (Arc::downgrade(services), extension.clone());
        clocks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(lifetime)).await;
            if let Some(services) = services.upgrade() {
                over(&services, &extension, vm, lifetime).await;
            }
        });
    }
}

/// Pauses a VM whose time is over, and says so.
async fn over(services: &Services, extension: &Arc<str>, vm: VmId, lifetime: u64) {
    // Deleted meanwhile.
    if !services.budget.expire(extension, vm) {
        return;
    }
    let time = Unit::Time.format(lifetime);
    let still = match services.api.vm(vm).await {
        Ok(found) => matches!(found.state, VmState::Booting | VmState::Running),
        Err(why) if why.kind() == Kind::NotFound => return services.budget.gone(vm),
        Err(_) => true,
    };
    let paused = match still {
        true => services.api.set_state(vm, SetState::Paused).await,
        false => Ok(()),
    };
    let (severity, text) = match paused {
        Ok(()) => {
            services.ssh.abandon(vm).await;
            tracing::info!(target: "audit", extension = &**extension, %vm, lifetime = %time, "paused: its time is over");
            let text = format!(
                "VM {vm} was paused: {extension} made it {time} ago, as long as its limit vm-lifetime allows. Nothing of it is lost."
            );
            (Severity::Warning, text)
        }
        Err(why) => {
            tracing::warn!(target: "audit", extension = &**extension, %vm, lifetime = %time, %why, "its time is over, and it could not be paused");
            let text = format!(
                "VM {vm} runs longer than the {time} that the limit vm-lifetime of {extension} allows, and could not be paused: {why}"
            );
            (Severity::Error, text)
        }
    };
    services.harness.notify(extension, &text, severity);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_deep_an_agent_stands_is_known_or_it_makes_nothing() {
        let told = |value: &str| depth(&Environment::of([(DEPTH, value)]));
        assert!(matches!(depth(&Environment::of([("", ""); 0])), Ok(0)));
        assert!(matches!(told(" 2 "), Ok(2)));
        for broken in ["-1", "two", "1e3", "99999999999999999999"] {
            assert!(matches!(told(broken), Err(WitError::Limit(_))), "{broken}");
        }
    }
}
