//! A member of the fleet, and how each generation of Reef writes it down.
//!
//! Both have to find what the other wrote: Reef reconnects to agents whose `discovery` says how, and older coordinators look at
//! `registeredBy` and `metadata`. So the names here are theirs, and what one generation keeps elsewhere is put where the other has it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::VmId;

/// A VM of the fleet and what runs on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The VM.
    pub vm: VmId,
    /// What it is called. Reef takes it that an active name is that of one VM.
    pub name: String,
    /// `lieutenant`, `worker`, `infra`, or a category of Reef.
    pub role: String,
    /// Where it answers.
    pub address: String,
    /// Who registered it.
    pub registered_by: String,
    /// Anything else. Both generations know `agentId`, `commitId`, `role` (in words), `parentSession`, `parentVmId`, `parentAgent` and `model`;
    /// others are kept by the older one alone.
    pub metadata: Map<String, Value>,
}

/// Reef's categories, by our roles.
const CATEGORIES: [(&str, &str); 3] = [
    ("worker", "swarm_vm"),
    ("lieutenant", "lieutenant"),
    ("infra", "infra_vm"),
];
/// Those that have no other name.
const OTHERS: [&str; 2] = ["agent_vm", "resource_vm"];

impl Member {
    /// For `/vm-tree`.
    pub(super) fn node(&self, parent: Option<VmId>) -> Value {
        let known = CATEGORIES.iter().find(|(role, _)| *role == self.role);
        let category = match known {
            Some((_, category)) => category,
            None if OTHERS.contains(&self.role.as_str()) => self.role.as_str(),
            // An agent of some kind.
            None => "agent_vm",
        };
        let reconnect = match category {
            "swarm_vm" => Some("swarm"),
            // Nobody reconnects to Reef itself.
            "infra_vm" => None,
            other => Some(other),
        };
        let text = |name: &str| self.metadata.get(name).and_then(Value::as_str);
        let mut discovery = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                discovery.insert(name.into(), value);
            }
        };
        put("registeredVia", Some(json!(self.registered_by)));
        put(
            "agentLabel",
            Some(json!(text("agentId").unwrap_or(&self.name))),
        );
        put("reconnectKind", reconnect.map(Value::from));
        // Without it Reef does not take up a worker again.
        let session = self.metadata.get("parentSession").and_then(Value::as_bool);
        put(
            "parentSession",
            session
                .or((category == "swarm_vm").then_some(true))
                .map(Value::from),
        );
        put("commitId", text("commitId").map(Value::from));
        let hint = text("role").or((category == "agent_vm").then_some(self.role.as_str()));
        put("roleHint", hint.map(Value::from));
        let parent = text("parentVmId")
            .and_then(|id| id.parse().ok())
            .or(parent)
            .map(|id| id.to_string());
        let mut node = json!({
            "vmId": self.vm,
            "name": self.name,
            "category": category,
            "address": self.address,
            "status": "running",
            "lastHeartbeat": now(),
            "spawnedBy": text("parentAgent").unwrap_or(&self.registered_by),
            "discovery": discovery,
        });
        if let Some(node) = node.as_object_mut() {
            // A name that is there replaces what Reef knows, also by nothing.
            node.extend(parent.map(|id| ("parentId".to_owned(), Value::from(id))));
            node.extend(text("model").map(|model| ("model".to_owned(), Value::from(model))));
        }
        node
    }

    /// For `/registry`.
    pub(super) fn record(&self, parent: Option<VmId>) -> Value {
        let role = match self.role.as_str() {
            known @ ("infra" | "lieutenant" | "worker" | "golden") => known,
            _ => "custom",
        };
        let mut metadata = self.metadata.clone();
        let mut default = |name: &str, value: Value| {
            metadata.entry(name).or_insert(value);
        };
        default("agentId", json!(self.name));
        if role == "worker" {
            default("parentSession", json!(true));
        }
        if role == "custom" {
            default("role", json!(self.role));
        }
        let mut record = json!({
            "id": self.vm,
            "name": self.name,
            "role": role,
            "status": "running",
            "address": self.address,
            "registeredBy": self.registered_by,
            "metadata": metadata,
        });
        if let (Some(record), Some(parent)) = (record.as_object_mut(), parent) {
            record.insert("parentVmId".into(), json!(parent));
        }
        record
    }

    /// Of `/vm-tree`; none for what is gone, or makes no sense.
    pub(super) fn of_node(node: &Value, domain: &str) -> Option<Self> {
        let text = |name: &str| Some(node.get(name)?.as_str()?.to_owned());
        let status = text("status").unwrap_or_default();
        if matches!(status.as_str(), "destroyed" | "rewound") {
            return None;
        }
        let vm: VmId = text("vmId").or_else(|| text("id"))?.parse().ok()?;
        let category = text("category")?;
        let mut metadata = Map::new();
        let mut keep = |name: &str, value: Option<&Value>| {
            if let Some(value) = value.filter(|value| !value.is_null()) {
                metadata.insert(name.into(), value.clone());
            }
        };
        let discovery = node.get("discovery");
        let hint = |name: &str| discovery.and_then(|it| it.get(name));
        keep("agentId", hint("agentLabel"));
        keep("commitId", hint("commitId"));
        keep("role", hint("roleHint"));
        keep("parentSession", hint("parentSession"));
        keep("reconnectKind", hint("reconnectKind"));
        keep(
            "parentVmId",
            node.get("parentId").or_else(|| node.get("parentVmId")),
        );
        keep("parentAgent", node.get("spawnedBy"));
        keep("lastSeen", node.get("lastHeartbeat"));
        for name in ["model", "status", "createdAt"] {
            keep(name, node.get(name));
        }
        let known = CATEGORIES.iter().find(|(_, known)| *known == category);
        let via = hint("registeredVia").and_then(Value::as_str);
        Some(Self {
            vm,
            name: text("name").unwrap_or_default(),
            role: known.map_or(category, |(role, _)| (*role).to_owned()),
            address: address(text("address"), vm, domain),
            registered_by: via
                .map(str::to_owned)
                .or_else(|| text("spawnedBy"))
                .unwrap_or_default(),
            metadata,
        })
    }

    /// Of `/registry`; none for what makes no sense.
    pub(super) fn of_record(record: &Value, domain: &str) -> Option<Self> {
        let text = |name: &str| Some(record.get(name)?.as_str()?.to_owned());
        let vm: VmId = text("id")?.parse().ok()?;
        let mut metadata = match record.get("metadata") {
            Some(Value::Object(metadata)) => metadata.clone(),
            _ => Map::new(),
        };
        for name in ["status", "lastSeen", "parentVmId"] {
            if let Some(value) = record.get(name).filter(|value| !value.is_null()) {
                metadata.insert(name.into(), value.clone());
            }
        }
        Some(Self {
            vm,
            name: text("name").unwrap_or_default(),
            role: text("role")?,
            address: address(text("address"), vm, domain),
            registered_by: text("registeredBy").unwrap_or_default(),
            metadata,
        })
    }
}

fn address(told: Option<String>, vm: VmId, domain: &str) -> String {
    told.filter(|address| !address.is_empty())
        .unwrap_or_else(|| format!("{vm}.{domain}"))
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    const VM: &str = "0a0b0c0d-0000-4000-8000-000000000001";
    const PARENT: &str = "0a0b0c0d-0000-4000-8000-000000000002";

    fn member(role: &str, metadata: Value) -> Member {
        Member {
            vm: VM.parse().unwrap(),
            name: "w1".into(),
            role: role.into(),
            address: "w1.example".into(),
            registered_by: "vers-swarm".into(),
            metadata: metadata.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn reef_finds_what_we_write_by_the_hints_that_it_looks_at() {
        let worker = member(
            "worker",
            json!({ "agentId": "w1", "commitId": "c", "parentAgent": "boss" }),
        );
        let node = worker.node(Some(PARENT.parse().unwrap()));
        assert_eq!(node["category"], "swarm_vm");
        assert_eq!(node["status"], "running");
        assert_eq!(node["parentId"], PARENT);
        assert_eq!(node["spawnedBy"], "boss");
        assert_eq!(
            node["discovery"],
            json!({ "registeredVia": "vers-swarm", "agentLabel": "w1", "parentSession": true, "reconnectKind": "swarm", "commitId": "c" })
        );
        let lieutenant = member(
            "lieutenant",
            json!({ "role": "writes the tests", "model": "m" }),
        );
        let node = lieutenant.node(None);
        assert_eq!(node["category"], "lieutenant");
        assert_eq!(node["model"], "m");
        assert_eq!(
            node["discovery"],
            json!({ "registeredVia": "vers-swarm", "agentLabel": "w1", "reconnectKind": "lieutenant", "roleHint": "writes the tests" })
        );
        assert!(node.get("parentId").is_none());
    }

    #[test]
    fn older_coordinators_find_what_we_write_by_who_registered_it() {
        let record = member("worker", json!({ "commitId": "c" })).record(None);
        assert_eq!(record["registeredBy"], "vers-swarm");
        assert_eq!(record["role"], "worker");
        assert_eq!(
            record["metadata"],
            json!({ "agentId": "w1", "commitId": "c", "parentSession": true })
        );
        let record = member("resource_vm", json!({})).record(None);
        assert_eq!(
            (&record["role"], &record["metadata"]["role"]),
            (&json!("custom"), &json!("resource_vm"))
        );
    }

    #[test]
    fn what_is_gone_or_makes_no_sense_is_no_member() {
        let node = |status: &str| json!({ "vmId": VM, "name": "x", "category": "swarm_vm", "status": status });
        let of = |node: &Value| Member::of_node(node, "vm.example");
        assert_eq!(
            of(&node("running")).unwrap().address,
            format!("{VM}.vm.example")
        );
        for gone in ["destroyed", "rewound"] {
            assert!(of(&node(gone)).is_none());
        }
        for broken in [
            json!(1),
            json!({}),
            json!({ "vmId": "x", "category": "swarm_vm" }),
        ] {
            assert!(of(&broken).is_none() && Member::of_record(&broken, "d").is_none());
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
            Just(json!(VM)),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let name = "vmId|id|name|category|role|status|address|discovery|metadata|agentLabel|commitId|[a-z]{0,4}";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_entry_is_read_without_panic(entry in json_value()) {
            let _ = (Member::of_node(&entry, "d"), Member::of_record(&entry, "d"));
        }

        #[test]
        fn a_member_is_read_back_from_both_generations(
            role in "worker|lieutenant|infra|agent_vm|resource_vm",
            name in "\\PC{1,12}", by in "\\PC{0,12}", address in "[a-z.]{1,12}", commit in "\\PC{0,8}", session in any::<bool>(),
        ) {
            let metadata = json!({ "agentId": name, "commitId": commit, "parentSession": session, "model": "m", "role": "r" });
            let written = Member { name: name.clone(), registered_by: by, address, ..member(&role, metadata) };
            let tree = Member::of_node(&written.node(None), "d").unwrap();
            let registry = Member::of_record(&written.record(None), "d").unwrap();
            for read in [&tree, &registry] {
                prop_assert_eq!((read.vm, &read.name, &read.address, &read.registered_by), (written.vm, &written.name, &written.address, &written.registered_by));
                for (key, value) in &written.metadata {
                    prop_assert_eq!(read.metadata.get(key), Some(value), "{}", key);
                }
            }
            prop_assert_eq!(&tree.role, &role);
            let custom = role.ends_with("_vm");
            prop_assert_eq!(&registry.role, if custom { "custom" } else { &role });
        }
    }
}
