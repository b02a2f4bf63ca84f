//! VMs: create, look at, change, delete, branch.

use super::App;
use super::error::{ApiError, ApiResult, done};
use super::extract::{InPath, OptionalJson};
use crate::manager::{Branched, CommitRequest, Fault, VmConfig};
use crate::state::record::VmRecord;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

fn vm_json(vm: &VmRecord) -> Value {
    json!({
        "vm_id": vm.id,
        "owner_id": vm.owner_id,
        "state": vm.phase.word(),
        "created_at": vm.created_at,
        "labels": vm.labels,
    })
}

pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    Json(app.manager.vms().iter().map(vm_json).collect())
}

#[derive(Debug, Deserialize)]
pub(crate) struct Waiting {
    #[serde(default)]
    wait_boot: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct NewRoot {
    vm_config: Config,
}

#[derive(Debug, Deserialize)]
struct Config {
    vcpu_count: Option<u32>,
    mem_size_mib: Option<u32>,
    fs_size_mib: Option<u32>,
    image_name: Option<String>,
    kernel_name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

pub(crate) async fn new_root(
    State(app): State<Arc<App>>,
    Query(query): Query<Waiting>,
    Json(body): Json<NewRoot>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let config = body.vm_config;
    let only = |what: &str, name: Option<&str>, the: &str| match name {
        Some(name) if name != the => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("{what} must be '{the}' on the local platform"),
        )),
        _ => Ok(()),
    };
    only("image_name", config.image_name.as_deref(), "default")?;
    only("kernel_name", config.kernel_name.as_deref(), "default.bin")?;
    let config = VmConfig {
        vcpu: config.vcpu_count,
        mem_mib: config.mem_size_mib,
        fs_mib: config.fs_size_mib,
        labels: config.labels.unwrap_or_default(),
    };
    let vm = app.manager.new_root(config, query.wait_boot).await?;
    Ok((StatusCode::CREATED, Json(json!({"vm_id": vm}))))
}

/// Exactly one of the three names. Whatever else it is, it is refused as the platform does: as if it were no JSON.
pub(crate) async fn from_commit(State(app): State<Arc<App>>, Json(body): Json<Value>) -> Response {
    let name = |key: &str| body.get(key).filter(|v| !v.is_null());
    let given = (name("commit_id"), name("tag_name"), name("ref"));
    let commit = match given {
        (Some(Value::String(id)), None, None) => match Uuid::try_parse(id) {
            Ok(id) => Ok(id),
            Err(e) => return not_one_of(&format!("commit_id: UUID parsing failed: {e}")),
        },
        (None, Some(Value::String(tag)), None) => app.manager.tag(tag).map(|t| t.commit_id),
        (None, None, Some(Value::String(reference))) => app.manager.resolve_ref(reference),
        _ => {
            return not_one_of(
                "expected exactly one of `commit_id`, `tag_name`, `ref`, each a string",
            );
        }
    };
    let restored = match commit {
        Ok(commit) => app.manager.restore(commit).await,
        Err(e) => Err(e),
    };
    match restored {
        Ok(vm) => (StatusCode::CREATED, Json(json!({"vm_id": vm}))).into_response(),
        Err(e) => ApiError::from(e).into_response(),
    }
}

fn not_one_of(why: &str) -> Response {
    (
        StatusCode::BAD_REQUEST,
        format!("Failed to parse the request body as JSON: {why}"),
    )
        .into_response()
}

pub(crate) async fn status(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
) -> ApiResult<Json<Value>> {
    Ok(Json(vm_json(&app.manager.vm(vm)?)))
}

pub(crate) async fn metadata(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
) -> ApiResult<Json<Value>> {
    let vm = app.manager.vm(vm)?;
    Ok(Json(json!({
        "vm_id": vm.id,
        "owner_id": vm.owner_id,
        "state": vm.phase.word(),
        "created_at": vm.created_at,
        "deleted_at": null,
        // Where it is reached: the edge, by its name.
        "ip": app.ssh_addr.ip(),
        "parent_commit_id": vm.origin,
        "grandparent_vm_id": vm.parent_vm,
        "vcpu_count": vm.size.vcpu,
        "mem_size_mib": vm.size.mem_mib,
        "fs_size_mib": vm.size.fs_mib,
        "note": vm.note,
    })))
}

pub(crate) async fn ssh_key(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
) -> ApiResult<Json<Value>> {
    app.manager.vm(vm)?;
    let path = app.manager.vm_dir(vm).join("ssh_key");
    let key = tokio::fs::read_to_string(&path).await.map_err(|e| {
        // Deleted since.
        match app.manager.vm(vm) {
            Err(gone) => gone,
            Ok(_) => Fault::Internal(format!("cannot read {}: {e}", path.display())),
        }
    })?;
    Ok(Json(
        json!({"ssh_port": app.ssh_addr.port(), "ssh_private_key": key}),
    ))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Boot {
    #[serde(default)]
    skip_wait_boot: bool,
}

#[derive(Debug, Deserialize)]
enum Wanted {
    Paused,
    Running,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SetState {
    state: Wanted,
}

pub(crate) async fn set_state(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Query(query): Query<Boot>,
    Json(body): Json<SetState>,
) -> ApiResult<Response> {
    match body.state {
        Wanted::Paused => app.manager.pause(vm, query.skip_wait_boot).await?,
        Wanted::Running => app.manager.resume(vm, query.skip_wait_boot).await?,
    }
    Ok(done())
}

#[derive(Debug, Deserialize)]
pub(crate) struct Disk {
    fs_size_mib: u32,
}

pub(crate) async fn resize_disk(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Query(query): Query<Boot>,
    Json(body): Json<Disk>,
) -> ApiResult<Response> {
    app.manager
        .resize_disk(vm, body.fs_size_mib, query.skip_wait_boot)
        .await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
pub(crate) struct Labels {
    labels: Option<BTreeMap<String, String>>,
}

/// Adds and overwrites; absent labels stay.
pub(crate) async fn add_labels(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Json(body): Json<Labels>,
) -> ApiResult<Response> {
    let new = body.labels.unwrap_or_default();
    let edit = move |labels: &mut BTreeMap<_, _>| {
        labels.extend(new);
        Ok(())
    };
    app.manager.edit_labels(vm, edit).await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
pub(crate) struct AllLabels {
    labels: BTreeMap<String, String>,
}

/// These and no others.
pub(crate) async fn replace_labels(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Json(body): Json<AllLabels>,
) -> ApiResult<Response> {
    let edit = move |labels: &mut BTreeMap<_, _>| {
        *labels = body.labels;
        Ok(())
    };
    app.manager.edit_labels(vm, edit).await?;
    Ok(done())
}

pub(crate) async fn remove_label(
    State(app): State<Arc<App>>,
    InPath((vm, name)): InPath<(Uuid, String)>,
) -> ApiResult<StatusCode> {
    let edit = move |labels: &mut BTreeMap<String, String>| match labels.remove(&name) {
        Some(_) => Ok(()),
        None => Err(Fault::NotFound("label not found")),
    };
    app.manager.edit_labels(vm, edit).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Query(query): Query<Boot>,
) -> ApiResult<Json<Value>> {
    match app.manager.delete(vm, query.skip_wait_boot).await {
        Ok(()) => {}
        // Not 404: the platform does not say whether it exists.
        Err(Fault::NotFound(_)) => return Err(ApiError::forbidden()),
        Err(e) => return Err(e.into()),
    }
    app.execs.forget(vm);
    Ok(Json(json!({"vm_id": vm})))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Snapshot {
    #[serde(default)]
    keep_paused: bool,
    #[serde(default)]
    skip_wait_boot: bool,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Commit {
    commit_id: Option<Uuid>,
    name: Option<String>,
    description: Option<String>,
}

pub(crate) async fn commit(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Query(query): Query<Snapshot>,
    OptionalJson(body): OptionalJson<Commit>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    super::check_texts([("name", &body.name), ("description", &body.description)])?;
    let request = CommitRequest {
        commit_id: body.commit_id,
        name: body.name,
        description: body.description,
        keep_paused: query.keep_paused,
        skip_wait_boot: query.skip_wait_boot,
        implicit: false,
    };
    let commit = app.manager.commit(vm, request).await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"commit_id": commit, "host_architecture": std::env::consts::ARCH})),
    ))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Branching {
    #[serde(default)]
    keep_paused: bool,
    #[serde(default)]
    skip_wait_boot: bool,
    count: Option<u32>,
}

impl Branching {
    fn count(&self) -> usize {
        usize::try_from(self.count.unwrap_or(1)).unwrap_or(usize::MAX)
    }
}

/// Those that live are listed even when others failed: a client must learn of every VM there is.
fn branched(branched: Branched) -> Response {
    let Branched { vms, failed } = branched;
    let status = if vms.is_empty() && !failed.is_empty() {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::CREATED
    };
    let mut body = json!({"vms": vms.iter().map(|id| json!({"vm_id": id})).collect::<Vec<_>>()});
    if let (Some(first), Some(body)) = (failed.first(), body.as_object_mut()) {
        let wanted = vms.len() + failed.len();
        let error = format!(
            "{} of {wanted} VMs were not started, and nothing of them is left: {first}",
            failed.len()
        );
        body.insert("error".into(), error.into());
    }
    (status, Json(body)).into_response()
}

/// By the id of a VM or, failing that, of a commit.
pub(crate) async fn branch(
    State(app): State<Arc<App>>,
    InPath(id): InPath<Uuid>,
    Query(query): Query<Branching>,
) -> Response {
    let result = match app.manager.vm(id) {
        Ok(_) => {
            app.manager
                .branch(id, query.count(), query.keep_paused, query.skip_wait_boot)
                .await
        }
        Err(_) => app.manager.start_from(id, query.count()).await,
    };
    match result {
        Ok(done) => branched(done),
        // Whatever the caller meant.
        Err(Fault::NotFound(_)) => ApiError::from(Fault::COMMIT_NOT_FOUND).into_response(),
        Err(e) => ApiError::from(e).into_response(),
    }
}

fn hybrid(result: Result<Branched, Fault>) -> Response {
    match result {
        Ok(done) => branched(done),
        Err(e) => ApiError::from(e).into_hybrid(),
    }
}

pub(crate) async fn branch_by_vm(
    State(app): State<Arc<App>>,
    InPath(vm): InPath<Uuid>,
    Query(query): Query<Branching>,
) -> Response {
    let result = app
        .manager
        .branch(vm, query.count(), query.keep_paused, query.skip_wait_boot)
        .await;
    hybrid(result.map_err(|e| match e {
        Fault::NotFound(_) => Fault::NotFound("parent vm not found"),
        e => e,
    }))
}

pub(crate) async fn branch_by_commit(
    State(app): State<Arc<App>>,
    InPath(commit): InPath<Uuid>,
    Query(query): Query<Branching>,
) -> Response {
    hybrid(app.manager.start_from(commit, query.count()).await)
}

pub(crate) async fn branch_by_tag(
    State(app): State<Arc<App>>,
    InPath(tag): InPath<String>,
    Query(query): Query<Branching>,
) -> Response {
    hybrid(match app.manager.tag(&tag) {
        Ok(tag) => app.manager.start_from(tag.commit_id, query.count()).await,
        Err(e) => Err(e),
    })
}

pub(crate) async fn branch_by_ref(
    State(app): State<Arc<App>>,
    InPath((repository, tag)): InPath<(String, String)>,
    Query(query): Query<Branching>,
) -> Response {
    hybrid(match app.manager.repo_tag(&repository, &tag) {
        Ok(tag) => app.manager.start_from(tag.commit_id, query.count()).await,
        Err(e) => Err(e),
    })
}
