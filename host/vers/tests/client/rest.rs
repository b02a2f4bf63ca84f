//! The REST API and the login, against a stub that says what it is told to say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use vers_client::api::{Origin, SetState, VmConfig};
use vers_client::login::{LoginOptions, Membership, Prompt, login};
use vers_client::{Api, Environment, Error, Kind, Overrides, Settings, VmId};

/// One answer: status, headers, body.
type Answer = (u16, Vec<(&'static str, &'static str)>, String);

/// One request: method, path with query, headers, body.
type Request = (Method, String, HeaderMap, String);

#[derive(Clone, Default)]
struct Stub {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Stub {
    async fn start() -> (Self, String) {
        let stub = Self::default();
        let app = Router::new().fallback(answer).with_state(stub.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (stub, base)
    }

    async fn api() -> (Self, Api) {
        let (stub, base) = Self::start().await;
        let environment =
            Environment::of([("VERS_BASE_URL", base.as_str()), ("VERS_API_KEY", "s3cret")]);
        (
            stub,
            Api::new(Settings::discover(environment, Overrides::default()).unwrap()).unwrap(),
        )
    }

    fn say(&self, status: u16, body: impl Into<String>) {
        self.say_with(status, vec![("content-type", "application/json")], body);
    }

    fn say_with(
        &self,
        status: u16,
        headers: Vec<(&'static str, &'static str)>,
        body: impl Into<String>,
    ) {
        self.answers
            .lock()
            .unwrap()
            .push_back((status, headers, body.into()));
    }

    fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

async fn answer(
    State(stub): State<Stub>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    stub.requests
        .lock()
        .unwrap()
        .push((method, uri.to_string(), headers, body));
    let (status, headers, body) =
        stub.answers
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or((599, vec![], "nothing to say".into()));
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    response.headers_mut().clear();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

fn id(number: u128) -> VmId {
    VmId(uuid::Uuid::from_u128(number))
}

#[tokio::test]
async fn requests_are_what_the_platform_expects() {
    let (stub, api) = Stub::api().await;
    let (vm, new) = (id(1), id(2));
    stub.say(201, format!(r#"{{"vm_id":"{new}"}}"#));
    let config = VmConfig {
        mem_size_mib: Some(1024),
        ..VmConfig::default()
    };
    assert_eq!(api.create_vm(&config, true).await.unwrap(), new);
    let (method, uri, headers, body) = stub.asked().remove(0);
    assert_eq!(
        (method, uri.as_str()),
        (Method::POST, "/api/v1/vm/new_root?wait_boot=true")
    );
    assert_eq!(body, r#"{"vm_config":{"mem_size_mib":1024}}"#);
    assert_eq!(headers["authorization"], "Bearer s3cret");
    assert!(!headers["x-idempotency-key"].is_empty());

    stub.say(
        201,
        format!(r#"{{"vms":[{{"vm_id":"{new}"}},{{"vm_id":"{vm}"}}]}}"#),
    );
    assert_eq!(api.branch(vm, 2).await.unwrap(), [new, vm]);
    stub.say(201, format!(r#"{{"vm_id":"{new}"}}"#));
    assert_eq!(api.branch(vm, 1).await.unwrap(), [new]);
    // A success without a content type, or without a body, is one.
    stub.say_with(200, vec![], "");
    api.set_state(vm, SetState::Paused).await.unwrap();
    let asked = stub.asked();
    assert_eq!(asked[0].1, format!("/api/v1/vm/branch/by_vm/{vm}?count=2"));
    assert_eq!(
        (asked[2].0.clone(), asked[2].3.as_str()),
        (Method::PATCH, r#"{"state":"Paused"}"#)
    );
    stub.say(201, format!(r#"{{"vm_id":"{new}"}}"#));
    api.restore(&Origin::Reference("repo:tag".into()))
        .await
        .unwrap();
    assert_eq!(stub.asked()[0].3, r#"{"ref":"repo:tag"}"#);
    assert_eq!(
        api.restore(&Origin::Reference("repo".into()))
            .await
            .unwrap_err()
            .kind(),
        Kind::Invalid
    );
    stub.say(200, r#"{"commits":[],"total":0,"limit":100,"offset":7}"#);
    assert_eq!(api.list_commits(1000, 7).await.unwrap().total, Some(0));
    assert_eq!(stub.asked()[0].1, "/api/v1/commits?limit=100&offset=7");
}

#[tokio::test]
async fn what_may_take_effect_twice_is_tried_again_and_nothing_else() {
    let (stub, api) = Stub::api().await;
    stub.say(503, "");
    stub.say(500, "");
    stub.say(200, "[]");
    assert_eq!(api.list_vms().await.unwrap(), []);
    assert_eq!(stub.asked().len(), 3);
    // Not a POST: it may have made a VM.
    stub.say(503, "");
    assert_eq!(
        api.create_vm(&VmConfig::default(), false)
            .await
            .unwrap_err()
            .kind(),
        Kind::Unavailable
    );
    assert_eq!(stub.asked().len(), 1);
    // Unless the platform says that it did nothing; always with the same key.
    stub.say_with(429, vec![("retry-after", "0")], "");
    stub.say(201, format!(r#"{{"vm_id":"{}"}}"#, id(1)));
    api.create_vm(&VmConfig::default(), false).await.unwrap();
    let asked = stub.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(
        asked[0].2["x-idempotency-key"],
        asked[1].2["x-idempotency-key"]
    );
    // A deletion whose first answer was lost has worked.
    stub.say(502, "");
    stub.say(403, r#"{"error":"Forbidden","success":false}"#);
    api.delete_vm(id(1)).await.unwrap();
    stub.say(403, r#"{"error":"Forbidden","success":false}"#);
    assert_eq!(api.delete_vm(id(1)).await.unwrap_err().kind(), Kind::Denied);
    // Not a wish for more patience than there is.
    stub.asked();
    stub.say_with(429, vec![("retry-after", "3600")], "");
    let began = Instant::now();
    assert_eq!(api.list_vms().await.unwrap_err().kind(), Kind::Limit);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(stub.asked().len(), 1);
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors_that_hold_no_secret() {
    let (stub, api) = Stub::api().await;
    stub.say(200, r#"{"ssh_private_key":12345,"x":"-----BEGIN"}"#);
    let error = api.ssh_key(id(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Other);
    assert!(
        !error.to_string().contains("BEGIN") && !error.to_string().contains("12345"),
        "{error}"
    );
    assert!(error.to_string().contains(&id(1).to_string()), "{error}");
    stub.say(201, r#"{"vms":[]}"#);
    assert_eq!(api.branch(id(1), 1).await.unwrap_err().kind(), Kind::Other);
    stub.say(200, "x".repeat(17 << 20));
    assert_eq!(api.list_vms().await.unwrap_err().kind(), Kind::Limit);
    stub.say_with(403, vec![], "403 Forbidden");
    let error = api.list_vms().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized);
    assert!(!format!("{error:?} {api:?}").contains("s3cret"));
    stub.say_with(302, vec![("location", "https://elsewhere.example/")], "");
    assert_eq!(api.list_vms().await.unwrap_err().kind(), Kind::Other);
}

#[tokio::test]
async fn the_beginning_of_an_id_is_enough_if_it_is_one_vms() {
    let (stub, api) = Stub::api().await;
    let ids = [
        id(0x3f2c_0000 << 96),
        id(0x3f2c_0001 << 96),
        id(0xaaaa_0000 << 96),
    ];
    let list = ids
        .map(|id| format!(r#"{{"vm_id":"{id}","state":"running"}}"#))
        .join(",");
    for _ in 0..4 {
        stub.say(200, format!("[{list}]"));
    }
    assert_eq!(api.resolve("AAAA").await.unwrap(), ids[2]);
    let error = api.resolve("3f2c").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(
        error.to_string().contains(&ids[0].to_string())
            && error.to_string().contains(&ids[1].to_string())
    );
    assert_eq!(api.resolve("3f2c0001").await.unwrap(), ids[1]);
    assert_eq!(api.resolve("b").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(api.resolve("").await.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(api.resolve(&ids[0].to_string()).await.unwrap(), ids[0]);
    assert_eq!(stub.asked().len(), 4);
}

#[tokio::test]
async fn of_vms_that_somebody_may_not_see_the_start_of_an_id_tells_nothing() {
    let (stub, api) = Stub::api().await;
    let ids = [id(0x3f2c_0000 << 96), id(0x3f2c_0001 << 96)];
    let list = ids
        .map(|id| format!(r#"{{"vm_id":"{id}","state":"running"}}"#))
        .join(",");
    for _ in 0..2 {
        stub.say(200, format!("[{list}]"));
    }
    let mine = |vm: &vers_client::api::Vm| vm.id == ids[0];
    assert_eq!(api.resolve_among("3f2c", mine).await.unwrap(), ids[0]);
    let error = api.resolve_among("3f2c0001", mine).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(!error.to_string().contains(&ids[1].to_string()), "{error}");
}

#[tokio::test]
async fn an_unreachable_platform_is_told_by_name() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let environment = Environment::of([
        ("VERS_BASE_URL", format!("http://{free}")),
        ("VERS_API_KEY", "k".into()),
    ]);
    let api = Api::new(Settings::discover(environment, Overrides::default()).unwrap()).unwrap();
    let error = api.list_vms().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

struct Person {
    mails: Mutex<u32>,
}

impl Prompt for Person {
    async fn email(&self) -> Result<String, Error> {
        Ok(" me@example.com ".into())
    }
    async fn choose(&self, organizations: &[Membership]) -> Result<usize, Error> {
        Ok(organizations
            .iter()
            .position(|one| one.name == "second")
            .unwrap())
    }
    fn mail_sent(&self, email: &str) {
        assert_eq!(email, "me@example.com");
        *self.mails.lock().unwrap() += 1;
    }
}

#[tokio::test]
async fn a_login_waits_for_the_link_and_keeps_the_key() {
    let (stub, base) = Stub::start().await;
    let home = tempfile::tempdir().unwrap();
    let environment = Environment::of([
        ("VERS_BASE_URL", base.as_str()),
        ("HOME", home.path().to_str().unwrap()),
    ]);
    let settings = Settings::discover(environment, Overrides::default()).unwrap();
    let options = LoginOptions {
        poll: Duration::from_millis(10),
        patience: Duration::from_secs(10),
        ..Default::default()
    };
    let person = Person {
        mails: Mutex::new(0),
    };
    stub.say(
        200,
        r#"{"success":true,"nonce":"n","already_verified":false}"#,
    );
    stub.say_with(401, vec![], "");
    stub.say(401, r#"{"error":"not yet"}"#);
    stub.say(502, "");
    stub.say(200, r#"{"verified":true,"is_active":true,"orgs":[{"org_id":"1","name":"first","role":"x"},{"org_id":"2","name":"second"}]}"#);
    stub.say(200, r#"{"success":true,"api_key":"the-new-key","api_key_id":"i","org_id":"2","org_name":"second"}"#);
    let done = login(&settings, &options, &person).await.unwrap();
    assert_eq!(
        (
            done.api_key.expose(),
            done.organization.as_str(),
            done.in_effect
        ),
        ("the-new-key", "second", true)
    );
    assert_eq!(*person.mails.lock().unwrap(), 1);
    assert_eq!(settings.api_key().await.unwrap().expose(), "the-new-key");
    let asked = stub.asked();
    let paths: Vec<&str> = asked.iter().map(|request| request.1.as_str()).collect();
    assert_eq!(paths[0], "/api/shell-auth");
    assert_eq!(paths[1..5], ["/api/shell-auth/verify-key"; 4]);
    assert_eq!(paths[5], "/api/shell-auth/api-keys");
    assert!(
        asked[5].3.contains(r#""org_name":"second""#)
            && asked[5].3.contains(r#""label":"pi-vers""#)
    );
    assert!(
        asked
            .iter()
            .all(|request| !request.2.contains_key("authorization"))
    );

    // A rejection ends it at once, with its reason; patience ends it, too.
    stub.say(200, r#"{"success":true}"#);
    stub.say(403, r#"{"error":"base account is not verified"}"#);
    let error = login(&settings, &options, &person).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(
        error.to_string().contains("base account is not verified"),
        "{error}"
    );
    stub.say(200, r#"{"success":true}"#);
    for _ in 0..1000 {
        stub.say(401, "");
    }
    let impatient = LoginOptions {
        patience: Duration::from_millis(200),
        ..options
    };
    assert_eq!(
        login(&settings, &impatient, &person)
            .await
            .unwrap_err()
            .kind(),
        Kind::TimedOut
    );
}
