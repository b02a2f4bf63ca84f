//! Who looks after a lieutenant, when several sessions share one store.
//!
//! Each run of a session is an *instance*. It has a lease in the store, which it renews while it has lieutenants, and its name
//! stands in the record of each lieutenant it looks after: that it follows and announces. A record is written by `swap` alone,
//! from what its owner wrote last: so an owner that was taken over learns it with its next write, before it announces anything,
//! and two never announce the same run.
//!
//! A lieutenant may be taken over when it has no owner (the session ended well), when its owner's lease has run out (it was
//! killed), and by the session it belongs to, whoever has it: a session that is resumed finds its lieutenants again, although
//! another one has looked after them meanwhile. Why not simply whoever comes last: two sessions side by side would take them from
//! each other.

use serde::{Deserialize, Serialize};

use crate::record::Record;

/// Where leases lie in the store.
pub const PREFIX: &str = "lease/";
/// How long a lease lasts, in milliseconds.
pub const LENGTH: u64 = 60_000;
/// How often it is renewed: three chances before it runs out.
pub const RENEWAL: u64 = 18_000;

/// An instance is alive at least until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The session it is a run of.
    pub session: String,
    /// In milliseconds since 1970.
    pub until: u64,
}

/// A run of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The session's id.
    pub session: String,
    /// Its name, which no other run has.
    pub name: String,
}

impl Instance {
    /// The key of this instance's lease.
    #[must_use]
    pub fn key(name: &str) -> String {
        format!("{PREFIX}{name}")
    }
}

/// Whose a lieutenant is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Ours already.
    Ours,
    /// Ours if we want.
    Free,
    /// Another instance has it, at least until then.
    Held(u64),
}

/// Whose this lieutenant is. `lease` is that of its owner, if there is one.
#[must_use]
pub fn claim(record: &Record, lease: Option<&Lease>, me: &Instance, now: u64) -> Claim {
    let Some(owner) = &record.owner else {
        return Claim::Free;
    };
    if *owner == me.name {
        return Claim::Ours;
    }
    let Some(lease) = lease else {
        return Claim::Free;
    };
    // A clock that was set back must not keep a lieutenant for ever.
    let until = lease.until.min(now + LENGTH);
    if lease.until <= now || record.session == me.session || lease.session == me.session {
        return Claim::Free;
    }
    Claim::Held(until)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn record(session: &str, owner: Option<&str>) -> Record {
        let value = json!({ "name": "a", "role": "r", "phase": "idle", "created": 1, "active": 2, "session": session, "owner": owner });
        serde_json::from_value(value).unwrap()
    }

    fn lease(session: &str, until: u64) -> Option<Lease> {
        Some(Lease {
            session: session.into(),
            until,
        })
    }

    fn me() -> Instance {
        Instance {
            session: "mine".into(),
            name: "mine#2".into(),
        }
    }

    fn whose(record: &Record, lease: Option<&Lease>) -> Claim {
        claim(record, lease, &me(), 1000)
    }

    #[test]
    fn two_coordinators_that_live_do_not_share_a_lieutenant() {
        let theirs = record("theirs", Some("theirs#1"));
        let held = lease("theirs", 5000);
        assert_eq!(whose(&theirs, held.as_ref()), Claim::Held(5000));
        assert_eq!(whose(&record("mine", Some("mine#2")), None), Claim::Ours);
    }

    #[test]
    fn a_dead_coordinators_lieutenants_are_taken_over() {
        let theirs = record("theirs", Some("theirs#1"));
        assert_eq!(whose(&theirs, None), Claim::Free);
        assert_eq!(whose(&theirs, lease("theirs", 1000).as_ref()), Claim::Free);
        assert_eq!(whose(&record("theirs", None), None), Claim::Free);
    }

    #[test]
    fn a_resumed_session_gets_its_own_back_at_once() {
        // Its last run was killed a moment ago.
        let own = record("mine", Some("mine#1"));
        assert_eq!(whose(&own, lease("mine", 50_000).as_ref()), Claim::Free);
        // Another session had taken it over meanwhile.
        let lent = record("mine", Some("theirs#1"));
        assert_eq!(whose(&lent, lease("theirs", 50_000).as_ref()), Claim::Free);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_for_ever() {
        let theirs = record("theirs", Some("theirs#1"));
        let far = lease("theirs", u64::MAX / 2);
        assert_eq!(whose(&theirs, far.as_ref()), Claim::Held(1000 + LENGTH));
    }
}
