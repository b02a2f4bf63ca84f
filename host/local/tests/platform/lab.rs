//! A platform for one test.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use vers_local::{End, Endpoint, Network, Options, Platform};

/// Nothing in these tests takes so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn helper() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_vers-local-helper"))
}

pub(crate) fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir.join("state"), helper());
    // Ports must not collide between tests.
    options.network = Network::None;
    options
}

pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) platform: Option<Platform>,
    pub(crate) api: Api,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        change(&mut options);
        let platform = Platform::start(options)
            .await
            .unwrap_or_else(|e| panic!("{e}"));
        let api = Api::new(platform.endpoint());
        Self {
            dir,
            platform: Some(platform),
            api,
        }
    }

    /// Ends it and checks that nothing is left.
    pub(crate) async fn end(mut self) {
        let state = self.dir.path().join("state");
        self.platform
            .take()
            .unwrap()
            .shutdown(End::DestroyAll)
            .await
            .unwrap();
        assert_eq!(names(&state.join("vms")), Vec::<String>::new());
        nothing_left(&state);
    }
}

impl Drop for Lab {
    /// One that is forgotten leaves its VMs running.
    fn drop(&mut self) {
        assert!(
            self.platform.is_none() || std::thread::panicking(),
            "a test ends its lab"
        );
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let all = std::fs::read_dir(dir).into_iter().flatten().flatten();
    all.map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

/// No mount in the state directory, no process that uses it, no cgroup of its VMs.
pub(crate) fn nothing_left(state: &Path) {
    use sha2::Digest as _;
    use std::os::unix::ffi::OsStrExt as _;
    // The path may be gone by now; temporary directories are canonical already.
    let digest = sha2::Sha256::digest(state.as_os_str().as_bytes());
    let instance: String = digest.iter().take(6).map(|b| format!("{b:02x}")).collect();
    for root in ["", "unified", "pids"] {
        let group = Path::new("/sys/fs/cgroup")
            .join(root)
            .join(format!("pi-vers-{instance}"));
        assert!(!group.exists(), "{} is left", group.display());
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(state.to_str().unwrap()), "{mounts}");
    for process in names(Path::new("/proc"))
        .iter()
        .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
    {
        let of = Path::new("/proc").join(process);
        let text = std::fs::read_to_string(of.join("mountinfo")).unwrap_or_default();
        assert!(
            !text.contains(&format!("{}/", state.display())),
            "process {process} is left"
        );
    }
}

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) client: reqwest::Client,
    pub(crate) endpoint: Endpoint,
}

/// Status, Content-Type, text.
pub(crate) type Answer = (u16, Option<String>, String);

impl Api {
    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(DEADLINE)
            .build()
            .unwrap();
        Self {
            client,
            endpoint: endpoint.clone(),
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.endpoint.api_url);
        self.client
            .request(method, url)
            .bearer_auth(&self.endpoint.api_key)
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let request = self.request(method, path);
        match body {
            Some(body) => request.json(&body),
            None => request,
        }
        .send()
        .await
        .unwrap()
    }

    pub(crate) async fn answer(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        answer(self.send(method, path, body).await).await
    }

    /// Must answer with this status and JSON.
    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        status: StatusCode,
    ) -> Value {
        let response = self.send(method.clone(), path, body).await;
        let got = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(got, status, "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{method} {path}: {e}: {text}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.json(Method::GET, path, None, StatusCode::OK).await
    }

    /// Must answer with this status and nothing.
    pub(crate) async fn empty(&self, method: Method, path: &str, body: Option<Value>, status: u16) {
        assert_eq!(
            self.answer(method, path, body).await,
            (status, None, String::new()),
            "{path}"
        );
    }

    pub(crate) async fn create(&self) -> String {
        let body = json!({"vm_config": {}});
        let made = self
            .json(
                Method::POST,
                "/vm/new_root?wait_boot=true",
                Some(body),
                StatusCode::CREATED,
            )
            .await;
        made["vm_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn state(&self, vm: &str) -> String {
        self.get(&format!("/vm/{vm}/status")).await["state"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) async fn set_state(&self, vm: &str, state: &str) {
        self.empty(
            Method::PATCH,
            &format!("/vm/{vm}/state"),
            Some(json!({"state": state})),
            200,
        )
        .await;
    }

    pub(crate) async fn exec(&self, vm: &str, body: Value) -> Value {
        self.json(
            Method::POST,
            &format!("/vm/{vm}/exec"),
            Some(body),
            StatusCode::OK,
        )
        .await
    }

    /// Runs a shell line; must succeed; its output.
    pub(crate) async fn sh(&self, vm: &str, line: &str) -> String {
        let done = self.exec(vm, json!({"command": ["sh", "-c", line]})).await;
        assert_eq!(done["exit_code"], 0, "{line}: {done}");
        done["stdout"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn commit(&self, vm: &str) -> String {
        let made = self
            .json(
                Method::POST,
                &format!("/vm/{vm}/commit"),
                None,
                StatusCode::CREATED,
            )
            .await;
        made["commit_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn delete(&self, vm: &str) {
        let gone = self
            .json(Method::DELETE, &format!("/vm/{vm}"), None, StatusCode::OK)
            .await;
        assert_eq!(gone, json!({"vm_id": vm}));
    }
}

pub(crate) async fn answer(response: Response) -> Answer {
    let status = response.status().as_u16();
    let kind = response
        .headers()
        .get("content-type")
        .map(|v| v.to_str().unwrap().to_owned());
    (status, kind, response.text().await.unwrap())
}
