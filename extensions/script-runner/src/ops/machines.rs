//! The platform's VMs.

use pi_vers_sdk::Error;
use pi_vers_sdk::platform::vms::{self, Origin, State, Vm, VmConfig};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Outcome, Request, unknown};

#[derive(Deserialize)]
struct One {
    id: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    vcpu_count: Option<u32>,
    mem_size_mib: Option<u32>,
    fs_size_mib: Option<u32>,
    #[serde(default)]
    labels: serde_json::Map<String, Value>,
    #[serde(default)]
    wait_boot: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    id: String,
    count: Option<u32>,
    #[serde(default)]
    keep_paused: bool,
    state: Option<String>,
    #[serde(default)]
    labels: serde_json::Map<String, Value>,
    fs_size_mib: Option<u32>,
    #[serde(default)]
    public: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum From {
    Commit(String),
    Reference(String),
}

#[derive(Deserialize)]
struct Page {
    limit: Option<u32>,
    offset: Option<u32>,
}

pub(super) async fn run(request: &Request) -> Outcome {
    let one = || request.read::<One>().map(|one| one.id);
    let change = || request.read::<Change>();
    Ok(match request.operation.as_str() {
        "vms.list" => vms::list().await?.into_iter().map(machine).collect(),
        "vms.get" => machine(vms::get(one()?).await?),
        "vms.resolve" => vms::resolve(one()?).await?.into(),
        "vms.create" => {
            let config: Config = request.read()?;
            let wanted = VmConfig {
                vcpu_count: config.vcpu_count,
                mem_size_mib: config.mem_size_mib,
                fs_size_mib: config.fs_size_mib,
                labels: labels(config.labels)?,
            };
            vms::create(wanted, config.wait_boot).await?.into()
        }
        "vms.delete" => done(vms::delete(one()?).await?),
        "vms.branch" => {
            let change = change()?;
            vms::branch(change.id, change.count.unwrap_or(1))
                .await?
                .into()
        }
        "vms.commit" => {
            let change = change()?;
            vms::commit(change.id, change.keep_paused).await?.into()
        }
        "vms.restore" => {
            let origin = match request.read()? {
                From::Commit(id) => Origin::Commit(id),
                From::Reference(name) => Origin::Reference(name),
            };
            vms::restore(origin).await?.into()
        }
        "vms.setState" => {
            let change = change()?;
            let state = match change.state.as_deref() {
                Some("running") => State::Running,
                Some("paused") => State::Paused,
                _ => return Err(Error::Invalid("a VM can be running or paused".into())),
            };
            done(vms::set_state(change.id, state).await?)
        }
        "vms.setLabels" => {
            let change = change()?;
            done(vms::set_labels(change.id, labels(change.labels)?).await?)
        }
        "vms.resizeDisk" => {
            let change = change()?;
            let size = change
                .fs_size_mib
                .ok_or_else(|| Error::Invalid("fsSizeMib is missing".into()))?;
            done(vms::resize_disk(change.id, size).await?)
        }
        "vms.listCommits" => {
            let page: Page = request.read()?;
            let commits =
                vms::list_commits(page.limit.unwrap_or(100), page.offset.unwrap_or(0)).await?;
            commits
                .into_iter()
                .map(|commit| {
                    json!({
                        "id": commit.id, "name": commit.name, "createdAt": commit.created_at, "parentVm": commit.parent_vm,
                        "parentCommit": commit.parent_commit, "isPublic": commit.is_public,
                    })
                })
                .collect()
        }
        "vms.deleteCommit" => done(vms::delete_commit(one()?).await?),
        "vms.setCommitPublic" => {
            let change = change()?;
            done(vms::set_commit_public(change.id, change.public).await?)
        }
        _ => return Err(unknown(request)),
    })
}

fn done((): ()) -> Value {
    Value::Null
}

fn labels(given: serde_json::Map<String, Value>) -> Result<Vec<(String, String)>, Error> {
    given
        .into_iter()
        .map(|(key, value)| match value {
            Value::String(value) => Ok((key, value)),
            _ => Err(Error::Invalid(format!("the label {key} is no text"))),
        })
        .collect()
}

fn machine(vm: Vm) -> Value {
    let state = match vm.state {
        State::Booting => "booting",
        State::Running => "running",
        State::Paused => "paused",
        State::Sleeping => "sleeping",
        State::Dead => "dead",
        State::Unknown => "unknown",
    };
    let labels: serde_json::Map<String, Value> = vm
        .labels
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect();
    json!({ "id": vm.id, "ownerId": vm.owner_id, "state": state, "createdAt": vm.created_at, "labels": labels })
}
