//! The control plane of a fleet.

use serde_json::json;

use super::Kit;
use super::world::{wait_for, world};
use crate::Error;
use crate::bindings::vers::platform::fleet::{Golden, Member, Source};

#[derive(Default)]
pub(crate) struct Fleet {
    is_there: bool,
    golden: Option<String>,
    members: Vec<Member>,
}

/// Which commit agent VMs are restored from.
pub async fn golden_commit(explicit: Option<String>, ensure: bool) -> Result<Golden, Error> {
    wait_for(
        "fleet.golden-commit",
        json!({ "explicit": explicit, "ensure": ensure }),
    )
    .await?;
    if let Some(commit) = explicit {
        return Ok(Golden {
            commit,
            source: Source::Explicit,
        });
    }
    let golden = world(|world| world.fleet.golden.clone());
    golden
        .map(|commit| Golden {
            commit,
            source: Source::Environment,
        })
        .ok_or_else(|| Error::NotFound("there is no golden commit".into()))
}

/// Whether there is a control plane.
#[must_use]
pub fn available() -> bool {
    world(|world| world.fleet.is_there)
}

fn there() -> Result<(), Error> {
    if available() {
        Ok(())
    } else {
        Err(Error::Unavailable("there is no control plane".into()))
    }
}

/// Adds or replaces a member.
pub async fn register(member: Member) -> Result<(), Error> {
    wait_for(
        "fleet.register",
        json!({ "vm": member.vm, "name": member.name, "role": member.role }),
    )
    .await?;
    there()?;
    world(|world| {
        world.fleet.members.retain(|one| one.vm != member.vm);
        world.fleet.members.push(member);
    });
    Ok(())
}

/// Removes a member.
pub async fn deregister(vm: String) -> Result<(), Error> {
    wait_for("fleet.deregister", json!({ "vm": vm })).await?;
    there()?;
    world(|world| world.fleet.members.retain(|one| one.vm != vm));
    Ok(())
}

/// The members, of one role or all.
pub async fn members(role: Option<String>) -> Result<Vec<Member>, Error> {
    wait_for("fleet.members", json!({ "role": role })).await?;
    there()?;
    Ok(world(|world| {
        let all = world.fleet.members.iter();
        all.filter(|one| role.as_ref().is_none_or(|role| *role == one.role))
            .cloned()
            .collect()
    }))
}

impl Kit {
    /// Gives the fleet a golden commit.
    pub fn golden(&self, commit: &str) {
        world(|world| world.fleet.golden = Some(commit.into()));
    }

    /// Gives the fleet a control plane with these members; there is none without it.
    pub fn control_plane(&self, members: Vec<Member>) {
        world(|world| {
            world.fleet.is_there = true;
            world.fleet.members = members;
        });
    }

    /// The members that the control plane has.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        world(|world| world.fleet.members.clone())
    }
}
