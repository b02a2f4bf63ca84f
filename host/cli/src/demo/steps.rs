//! The demo's steps.

use std::sync::Arc;
use std::time::Instant;

use pi_vers_host::{CallError, Host};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::board::{Told, shown};
use super::client::Client;
use super::plan::{BUILD, LIMIT, PRIMES, TEXT};
use super::stage::{Stage, brief, id_in, text_of, wrong};
use crate::failure::Failure;
use crate::harness::CommandLine;
use crate::local;
use crate::setup;
use crate::shipped;

impl Stage<'_> {
    pub(super) async fn run(&mut self, step: &str) -> Result<Told, Failure> {
        if self.swarm.is_some() {
            return Box::pin(self.run_swarm(step)).await;
        }
        match step {
            "platform" => self.platform().await,
            "tools" => self.tools().await,
            "create" => self.create().await,
            "use" => self.take_vm().await,
            "build" => self.build().await,
            "files" => self.files().await,
            "copy" => self.copy().await,
            "serve" => self.serve().await,
            "commit" => self.commit().await,
            "branch" => self.branch().await,
            "restore" => self.restore().await,
            "cancel" => self.cancel().await,
            "pause" => self.pause().await,
            "delete" => self.delete().await,
            other => Err(Failure::internal(format!("there is no step {other}"))),
        }
    }

    pub(super) async fn platform(&mut self) -> Result<Told, Failure> {
        let state = &self.ground.state;
        let endpoint = local::start(local::options(state)?)
            .await
            .map_err(|failure| failure.next("`pi-vers doctor` says what this machine lacks; --state DIR takes another file system"))?;
        let mut told = vec![format!(
            "{} (tier {}), state in {}",
            endpoint.api_url,
            local::tier(endpoint.tier),
            state.display()
        )];
        let status = vers_local::status(state).await?;
        told.extend(
            status
                .capabilities
                .iter()
                .flat_map(|capabilities| &capabilities.notes)
                .map(|note| format!("note: {note}")),
        );
        self.endpoint = Some(endpoint);
        Ok(told)
    }

    async fn tools(&mut self) -> Result<Told, Failure> {
        let Some(endpoint) = &self.endpoint else {
            return Err(Failure::internal("there is no platform"));
        };
        let settings = local::settings(endpoint)?;
        if self.ground.mcp {
            return self.serve_tools().await;
        }
        let begun = Instant::now();
        let host = match &self.ground.host {
            // The shipped grants alone, whatever the user's say: the demo shows what is shipped.
            Some(directory) => Host::builder()
                .cache(crate::dirs::cache()?.join("compiled"))
                .state(directory)
                .policy(shipped::policy()?)
                .secrets(setup::secrets(&settings).await)
                .platform(settings)
                .build()?,
            None => setup::host(shipped::policy()?, settings).await?,
        };
        let extensions = setup::extensions(&host, &[]).await?;
        let cached = extensions.iter().all(pi_vers_host::Extension::from_cache);
        let harness = CommandLine::new(
            self.terminal.clone(),
            None,
            std::collections::BTreeMap::new(),
        )?
        .in_directory(self.ground.work.clone());
        let session = host.session(Arc::new(harness), extensions)?;
        let mut told = vec![format!(
            "{} in {} ({})",
            "host and components ready",
            shown(begun.elapsed()),
            if cached {
                "compiled code from the cache"
            } else {
                "compiled now, cached for the next time"
            }
        )];
        for extension in session.extensions() {
            let offers = session.tools();
            let own: Vec<&str> = offers
                .iter()
                .filter(|offer| offer.extension == extension.name())
                .map(|offer| offer.item.name.as_str())
                .collect();
            let digest: String = extension.digest().to_string().chars().take(19).collect();
            told.push(format!(
                "{} {} ({digest}…): {}",
                extension.name(),
                extension.info().version,
                own.join(", ")
            ));
        }
        self.session = Some(session);
        Ok(told)
    }

    /// The same by way of a server for clients of the Model Context Protocol.
    async fn serve_tools(&mut self) -> Result<Told, Failure> {
        let begun = Instant::now();
        let ground = self.ground;
        let home = ground.temporary.path().join("server");
        let client = Client::start(&ground.state, &home, &ground.work).await?;
        let found = client.ask("server/discover").await?;
        let answered = begun.elapsed();
        let listed = client.ask("tools/list").await?;
        let ready = begun.elapsed();
        self.client = Some(client);
        let tools = listed.get("tools").and_then(Value::as_array);
        let names: Vec<&str> = tools
            .into_iter()
            .flatten()
            .filter_map(|tool| tool.get("name")?.as_str())
            .collect();
        if !names.contains(&"vers_bash") {
            return Err(wrong(format!(
                "the server does not offer vers_bash: {listed}"
            )));
        }
        let versions = found.get("supportedVersions").and_then(Value::as_array);
        let versions: Vec<&str> = versions
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        Ok(vec![
            format!(
                "`pi-vers mcp` answers after {}, lists its tools after {}; versions {}",
                shown(answered),
                shown(ready),
                versions.join(", ")
            ),
            names.join(", "),
        ])
    }

    async fn create(&mut self) -> Result<Told, Failure> {
        self.vm = self
            .make("vers_vm_create", json!({ "wait_boot": true }))
            .await?;
        Ok(vec![format!("VM {}", self.vm)])
    }

    async fn take_vm(&mut self) -> Result<Told, Failure> {
        let vm = self.vm.clone();
        self.choose(&vm).await?;
        let said = self
            .bash("printf '%s\\n' \"$HOME\" \"$(id -un)@$(uname -n), $(uname -sr)\"")
            .await?;
        let mut lines = said.lines();
        self.home = lines.next().unwrap_or_default().to_owned();
        if !self.home.starts_with('/') {
            return Err(wrong(format!(
                "the VM's shell did not tell its home directory but: {said}"
            )));
        }
        Ok(vec![format!(
            "bash there says: {}",
            lines.next().unwrap_or_default()
        )])
    }

    async fn build(&mut self) -> Result<Told, Failure> {
        let terminal = self.terminal.clone();
        let (mut first, mut early) = (None, 0_usize);
        let begun = Instant::now();
        let output = self
            .watched("bash", json!({ "command": BUILD }), |update| {
                let text = text_of(update);
                if text.contains("prime 100 ") && !text.contains("prime 500 ") {
                    first.get_or_insert_with(|| begun.elapsed());
                    early += 1;
                }
                terminal.show(&text, None);
            })
            .await?;
        let text = output.text();
        if !text.contains(PRIMES) {
            return Err(wrong(format!(
                "the program did not print the primes but: {text}"
            )));
        }
        let Some(first) = first else {
            return Err(wrong(
                "its output came only at the end: it was not streamed",
            ));
        };
        let how = text
            .lines()
            .find(|line| line.starts_with("built with") || line.starts_with("no C compiler"))
            .unwrap_or_default();
        let last = text
            .lines()
            .rfind(|line| line.starts_with("prime"))
            .unwrap_or_default();
        Ok(vec![
            how.to_owned(),
            format!(
                "first line of its output seen after {}, {early} updates while it ran; at the end: {last}",
                shown(first)
            ),
        ])
    }

    async fn files(&mut self) -> Result<Told, Failure> {
        let path = format!("{}/pi-vers-demo/it's a \"file\".txt", self.home);
        self.ask("write", json!({ "path": path, "content": TEXT }))
            .await?;
        self.ask(
            "edit",
            json!({ "path": path, "oldText": "red\n", "newText": "green 🌱\n" }),
        )
        .await?;
        let expected = TEXT.replace("red\n", "green 🌱\n");
        let read = self.ask("read", json!({ "path": path })).await?.text();
        if read != expected {
            return Err(wrong(format!("read gave {read:?} instead of {expected:?}")));
        }
        let digest: String = Sha256::digest(expected.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let there = self
            .bash("cd \"$HOME/pi-vers-demo\" && sha256sum < \"it's a \\\"file\\\".txt\"")
            .await?;
        if !there.starts_with(&digest) {
            return Err(wrong(format!(
                "the file's bytes on the VM have the digest {there}, not {digest}"
            )));
        }
        Ok(vec![format!(
            "{} bytes, the same here and there: sha256 {}…",
            expected.len(),
            digest.get(..16).unwrap_or_default()
        )])
    }

    async fn commit(&mut self) -> Result<Told, Failure> {
        self.bash("mkdir -p \"$HOME/pi-vers-demo\" && echo 'before the snapshot' > \"$HOME/pi-vers-demo/state\"").await?;
        let begun = Instant::now();
        let output = self
            .ask("vers_vm_commit", json!({ "vmId": self.vm }))
            .await?;
        self.commit = id_in(&output, &["commit_id", "commitId"])?;
        let took = begun.elapsed();
        self.bash("echo 'after the snapshot' > \"$HOME/pi-vers-demo/state\"")
            .await?;
        Ok(vec![format!("commit {} in {}", self.commit, shown(took))])
    }

    async fn branch(&mut self) -> Result<Told, Failure> {
        let vm = self.vm.clone();
        let begun = Instant::now();
        let one = self.make("vers_vm_branch", json!({ "vmId": vm })).await?;
        let two = self.make("vers_vm_branch", json!({ "vmId": vm })).await?;
        let took = begun.elapsed();
        let who = "\"$HOME/pi-vers-demo/who\"";
        for (branch, name) in [(&one, "one"), (&two, "two")] {
            self.choose(branch).await?;
            self.bash(&format!("echo 'I am {name}' > {who}")).await?;
        }
        for (branch, says) in [
            (&one, "I am one"),
            (&two, "I am two"),
            (&vm, "nobody was here"),
        ] {
            self.choose(branch).await?;
            let said = self.bash(&format!("cat {who} 2>/dev/null || echo 'nobody was here'; cat \"$HOME/pi-vers-demo/state\"")).await?;
            if said.trim() != format!("{says}\nafter the snapshot") {
                return Err(wrong(format!(
                    "VM {branch} says {said:?}, not {says:?}: the branches share something"
                )));
            }
        }
        Ok(vec![
            format!("VMs {} and {} in {}", brief(&one), brief(&two), shown(took)),
            "each has its own change, the original has none, all have what was there before"
                .to_owned(),
        ])
    }

    async fn restore(&mut self) -> Result<Told, Failure> {
        let begun = Instant::now();
        let restored = self
            .make("vers_vm_restore", json!({ "commitId": self.commit }))
            .await?;
        let took = begun.elapsed();
        let state = "cat \"$HOME/pi-vers-demo/state\"";
        let now = self.bash(state).await?;
        self.choose(&restored).await?;
        let then = self.bash(state).await?;
        let vm = self.vm.clone();
        self.choose(&vm).await?;
        if then.trim() != "before the snapshot" || now.trim() != "after the snapshot" {
            return Err(wrong(format!(
                "the restored VM says {then:?}, the original {now:?}"
            )));
        }
        Ok(vec![format!(
            "VM {} in {}: \"{}\"; the original: \"{}\"",
            brief(&restored),
            shown(took),
            then.trim(),
            now.trim()
        )])
    }

    async fn cancel(&mut self) -> Result<Told, Failure> {
        let vm = self.vm.clone();
        self.choose(&vm).await?;
        // In the environment of the sleep and of nothing that looks for it.
        let mark = Uuid::new_v4().simple().to_string();
        let count = format!(
            "n=0; for f in /proc/[0-9]*/environ; do grep -qsa PI_VERS_MARK={mark} \"$f\" && n=$((n + 1)); done; echo \"$n\""
        );
        let command = format!("export PI_VERS_MARK={mark}; echo started; sleep 1000; echo never");
        let mut call = self
            .begin("bash", json!({ "command": command, "timeout": 0 }))
            .await?;
        let mut updates = call.updates();
        let started = async {
            while updates.changed().await.is_ok() {
                if text_of(&updates.borrow_and_update()).contains("started") {
                    return true;
                }
            }
            false
        };
        let started = tokio::select! {
            outcome = call.outcome() => return Err(wrong(format!("it ended by itself: {:?}", outcome.map(|output| output.text())))),
            started = tokio::time::timeout(LIMIT, started) => started.unwrap_or(false),
        };
        if !started {
            return Err(wrong("it did not start within 30 s"));
        }
        let before = self.bash(&count).await?;
        let begun = Instant::now();
        call.cancel();
        let outcome = tokio::time::timeout(LIMIT, call.outcome()).await;
        let mut took = begun.elapsed();
        let told = match outcome {
            Ok(Err(CallError::Cancelled { stopped, .. })) => stopped.join(", "),
            Ok(other) => {
                return Err(wrong(format!(
                    "the call did not end as cancelled: {:?}",
                    other.map(|output| output.text())
                )));
            }
            Err(_) => return Err(wrong("the call did not end within 30 s of being cancelled")),
        };
        let mut after = self.bash(&count).await?;
        // A server does not say when a cancelled call is over: it is looked for until it is.
        if self.client.is_some() {
            while after.trim() != "0" && begun.elapsed() < LIMIT {
                after = self.bash(&count).await?;
            }
            took = begun.elapsed();
        }
        if before.trim() == "0" || after.trim() != "0" {
            return Err(wrong(format!(
                "of its processes {} ran before and {} after it was cancelled",
                before.trim(),
                after.trim()
            )));
        }
        let mut lines = vec![format!(
            "cancelled in {}; its processes on the VM: {} before, 0 after",
            shown(took),
            before.trim()
        )];
        if !told.is_empty() {
            lines.push(format!("stopped: {told}"));
        }
        Ok(lines)
    }

    async fn pause(&mut self) -> Result<Told, Failure> {
        let vm = self.vm.clone();
        self.choose(&vm).await?;
        let mut told = Vec::new();
        for (word, state) in [("Paused", "paused"), ("Running", "running")] {
            let begun = Instant::now();
            self.ask("vers_vm_state", json!({ "vmId": vm, "state": word }))
                .await?;
            let took = begun.elapsed();
            let found = self.state_of(&vm).await?;
            if found != state {
                return Err(wrong(format!("after {word} the platform says {found}")));
            }
            told.push(format!("{state} in {}", shown(took)));
        }
        let awake = self.bash("echo awake").await?;
        if awake.trim() != "awake" {
            return Err(wrong(format!("after it was resumed bash says {awake:?}")));
        }
        Ok(vec![format!(
            "{}; then bash says: {}",
            told.join(", "),
            awake.trim()
        )])
    }

    async fn delete(&mut self) -> Result<Told, Failure> {
        let kept = usize::from(self.ground.stays);
        let doomed = self.vms.split_off(kept.min(self.vms.len()));
        let mut deleted = 0_usize;
        for (at, vm) in doomed.iter().enumerate() {
            if let Err(failure) = self.ask("vers_vm_delete", json!({ "vmId": vm })).await {
                // The end takes care of these.
                self.vms.extend(doomed.iter().skip(at).cloned());
                return Err(failure);
            }
            deleted += 1;
        }
        let listed = self.ask("vers_vms", json!({})).await?.text();
        if let Some(left) = doomed.iter().find(|vm| listed.contains(vm.as_str())) {
            return Err(wrong(format!("VM {left} is still in the list")));
        }
        Ok(vec![match kept {
            0 => format!("{deleted} VMs deleted, the list has none of them"),
            _ => format!("{deleted} VMs deleted; VM {} stays for you", self.vm),
        }])
    }
}
