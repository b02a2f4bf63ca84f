#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method as Verb, StatusCode, Uri};
use serde_json::{Map, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::config::{Environment, Overrides};

const VM: &str = "0a0b0c0d-0000-4000-8000-000000000001";
const OTHER: &str = "0a0b0c0d-0000-4000-8000-000000000002";
const COMMIT: &str = "c0000000-0000-4000-8000-000000000001";
const ELSE: &str = "c0000000-0000-4000-8000-000000000002";
const TOKEN: &str = "the-token-of-the-fleet";

/// What Reef was asked: method, path with query, authorization, body.
type Asked = (String, String, Option<String>, String);
type Answer = Box<dyn Fn(&str, &str, &str) -> (u16, String) + Send + Sync>;

struct Fake {
    answer: Answer,
    /// Before it answers; none is never.
    delay: Option<Duration>,
    asked: Mutex<Vec<Asked>>,
}

/// A server on loopback that answers as it is told, and writes down what it was asked.
struct Server {
    fake: Arc<Fake>,
    url: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn new(
        answer: impl Fn(&str, &str, &str) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        Self::slow(Some(Duration::ZERO), answer).await
    }

    async fn slow(
        delay: Option<Duration>,
        answer: impl Fn(&str, &str, &str) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let fake = Arc::new(Fake {
            answer: Box::new(answer),
            delay,
            asked: Mutex::default(),
        });
        async fn handle(
            State(fake): State<Arc<Fake>>,
            method: Verb,
            uri: Uri,
            headers: HeaderMap,
            body: String,
        ) -> (StatusCode, String) {
            let bearer = headers.get("authorization");
            let bearer = bearer.map(|value| value.to_str().unwrap().to_owned());
            let (method, path) = (method.to_string(), uri.to_string());
            let (status, answer) = (fake.answer)(&method, &path, &body);
            fake.asked
                .lock()
                .unwrap()
                .push((method, path, bearer, body));
            match fake.delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
            (StatusCode::from_u16(status).unwrap(), answer)
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handle).with_state(fake.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { fake, url, task }
    }

    /// A client of it, with these variables.
    fn fleet(&self, variables: &[(&str, &str)]) -> Fleet {
        fleet(
            &[
                &[
                    ("VERS_INFRA_URL", self.url.as_str()),
                    ("VERS_AUTH_TOKEN", TOKEN),
                ],
                variables,
            ]
            .concat(),
        )
    }

    /// Methods and paths, in order.
    fn asked(&self) -> Vec<String> {
        let asked = self.fake.asked.lock().unwrap();
        asked
            .iter()
            .map(|(method, path, ..)| format!("{method} {path}"))
            .collect()
    }

    fn body(&self, at: usize) -> Value {
        serde_json::from_str(&self.fake.asked.lock().unwrap()[at].3).unwrap()
    }
}

fn fleet(variables: &[(&str, &str)]) -> Fleet {
    let environment = Environment::of(variables.iter().copied());
    let settings = Settings::discover(environment, Overrides::default()).unwrap();
    Fleet {
        place: reef::place(&settings),
        reef: Reef::new(
            &settings,
            Duration::from_millis(400),
            Duration::from_millis(900),
        )
        .unwrap(),
    }
}

fn worker() -> Member {
    let metadata = json!({ "agentId": "w1", "commitId": COMMIT });
    Member {
        vm: VM.parse().unwrap(),
        name: "w1".into(),
        role: "worker".into(),
        address: format!("{VM}.vm.vers.sh"),
        registered_by: "vers-swarm".into(),
        metadata: metadata.as_object().unwrap().clone(),
    }
}

fn not_found() -> (u16, String) {
    (404, "404 Not Found".into())
}

/// Today's Reef, as far as `/vm-tree/vms` goes.
async fn reef() -> Server {
    let vms: Mutex<BTreeMap<String, Value>> = Mutex::default();
    Server::new(move |method, path, body| {
        let mut vms = vms.lock().unwrap();
        match (method, path.strip_prefix("/vm-tree/vms")) {
            ("POST", Some("")) => {
                let node: Value = serde_json::from_str(body).unwrap();
                let id = node["vmId"].as_str().unwrap().to_owned();
                // As Reef hands it out.
                let mut stored = node;
                stored["parentVmId"] = stored["parentId"].clone();
                vms.insert(id, stored.clone());
                (201, stored.to_string())
            }
            ("GET", Some("")) => {
                let all: Vec<&Value> = vms.values().collect();
                (200, json!({ "vms": all, "count": all.len() }).to_string())
            }
            ("DELETE", Some(id)) => match vms.get_mut(&id[1..]) {
                Some(node) => {
                    node["status"] = "destroyed".into();
                    (200, json!({ "deleted": true }).to_string())
                }
                None => (404, json!({ "error": "VM not found" }).to_string()),
            },
            _ => not_found(),
        }
    })
    .await
}

/// What came before it: `/registry/vms`, which refuses what it has.
async fn registry() -> Server {
    let vms: Mutex<BTreeMap<String, Value>> = Mutex::default();
    Server::new(move |method, path, body| {
        let mut vms = vms.lock().unwrap();
        match (method, path.strip_prefix("/registry/vms")) {
            ("POST", Some("")) => {
                let record: Value = serde_json::from_str(body).unwrap();
                let id = record["id"].as_str().unwrap().to_owned();
                if vms.contains_key(&id) {
                    return (409, json!({ "error": "VM already registered" }).to_string());
                }
                vms.insert(id, record.clone());
                (201, record.to_string())
            }
            ("PATCH", Some(id)) => {
                let change: Map<String, Value> = serde_json::from_str(body).unwrap();
                let record = vms.get_mut(&id[1..]).unwrap();
                record.as_object_mut().unwrap().extend(change);
                (200, record.to_string())
            }
            ("GET", Some("")) => {
                let all: Vec<&Value> = vms.values().collect();
                (200, json!({ "vms": all, "count": all.len() }).to_string())
            }
            ("DELETE", Some(id)) => match vms.remove(&id[1..]) {
                Some(_) => (200, json!({ "deleted": true }).to_string()),
                None => (404, json!({ "error": "VM not found" }).to_string()),
            },
            _ => not_found(),
        }
    })
    .await
}

#[tokio::test]
async fn a_member_lives_and_dies_in_both_generations_of_reef() {
    for server in [reef().await, registry().await] {
        let fleet = server.fleet(&[("VERS_VM_ID", OTHER)]);
        assert!(fleet.available());
        assert_eq!(fleet.members(None).await.unwrap(), []);
        fleet.register(&worker()).await.unwrap();
        // Again: an agent registers itself, too, and being there is no failure.
        let again = Member {
            name: "w1-again".into(),
            ..worker()
        };
        fleet.register(&again).await.unwrap();
        let members = fleet.members(Some("worker")).await.unwrap();
        assert_eq!(members.len(), 1, "{:?}", server.asked());
        assert_eq!(members[0].vm, again.vm);
        assert_eq!(members[0].name, "w1-again");
        assert_eq!(members[0].registered_by, "vers-swarm");
        assert_eq!(members[0].metadata["commitId"], COMMIT);
        assert_eq!(members[0].metadata["parentSession"], true);
        assert_eq!(members[0].metadata["parentVmId"], OTHER);
        assert_eq!(fleet.members(Some("lieutenant")).await.unwrap(), []);
        fleet.deregister(again.vm).await.unwrap();
        assert_eq!(fleet.members(None).await.unwrap(), []);
        fleet.deregister(OTHER.parse().unwrap()).await.unwrap();
        let asked = server.fake.asked.lock().unwrap();
        let bearer = format!("Bearer {TOKEN}");
        assert!(
            asked
                .iter()
                .all(|(.., told, _)| told.as_ref() == Some(&bearer))
        );
    }
}

#[tokio::test]
async fn entries_that_reef_wrote_itself_are_members() {
    // As Reef's own lieutenants and workers stand there, and one that an older listener made.
    let server = Server::new(|_, path, _| match path {
        "/vm-tree/vms" => (200, json!({ "vms": [
            { "vmId": VM, "name": "lt", "category": "lieutenant", "address": null, "status": "paused", "spawnedBy": "reef",
              "discovery": { "registeredVia": "lieutenant:created", "agentLabel": "lt", "reconnectKind": "lieutenant", "roleHint": "tests" } },
            { "vmId": "01HZZZZZZZZZZZZZZZZZZZZZZZ", "name": "no VM of the platform", "category": "resource_vm" },
            { "vmId": OTHER, "name": "w", "category": "swarm_vm", "status": "running", "discovery": null, "spawnedBy": "lt" },
        ] }).to_string()),
        _ => not_found(),
    })
    .await;
    let members = server.fleet(&[]).members(None).await.unwrap();
    let told: Vec<(&str, &str, &str)> = members
        .iter()
        .map(|member| {
            (
                member.name.as_str(),
                member.role.as_str(),
                member.registered_by.as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("lt", "lieutenant", "lieutenant:created"),
            ("w", "worker", "lt")
        ]
    );
    assert_eq!(members[0].metadata["status"], "paused");
    assert_eq!(members[0].metadata["role"], "tests");
}

#[tokio::test]
async fn a_golden_commit_is_looked_for_in_the_documented_order() {
    let server = Server::new(|_, path, _| match path {
        "/commits/current/golden" => (
            200,
            json!({ "commitId": COMMIT, "source": "store" }).to_string(),
        ),
        other => panic!("{other}"),
    })
    .await;
    let golden = async |fleet: &Fleet, explicit| {
        let golden = fleet.golden_commit(explicit, true).await.unwrap();
        (golden.commit.to_string(), golden.source)
    };
    let fleet = server.fleet(&[("VERS_GOLDEN_COMMIT_ID", ELSE), ("VERS_COMMIT_ID", COMMIT)]);
    assert_eq!(
        golden(&fleet, Some(COMMIT)).await,
        (COMMIT.into(), Source::Explicit)
    );
    assert_eq!(
        golden(&fleet, Some(" ")).await,
        (ELSE.into(), Source::Environment)
    );
    let fleet = server.fleet(&[("VERS_COMMIT_ID", ELSE)]);
    assert_eq!(
        golden(&fleet, None).await,
        (ELSE.into(), Source::Environment)
    );
    assert_eq!(server.asked(), Vec::<String>::new());
    assert_eq!(
        golden(&server.fleet(&[]), None).await,
        (COMMIT.into(), Source::ReefCommits)
    );

    let older = Server::new(|_, path, _| match path {
        "/registry/vms?role=golden" => (
            200,
            json!({ "vms": [{ "metadata": { "commitId": ELSE } }] }).to_string(),
        ),
        _ => not_found(),
    })
    .await;
    assert_eq!(
        golden(&older.fleet(&[]), None).await,
        (ELSE.into(), Source::ReefRegistry)
    );

    let empty = Server::new(|method, path, _| match (method, path) {
        ("POST", "/commits/ensure-golden") => (
            201,
            json!({ "commitId": COMMIT, "created": true }).to_string(),
        ),
        ("GET", "/registry/vms?role=golden") => (200, json!({ "vms": [] }).to_string()),
        _ => (
            404,
            json!({ "error": "golden commit not found" }).to_string(),
        ),
    })
    .await;
    let none = empty
        .fleet(&[])
        .golden_commit(None, false)
        .await
        .unwrap_err();
    assert_eq!(none.kind(), Kind::NotFound);
    assert_eq!(
        none.to_string(),
        "No golden commit available. Pass commitId explicitly, set VERS_GOLDEN_COMMIT_ID/VERS_COMMIT_ID, or configure a Reef root with /commits/ensure-golden."
    );
    assert_eq!(
        golden(&empty.fleet(&[]), None).await,
        (COMMIT.into(), Source::ReefEnsure { created: true })
    );
    let order = [
        "GET /commits/current/golden",
        "GET /registry/vms?role=golden",
        "POST /commits/ensure-golden",
    ];
    assert_eq!(empty.asked()[2..], order);
    assert_eq!(empty.body(4), json!({}));
}

#[tokio::test]
async fn defect_51_looking_for_a_golden_commit_ends_in_time_and_says_what_it_met() {
    let server = Server::slow(None, |_, _, _| (200, "{}".into())).await;
    let began = std::time::Instant::now();
    let why = server
        .fleet(&[])
        .golden_commit(None, true)
        .await
        .unwrap_err();
    assert_eq!(why.kind(), Kind::TimedOut);
    let line = why.to_string();
    assert!(line.starts_with("No golden commit available."), "{line}");
    for step in [
        "GET /commits/current/golden",
        "GET /registry/vms",
        "POST /commits/ensure-golden",
        "within 0.9 s",
    ] {
        assert!(line.contains(step), "{step}: {line}");
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    // Nobody there is known at once, and not asked three times.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port().to_string();
    drop(closed);
    let fleet = fleet(&[("PORT", &port)]);
    assert!(!fleet.available());
    let why = fleet.golden_commit(None, true).await.unwrap_err();
    assert_eq!(why.kind(), Kind::Unavailable);
    assert!(!why.to_string().contains("ensure-golden: "), "{why}");
    let why = fleet.members(None).await.unwrap_err();
    assert!(
        why.to_string().contains("VERS_INFRA_URL names one"),
        "{why}"
    );
}

#[tokio::test]
async fn a_commit_that_is_none_is_said_to_be_and_the_next_is_asked() {
    let server = Server::new(|_, path, _| match path {
        "/commits/current/golden" => (200, json!({ "commitId": "latest\u{1b}[2J" }).to_string()),
        _ => (
            200,
            json!({ "vms": [{ "metadata": { "commitId": COMMIT } }] }).to_string(),
        ),
    })
    .await;
    let fleet = server.fleet(&[]);
    assert_eq!(
        fleet.golden_commit(None, false).await.unwrap().source,
        Source::ReefRegistry
    );
    let fleet = server.fleet(&[("VERS_GOLDEN_COMMIT_ID", "latest")]);
    let why = fleet.golden_commit(None, false).await.unwrap_err();
    assert_eq!(why.kind(), Kind::Invalid);
    assert!(
        why.to_string().starts_with("VERS_GOLDEN_COMMIT_ID: "),
        "{why}"
    );
}

#[tokio::test]
async fn defect_50_a_registry_that_misbehaves_costs_an_error_and_no_more() {
    let huge = format!("{{\"vms\":[],\"x\":\"{}\"}}", "x".repeat(9 << 20));
    let cases: Vec<(u16, String, Kind, &str)> = vec![
        (
            500,
            json!({ "error": "disk\nfull" }).to_string(),
            Kind::Unavailable,
            "disk\\nfull",
        ),
        (
            401,
            json!({ "error": format!("invalid token {TOKEN}") }).to_string(),
            Kind::Unauthorized,
            "VERS_AUTH_TOKEN",
        ),
        (302, String::new(), Kind::Other, "redirects"),
        (200, "<html>".into(), Kind::Other, "is it Reef?"),
        (200, "[]".into(), Kind::Other, "is it Reef?"),
        (200, String::new(), Kind::Other, "is it Reef?"),
        (200, huge, Kind::Limit, "exceeds 8 MiB"),
        (
            400,
            json!({ "error": "invalid category" }).to_string(),
            Kind::Invalid,
            "invalid category",
        ),
    ];
    for (status, body, kind, says) in cases {
        let server = Server::new(move |_, _, _| (status, body.clone())).await;
        let fleet = server.fleet(&[]);
        for why in [
            fleet.register(&worker()).await.unwrap_err(),
            fleet.deregister(worker().vm).await.unwrap_err(),
            fleet.members(None).await.unwrap_err(),
        ] {
            assert_eq!(why.kind(), kind, "{why}");
            let line = why.to_string();
            assert!(line.contains(says) && line.contains("127.0.0.1"), "{line}");
            assert!(!line.contains(TOKEN) && !line.contains('\n'), "{line}");
        }
    }
    let slow = Server::slow(None, |_, _, _| (200, "{}".into())).await;
    let why = slow.fleet(&[]).register(&worker()).await.unwrap_err();
    assert_eq!(why.kind(), Kind::TimedOut);
    assert!(
        why.to_string()
            .starts_with("register w1 with the fleet: Reef at 127.0.0.1"),
        "{why}"
    );
    // Neither generation: said once, and not as success.
    let neither = Server::new(|_, _, _| not_found()).await;
    let why = neither.fleet(&[]).register(&worker()).await.unwrap_err();
    assert_eq!(why.kind(), Kind::NotFound);
    assert_eq!(neither.asked(), ["POST /vm-tree/vms", "POST /registry/vms"]);
}

#[tokio::test]
async fn the_token_is_sent_when_there_is_one_and_never_in_clear_text_to_others() {
    let server = reef().await;
    let bare = fleet(&[("VERS_INFRA_URL", &server.url)]);
    bare.members(None).await.unwrap();
    assert_eq!(server.fake.asked.lock().unwrap()[0].2, None);
    let far = [
        ("VERS_INFRA_URL", "http://reef.invalid:3000"),
        ("VERS_AUTH_TOKEN", TOKEN),
    ];
    let why = fleet(&far).members(None).await.unwrap_err();
    assert_eq!(why.kind(), Kind::Invalid);
    assert!(why.to_string().contains("without encryption"), "{why}");
    assert!(!format!("{:?}", server.fleet(&[])).contains(TOKEN));
}
