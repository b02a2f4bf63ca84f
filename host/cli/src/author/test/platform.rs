//! A Vers platform of VMs that are only records: the REST API on loopback, for one test.
//!
//! Ids count from 1, so that a test knows them: `00000000-0000-4000-8000-000000000001` is the first VM.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::fakes::make_files;
use crate::failure::Failure;

/// When everything was made.
const THEN: &str = "2026-01-01T00:00:00Z";
const OWNER: &str = "00000000-0000-4000-a000-000000000001";

/// One VM.
#[derive(Debug, Clone)]
struct Vm {
    state: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Commit {
    vm: String,
    labels: BTreeMap<String, String>,
    public: bool,
}

#[derive(Debug)]
struct Inner {
    files: PathBuf,
    made: u64,
    vms: BTreeMap<String, Vm>,
    commits: BTreeMap<String, Commit>,
    /// What its user calls a VM.
    names: BTreeMap<String, String>,
}

/// The platform. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Platform {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared = Arc<Mutex<Inner>>;

fn locked(inner: &Shared) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Platform {
    /// Serves a platform without VMs; the files of VMs will be below this directory, by id.
    pub(super) async fn start(files: PathBuf) -> Result<Self, Failure> {
        let failed = |why: std::io::Error| {
            Failure::internal(format!("a test's platform cannot listen: {why}"))
        };
        let inner = Arc::new(Mutex::new(Inner {
            files,
            made: 0,
            vms: BTreeMap::new(),
            commits: BTreeMap::new(),
            names: BTreeMap::new(),
        }));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let router = Router::new().fallback(serve).with_state(inner.clone());
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            inner,
            task,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a VM; its id.
    pub(super) fn add(
        &self,
        name: &str,
        state: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<String, String> {
        let mut inner = locked(&self.inner);
        let vm = Vm {
            state: state.to_owned(),
            labels,
        };
        let id = inner.make(vm, None).map_err(|why| why.to_string())?;
        inner.names.insert(id.clone(), name.to_owned());
        Ok(id)
    }

    /// The VMs there are, in the order of their making.
    pub(super) fn vms(&self) -> Value {
        let inner = locked(&self.inner);
        let vms = inner.vms.iter().map(|(id, vm)| {
            let name = inner.names.get(id);
            json!({ "id": id, "name": name, "state": vm.state, "labels": vm.labels })
        });
        vms.collect()
    }
}

impl Inner {
    fn make(&mut self, vm: Vm, from: Option<PathBuf>) -> std::io::Result<String> {
        self.made += 1;
        let id = format!("00000000-0000-4000-8000-{:012}", self.made);
        make_files(&self.files.join(&id), from.as_deref())?;
        self.vms.insert(id.clone(), vm);
        Ok(id)
    }

    fn shown(&self, id: &str, vm: &Vm) -> Value {
        json!({ "vm_id": id, "owner_id": OWNER, "state": vm.state, "created_at": THEN, "labels": vm.labels })
    }
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (
        status,
        axum::Json(json!({ "error": why, "success": false })),
    )
        .into_response()
}

fn answer(value: Value) -> Response {
    axum::Json(value).into_response()
}

async fn serve(State(inner): State<Shared>, method: Method, uri: Uri, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = uri.path().trim_start_matches('/');
    let path = path.strip_prefix("api/v1/").unwrap_or(path);
    let parts: Vec<&str> = path.split('/').collect();
    let query: BTreeMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut inner = locked(&inner);
    handle(&mut inner, &method, &parts, &query, &body)
        .unwrap_or_else(|why| refuse(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()))
}

fn labels_of(value: Option<&Value>) -> BTreeMap<String, String> {
    let labels = value.and_then(Value::as_object).into_iter().flatten();
    labels
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn handle(
    inner: &mut Inner,
    method: &Method,
    parts: &[&str],
    query: &BTreeMap<String, String>,
    body: &Value,
) -> std::io::Result<Response> {
    let missing = || refuse(StatusCode::NOT_FOUND, "not found");
    let fresh = |labels| Vm {
        state: "running".into(),
        labels,
    };
    let vm = |inner: &Inner, id: &str| inner.vms.get(id).cloned();
    Ok(match (method.as_str(), parts) {
        ("GET", ["vms"]) => {
            let all = inner.vms.iter().map(|(id, vm)| inner.shown(id, vm));
            answer(all.collect())
        }
        ("GET", ["vm", id, "status"]) => match inner.vms.get(*id) {
            Some(vm) => answer(inner.shown(id, vm)),
            None => missing(),
        },
        ("POST", ["vm", "new_root"]) => {
            let labels = labels_of(body.pointer("/vm_config/labels"));
            answer(json!({ "vm_id": inner.make(fresh(labels), None)? }))
        }
        ("DELETE", ["vm", id]) => match inner.vms.remove(*id) {
            Some(_) => answer(json!({ "vm_id": id })),
            None => refuse(StatusCode::FORBIDDEN, "forbidden"),
        },
        ("POST", ["vm", "branch", "by_vm", id]) => match vm(inner, id) {
            None => missing(),
            Some(from) if from.state != "running" => {
                refuse(StatusCode::CONFLICT, "the VM is not running")
            }
            Some(from) => {
                let count = query.get("count").and_then(|count| count.parse().ok());
                let files = inner.files.join(id);
                let mut made = Vec::new();
                for _ in 0..count.unwrap_or(1_u32).min(100) {
                    let id = inner.make(fresh(from.labels.clone()), Some(files.clone()))?;
                    made.push(json!({ "vm_id": id }));
                }
                answer(json!({ "vms": made }))
            }
        },
        ("POST", ["vm", "from_commit"]) => {
            let id = body.get("commit_id").and_then(Value::as_str);
            let commit = id.and_then(|id| Some((id, inner.commits.get(id)?)));
            match commit.map(|(id, commit)| (id, commit.labels.clone())) {
                Some((id, labels)) => {
                    let files = inner.files.join(id);
                    answer(json!({ "vm_id": inner.make(fresh(labels), Some(files))? }))
                }
                None => missing(),
            }
        }
        ("POST", ["vm", id, "commit"]) => match vm(inner, id) {
            None => missing(),
            Some(from) => {
                inner.made += 1;
                let commit = format!("00000000-0000-4000-9000-{:012}", inner.made);
                make_files(&inner.files.join(&commit), Some(&inner.files.join(id)))?;
                if query.get("keep_paused").is_some_and(|kept| kept == "true")
                    && let Some(vm) = inner.vms.get_mut(*id)
                {
                    vm.state = "paused".into();
                }
                let taken = Commit {
                    vm: (*id).to_owned(),
                    labels: from.labels,
                    public: false,
                };
                inner.commits.insert(commit.clone(), taken);
                answer(json!({ "commit_id": commit }))
            }
        },
        ("PATCH", ["vm", id, "state"]) => match inner.vms.get_mut(*id) {
            Some(vm) => {
                let word = body.get("state").and_then(Value::as_str);
                vm.state = word.unwrap_or("running").to_ascii_lowercase();
                answer(json!({}))
            }
            None => missing(),
        },
        ("PATCH", ["vm", id, "label"]) => match inner.vms.get_mut(*id) {
            Some(vm) => {
                vm.labels.extend(labels_of(body.get("labels")));
                answer(json!({}))
            }
            None => missing(),
        },
        ("PATCH", ["vm", id, "disk"]) => match inner.vms.contains_key(*id) {
            true => answer(json!({})),
            false => missing(),
        },
        ("GET", ["commits"]) => {
            let commits: Vec<Value> = inner.commits.iter().rev().map(|(id, commit)| {
                json!({ "commit_id": id, "name": "", "owner_id": OWNER, "created_at": THEN, "is_public": commit.public, "parent_vm_id": commit.vm })
            }).collect();
            let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
            let (offset, limit) = (
                number("offset").unwrap_or(0),
                number("limit").unwrap_or(100),
            );
            let total = commits.len();
            let page: Vec<Value> = commits.into_iter().skip(offset).take(limit).collect();
            answer(json!({ "commits": page, "total": total }))
        }
        ("DELETE", ["commits", id]) => match inner.commits.remove(*id) {
            Some(_) => answer(json!({})),
            None => missing(),
        },
        ("PATCH", ["commits", id]) => match inner.commits.get_mut(*id) {
            Some(commit) => {
                commit.public = body.get("is_public") == Some(&Value::Bool(true));
                answer(json!({}))
            }
            None => missing(),
        },
        _ => refuse(
            StatusCode::NOT_IMPLEMENTED,
            "a test's platform has no such endpoint",
        ),
    })
}
