//! What a guest may use up of the platform, and what it is told by the control plane of a fleet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use pi_vers_host::Refusal;
use pi_vers_host::platform::{Environment, Overrides, Settings};
use pi_vers_host::secrets::Secrets;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{Bench, Front};
use crate::{SOON, refused};

const COMMIT: &str = "c0000000-0000-4000-8000-000000000001";
const VM: &str = "0a0b0c0d-0000-4000-8000-000000000001";

/// How many VMs were ever asked for, and made, and the states of those that are there.
#[derive(Default)]
struct Vms {
    asked: usize,
    made: usize,
    states: BTreeMap<String, String>,
}

/// The platform and Reef on one port.
struct Stub {
    vms: watch::Sender<Vms>,
    nodes: Mutex<Vec<Value>>,
    /// How long making a VM takes.
    slow: Duration,
}

impl Stub {
    async fn start(slow: Duration) -> (Arc<Self>, String) {
        let stub = Arc::new(Self {
            vms: watch::Sender::default(),
            nodes: Mutex::default(),
            slow,
        });
        let app = Router::new().fallback(answer).with_state(stub.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (stub, base)
    }

    fn states(&self) -> Vec<String> {
        self.vms.borrow().states.values().cloned().collect()
    }
}

async fn answer(
    State(stub): State<Arc<Stub>>,
    method: Method,
    uri: Uri,
    body: String,
) -> (StatusCode, String) {
    let path: Vec<&str> = uri.path().split('/').skip(1).collect();
    let said = match (method.as_str(), path.as_slice()) {
        ("POST", ["api", "v1", "vm", "new_root"]) => {
            stub.vms.send_modify(|vms| vms.asked += 1);
            tokio::time::sleep(stub.slow).await;
            let mut id = String::new();
            stub.vms.send_modify(|vms| {
                vms.made += 1;
                id = format!("0a0b0c0d-0000-4000-8000-{:012}", vms.made);
                vms.states.insert(id.clone(), "Running".into());
            });
            json!({ "vm_id": id })
        }
        ("GET", ["api", "v1", "vm", id, "status"]) => match stub.vms.borrow().states.get(*id) {
            Some(state) => {
                json!({ "vm_id": id, "owner_id": id, "created_at": "2026-01-01T00:00:00Z", "state": state })
            }
            None => {
                return (
                    StatusCode::NOT_FOUND,
                    json!({ "error": "none" }).to_string(),
                );
            }
        },
        ("PATCH", ["api", "v1", "vm", id, "state"]) => {
            let wanted: Value = serde_json::from_str(&body).unwrap();
            let state = wanted["state"].as_str().unwrap().to_owned();
            stub.vms
                .send_modify(|vms| drop(vms.states.insert((*id).into(), state)));
            return (StatusCode::OK, String::new());
        }
        ("DELETE", ["api", "v1", "vm", id]) => {
            stub.vms.send_modify(|vms| drop(vms.states.remove(*id)));
            json!({ "vm_id": id })
        }
        ("GET", ["commits", "current", "golden"]) => json!({ "commitId": COMMIT }),
        ("POST", ["vm-tree", "vms"]) => {
            let node: Value = serde_json::from_str(&body).unwrap();
            stub.nodes.lock().unwrap().push(node.clone());
            node
        }
        ("GET", ["vm-tree", "vms"]) => json!({ "vms": *stub.nodes.lock().unwrap() }),
        ("DELETE", ["vm-tree", "vms", _]) => {
            stub.nodes.lock().unwrap().clear();
            json!({ "deleted": true })
        }
        other => panic!("{other:?}"),
    };
    (StatusCode::OK, said.to_string())
}

async fn bench(base: &str, rules: &str, more: &[(&str, &str)]) -> Bench {
    let api = format!("{base}/api/v1");
    let variables = [
        ("VERS_BASE_URL", api.as_str()),
        ("VERS_API_KEY", "none"),
        ("VERS_INFRA_URL", base),
        ("HOME", "/nonexistent"),
    ];
    let environment = Environment::of(variables.into_iter().chain(more.iter().copied()));
    let settings = Settings::discover(environment, Overrides::default()).unwrap();
    Bench::on(rules, Front::default(), settings, Secrets::new()).await
}

async fn create(bench: &Bench) -> String {
    bench.text("create-vm", json!({})).await
}

const ALL: &str = "vms = [\"create\", \"delete\", \"state\"]";

#[tokio::test(flavor = "multi_thread")]
async fn vms_that_are_asked_for_side_by_side_are_counted_before_they_are_made() {
    let (stub, base) = Stub::start(Duration::from_millis(100)).await;
    let bench = bench(&base, &format!("{ALL}\nlimits = {{ vms = 3 }}"), &[]).await;
    let calls: Vec<_> = (0..8)
        .map(|_| bench.session.call("create-vm", json!({})))
        .collect();
    let mut made = Vec::new();
    for mut call in calls {
        match call.outcome().await {
            Ok(output) => made.push(output.text()),
            Err(why) => assert!(
                why.to_string().contains("its limit `vms` allows 3"),
                "{why}"
            ),
        }
    }
    assert_eq!((made.len(), stub.states().len()), (3, 3));
    bench.text("delete-vm", json!({ "text": made[0] })).await;
    create(&bench).await;
    let (kind, _) = refused(&bench, "create-vm", json!({})).await;
    assert_eq!(kind, Refusal::Limit);
}

#[tokio::test(flavor = "multi_thread")]
async fn room_for_a_vm_is_free_again_when_its_call_was_given_up_and_it_is_deleted() {
    let (stub, base) = Stub::start(Duration::from_millis(200)).await;
    let bench = bench(&base, &format!("{ALL}\nlimits = {{ vms = 1 }}"), &[]).await;
    let mut vms = stub.vms.subscribe();
    let mut call = bench.session.call("create-vm", json!({}));
    let under_way = vms.wait_for(|vms| vms.asked == 1);
    drop(
        tokio::time::timeout(SOON, under_way)
            .await
            .unwrap()
            .unwrap(),
    );
    let (kind, _) = refused(&bench, "create-vm", json!({})).await;
    assert_eq!(kind, Refusal::Limit);
    call.canceller().cancel();
    call.outcome().await.unwrap_err();
    // Made all the same, and deleted.
    let given_back = vms.wait_for(|vms| vms.made == 1 && vms.states.is_empty());
    tokio::time::timeout(SOON, given_back)
        .await
        .unwrap()
        .unwrap();
    let again = async {
        while bench
            .session
            .call("create-vm", json!({}))
            .outcome()
            .await
            .is_err()
        {}
    };
    tokio::time::timeout(SOON, again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_a_vm_is_made_leaves_none() {
    let (stub, base) = Stub::start(Duration::from_millis(300)).await;
    let bench = bench(&base, ALL, &[]).await;
    let mut vms = stub.vms.subscribe();
    let mut calls = [(); 3].map(|()| bench.session.call("create-vm", json!({})));
    let under_way = vms.wait_for(|vms| vms.asked == calls.len());
    drop(
        tokio::time::timeout(SOON, under_way)
            .await
            .unwrap()
            .unwrap(),
    );
    assert!(bench.session.changes_vms());
    // Neither a call that was given up before nor those that the end gives up.
    calls[0].canceller().cancel();
    calls[0].outcome().await.unwrap_err();
    bench.session.clone().end().await;
    let vms = stub.vms.borrow();
    assert_eq!((vms.made, vms.states.len()), (3, 0));
    assert!(!bench.session.changes_vms());
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_below_the_limit_depth_make_no_vms() {
    let (stub, base) = Stub::start(Duration::ZERO).await;
    let at =
        async |depth: &str, rules: &str| bench(&base, rules, &[("VERS_AGENT_DEPTH", depth)]).await;
    for (depth, rules) in [
        ("0", ALL.to_owned()),
        ("2", ALL.to_owned()),
        ("3", format!("{ALL}\nlimits = {{ depth = 4 }}")),
    ] {
        create(&at(depth, &rules).await).await;
    }
    let made = stub.states().len();
    for (depth, rules) in [
        ("3", ALL.to_owned()),
        ("1", format!("{ALL}\nlimits = {{ depth = 1 }}")),
        ("deep", ALL.to_owned()),
    ] {
        let (kind, why) = refused(&at(depth, &rules).await, "create-vm", json!({})).await;
        assert_eq!(kind, Refusal::Limit, "{why}");
        assert!(why.contains("VERS_AGENT_DEPTH"), "{why}");
    }
    assert_eq!(stub.states().len(), made);
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_53_a_vm_whose_time_is_over_is_paused_and_the_user_is_told() {
    let (stub, base) = Stub::start(Duration::ZERO).await;
    let rules = format!("{ALL}\nlimits = {{ vm-lifetime = \"2 s\" }}");
    let bench = bench(&base, &rules, &[]).await;
    let vm = create(&bench).await;
    let deleted = create(&bench).await;
    bench.text("delete-vm", json!({ "text": deleted })).await;
    assert_eq!(stub.states(), ["Running"]);
    let mut vms = stub.vms.subscribe();
    let paused = vms.wait_for(|vms| vms.states.values().all(|state| state == "Paused"));
    tokio::time::timeout(SOON, paused).await.unwrap().unwrap();
    let told = async {
        while !bench.front.told().iter().any(|line| line.contains(&vm)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, told).await.unwrap();
    let told = bench.front.told();
    let line = told.iter().find(|line| line.contains(&vm)).unwrap();
    assert!(
        line.starts_with("unruly Warning") && line.contains("2 s"),
        "{line}"
    );
    assert!(!told.iter().any(|line| line.contains(&deleted)), "{told:?}");
    let (kind, why) = refused(&bench, "resume-vm", json!({ "text": vm })).await;
    assert_eq!(kind, Refusal::Limit, "{why}");
    assert_eq!(stub.states(), ["Paused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_hears_of_the_fleet_what_its_policy_grants() {
    let (stub, base) = Stub::start(Duration::ZERO).await;
    let rules = "fleet = [\"build-golden\", \"register\", \"members\"]";
    let bench = bench(&base, rules, &[]).await;
    let fleet = async |verb: &str, words: &[&str]| {
        bench
            .text("fleet", json!({ "text": verb, "argv": words }))
            .await
    };
    assert_eq!(fleet("available", &[]).await, "true");
    assert_eq!(
        fleet("golden", &[]).await,
        format!("{COMMIT} Source::ControlPlane")
    );
    assert_eq!(
        fleet("golden", &[VM]).await,
        format!("{VM} Source::Explicit")
    );
    fleet("register", &[VM, "{\"commitId\":\"c\"}"]).await;
    assert_eq!(stub.nodes.lock().unwrap()[0]["category"], "swarm_vm");
    let members = fleet("members", &["worker"]).await;
    assert!(members.starts_with(&format!("{VM} worker ")), "{members}");
    assert!(members.contains("\"commitId\":\"c\""), "{members}");
    assert_eq!(fleet("members", &["lieutenant"]).await, "");
    for (words, says) in [
        (["x", "{}"], "not the id of a VM"),
        ([VM, "[]"], "one JSON object"),
    ] {
        let arguments = json!({ "text": "register", "argv": words });
        let (kind, why) = refused(&bench, "fleet", arguments).await;
        assert_eq!(kind, Refusal::Invalid);
        assert!(why.contains(says), "{why}");
    }
    let arguments = json!({ "text": "deregister", "argv": [VM] });
    let (kind, why) = refused(&bench, "fleet", arguments).await;
    assert_eq!(kind, Refusal::Denied);
    assert!(why.contains("add \"deregister\" to fleet"), "{why}");
}
