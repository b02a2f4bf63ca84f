//! The methods, and what they take.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vers_client::api::{Origin, SetState, VmConfig};
use vers_client::{CommitId, Environment, Overrides, Settings, VmId};

use super::{Problem, Request, Result, run, tool};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Create {
    #[serde(default)]
    config: Shape,
    #[serde(default)]
    wait_boot: bool,
}

/// As the platform names it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Shape {
    vcpu_count: Option<u32>,
    mem_size_mib: Option<u32>,
    fs_size_mib: Option<u32>,
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Restore {
    commit_id: CommitId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OfVm {
    vm_id: VmId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Commit {
    vm_id: VmId,
    #[serde(default)]
    keep_paused: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Branch {
    vm_id: VmId,
    #[serde(default = "one")]
    count: u32,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
enum State {
    Paused,
    Running,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Update {
    vm_id: VmId,
    state: State,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resize {
    vm_id: VmId,
    fs_size_mib: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Page {
    #[serde(default = "fifty")]
    limit: u32,
    #[serde(default)]
    offset: u32,
}

fn fifty() -> u32 {
    50
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Visibility {
    commit_id: CommitId,
    is_public: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Exec {
    pub(super) vm_id: VmId,
    pub(super) command: String,
    #[serde(default, deserialize_with = "millis")]
    pub(super) timeout_ms: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Script {
    pub(super) vm_id: VmId,
    pub(super) script: String,
    #[serde(default, deserialize_with = "millis")]
    pub(super) timeout_ms: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Upload {
    pub(super) vm_id: VmId,
    pub(super) local_dir: PathBuf,
    pub(super) remote_dir: String,
    #[serde(default)]
    pub(super) exclude: Option<Vec<String>>,
}

/// Milliseconds, whole or not.
fn millis<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let Some(millis) = Option::<f64>::deserialize(from)? else {
        return Ok(None);
    };
    let duration = Duration::try_from_secs_f64(millis / 1000.0);
    duration.map(Some).map_err(serde::de::Error::custom)
}

/// The parameters of a method; none are an empty object.
fn read<T: DeserializeOwned>(method: &str, params: Value) -> Result<T> {
    let params = match params {
        Value::Null => json!({}),
        params => params,
    };
    serde_json::from_value(params)
        .map_err(|why| Problem::new("invalid", format!("the parameters of {method}: {why}")))
}

/// Runs a method.
pub(super) async fn run(request: &Request, method: &str, params: Value) -> Result<Value> {
    let api = &request.platform.api;
    match method {
        "createRoot" => {
            let Create { config, wait_boot } = read(method, params)?;
            let config = VmConfig {
                vcpu_count: config.vcpu_count,
                mem_size_mib: config.mem_size_mib,
                fs_size_mib: config.fs_size_mib,
                labels: config.labels,
            };
            let vm = request.race(api.create_vm(&config, wait_boot)).await?;
            Ok(json!({ "vm_id": vm }))
        }
        "restoreFromCommit" => {
            let Restore { commit_id } = read(method, params)?;
            let vm = request
                .race(api.restore(&Origin::Commit(commit_id)))
                .await?;
            Ok(json!({ "vm_id": vm }))
        }
        "commit" => {
            let Commit { vm_id, keep_paused } = read(method, params)?;
            let commit = request.race(api.commit(vm_id, keep_paused)).await?;
            Ok(json!({ "commit_id": commit }))
        }
        "delete" => {
            let OfVm { vm_id } = read(method, params)?;
            request.race(api.delete_vm(vm_id)).await?;
            request.platform.ssh.abandon(vm_id).await;
            Ok(json!({ "vm_id": vm_id }))
        }
        "branch" => {
            let Branch { vm_id, count } = read(method, params)?;
            let vms = request.race(api.branch(vm_id, count)).await?;
            let all: Vec<Value> = vms.iter().map(|vm| json!({ "vm_id": vm })).collect();
            Ok(json!({ "vm_id": vms.first(), "vms": all }))
        }
        "listVms" => {
            let vms = request.race(api.list_vms()).await?;
            let vm = |vm: &vers_client::api::Vm| {
                json!({
                    "vm_id": vm.id, "owner_id": vm.owner_id, "state": vm.state.to_string(), "created_at": vm.created_at,
                    "labels": vm.labels,
                })
            };
            Ok(vms.iter().map(vm).collect())
        }
        "getState" => {
            let OfVm { vm_id } = read(method, params)?;
            let vm = request.race(api.vm(vm_id)).await?;
            Ok(vm.state.to_string().into())
        }
        "updateState" => {
            let Update { vm_id, state } = read(method, params)?;
            let state = match state {
                State::Paused => SetState::Paused,
                State::Running => SetState::Running,
            };
            request.race(api.set_state(vm_id, state)).await?;
            if state == SetState::Paused {
                request.platform.ssh.abandon(vm_id).await;
            }
            Ok(Value::Null)
        }
        "resizeDisk" => {
            let Resize { vm_id, fs_size_mib } = read(method, params)?;
            request.race(api.resize_disk(vm_id, fs_size_mib)).await?;
            Ok(Value::Null)
        }
        "listCommits" | "listPublicCommits" => {
            let Page { limit, offset } = read(method, params)?;
            let page = if method == "listCommits" {
                request.race(api.list_commits(limit, offset)).await?
            } else {
                request.race(api.list_public_commits(limit, offset)).await?
            };
            Ok(json!(page))
        }
        "setCommitPublic" => {
            let Visibility {
                commit_id,
                is_public,
            } = read(method, params)?;
            request
                .race(api.set_commit_public(commit_id, is_public))
                .await?;
            Ok(Value::Null)
        }
        "exec" => run::exec(request, read(method, params)?).await,
        "execStreaming" => run::exec_streaming(request, read(method, params)?).await,
        "execScript" => run::exec_script(request, read(method, params)?).await,
        "uploadDirectory" => run::upload(request, read(method, params)?).await,
        "tool" => tool::call(request, read(method, params)?).await,
        "endSession" => tool::end(request, read(method, params)?).await,
        "ensureKeyFile" => {
            let OfVm { vm_id } = read(method, params)?;
            let file = request.race(request.platform.key_file(vm_id)).await?;
            Ok(file.to_string_lossy().into())
        }
        "sshArgs" => {
            let OfVm { vm_id } = read(method, params)?;
            Ok(json!(
                request.race(request.platform.arguments(vm_id)).await?
            ))
        }
        "ensureVersApiKey" => {
            let key = request.race(api.settings().api_key()).await?;
            Ok(key.expose().into())
        }
        "loadVersKeyFromDisk" => {
            let key = request.race(on_disk()?.api_key()).await;
            Ok(key.map_or_else(|_| "".into(), |key| key.expose().into()))
        }
        _ => {
            let known = format!("there is no method {}", pi_vers_host::visible(method));
            Err(Problem::new("invalid", known))
        }
    }
}

/// The settings without the key of the environment.
fn on_disk() -> Result<Settings> {
    // What is no UTF-8 is none of the variables that count.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name != "VERS_API_KEY");
    Ok(Settings::discover(
        Environment::of(variables),
        Overrides::default(),
    )?)
}
