//! How things are: what lines say of VMs, files and the store, and what is there when a line looks.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::script::{self, Subject};
use super::{Test, World};

/// Most bytes of what an extension has stored that a test keeps.
const STORE: u64 = 1 << 30;

impl Test {
    pub(super) async fn vm(&mut self, vm: script::Vm) -> Result<(), String> {
        let id = match &mut self.world {
            World::Fake { platform, .. } => platform.add(&vm.vm, &vm.state, vm.labels)?,
            World::Local { vms } => {
                let config = vers_client::api::VmConfig {
                    labels: vm.labels,
                    ..Default::default()
                };
                let made = self.host.api().create_vm(&config, true).await;
                let id = made.map_err(|why| why.to_string())?;
                vms.push(id);
                if vm.state == "paused" {
                    let state = vers_client::api::SetState::Paused;
                    let paused = self.host.api().set_state(id, state).await;
                    paused.map_err(|why| why.to_string())?;
                }
                id.to_string()
            }
        };
        self.known.insert(vm.vm, id);
        Ok(())
    }

    /// Where a file of this machine or of a faked VM is.
    fn path(&self, vm: Option<&str>, path: &str) -> Result<PathBuf, String> {
        let inside = Path::new(path)
            .components()
            .all(|part| !matches!(part, std::path::Component::ParentDir));
        if !inside {
            return Err(format!("{path} leads out"));
        }
        match (vm, &self.world) {
            (None, _) if path.starts_with('/') => Err(format!(
                "{path}: a file of a test is in its own working directory; give a relative path"
            )),
            (None, _) => Ok(self.root.path().join("work").join(path)),
            (Some(vm), World::Fake { fakes, .. }) => {
                let root = fakes.directory(vm);
                if !root.is_dir() {
                    return Err(format!("there is no VM {vm}"));
                }
                Ok(match path.strip_prefix('/') {
                    Some(path) => root.join(path.trim_start_matches('/')),
                    None => root.join("root").join(path),
                })
            }
            (Some(_), World::Local { .. }) => Err("this is a file of a real VM".into()),
        }
    }

    pub(super) async fn file(&self, file: script::File) -> Result<(), String> {
        let bytes = file.content.pieces()?.concat();
        if let (Some(vm), World::Local { .. }) = (&file.vm, &self.world) {
            let id = vm
                .parse()
                .map_err(|why: vers_client::Error| why.to_string())?;
            let options = vers_client::ssh::WriteOptions {
                parents: true,
                mode: file.mode.as_deref().map(script::mode_of).transpose()?,
                expect_sha256: None,
            };
            let data = futures::stream::iter([Ok::<_, vers_client::Error>(bytes.into())]);
            let files = self.host.ssh().files(id);
            let written = files.write(&file.file, data, options).await;
            return written.map(drop).map_err(|why| why.to_string());
        }
        let path = self.path(file.vm.as_deref(), &file.file)?;
        let failed = |why: std::io::Error| format!("{}: {why}", file.file);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        std::fs::write(&path, bytes).map_err(failed)?;
        if let Some(mode) = &file.mode {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::Permissions::from_mode(script::mode_of(mode)?);
            std::fs::set_permissions(&path, mode).map_err(failed)?;
        }
        Ok(())
    }

    fn stored(&self) -> Result<pi_vers_system::store::Store, String> {
        let at = self.root.path().join("state");
        pi_vers_system::store::Store::open(&at, &self.name, STORE).map_err(|why| why.to_string())
    }

    pub(super) async fn store(&self, store: script::Store) -> Result<(), String> {
        let space = self.stored()?;
        for (key, value) in store.store {
            let set = space.set(&key, &value.to_string()).await;
            set.map_err(|why| why.to_string())?;
        }
        Ok(())
    }

    pub(super) async fn look(&self, check: &script::Check) -> Result<Value, String> {
        let not_here = || "this is known of fakes alone: leave it out with --local".to_owned();
        Ok(match check.check {
            Subject::Notices => self.stage.notices(),
            Subject::Messages => self.stage.messages(),
            Subject::Entries => self.stage.entries(),
            Subject::Status => self.stage.status(),
            Subject::Widgets => self.stage.widgets(),
            Subject::Bus => self.stage.bus(),
            Subject::Commands | Subject::Requests => match &self.world {
                World::Fake { fakes, .. } if check.check == Subject::Commands => fakes.commands(),
                World::Fake { fakes, .. } => fakes.requests(),
                World::Local { .. } => return Err(not_here()),
            },
            Subject::Vms => match &self.world {
                World::Fake { platform, .. } => platform.vms(),
                World::Local { .. } => {
                    let vms = self
                        .host
                        .api()
                        .list_vms()
                        .await
                        .map_err(|why| why.to_string())?;
                    let name = |id: &str| {
                        let found = self.known.iter().find(|(_, known)| *known == id);
                        found.map(|(name, _)| name.clone())
                    };
                    vms.iter()
                        .map(|vm| {
                            let id = vm.id.to_string();
                            json!({ "name": name(&id), "id": id, "state": vm.state.as_str(), "labels": vm.labels })
                        })
                        .collect()
                }
            },
            Subject::Store => {
                let space = self.stored()?;
                let mut all = serde_json::Map::new();
                for key in space.keys("").await.map_err(|why| why.to_string())? {
                    let value = space.get(&key).await.map_err(|why| why.to_string())?;
                    let value = value.and_then(|text| serde_json::from_str(&text).ok());
                    all.insert(key, value.unwrap_or(Value::Null));
                }
                Value::Object(all)
            }
            Subject::File => {
                let path = check.path.as_deref().unwrap_or_default();
                let path = self.path(check.vm.as_deref(), path)?;
                match std::fs::metadata(&path) {
                    Err(why) if why.kind() == std::io::ErrorKind::NotFound => Value::Null,
                    Err(why) => return Err(why.to_string()),
                    Ok(data) => {
                        use std::os::unix::fs::PermissionsExt as _;
                        let text = match data.is_file() {
                            true => {
                                let bytes = std::fs::read(&path).map_err(|why| why.to_string())?;
                                Value::from(String::from_utf8_lossy(&bytes).into_owned())
                            }
                            false => Value::Null,
                        };
                        json!({ "text": text, "size": data.len(), "directory": data.is_dir(), "mode": format!("{:o}", data.permissions().mode() & 0o7777) })
                    }
                }
            }
        })
    }
}
