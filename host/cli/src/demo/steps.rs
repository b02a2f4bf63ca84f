//! The demo's steps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pi_vers_host::{CallError, Content, Host, Session, ToolOutput, Update};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use vers_local::Endpoint;

use super::Ground;
use super::board::{Told, shown};
use crate::failure::{Code, Failure};
use crate::harness::CommandLine;
use crate::interrupt::Interrupts;
use crate::local;
use crate::setup;
use crate::shipped;
use crate::terminal::Terminal;

/// No call of the demo takes this long unless something hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// A step: its name, what it says it does, and the steps it builds upon.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) needs: &'static [&'static str],
}

/// In the order in which they run.
pub(super) const STEPS: [Step; 12] = [
    Step {
        name: "platform",
        title: "Start the Vers platform on this machine",
        needs: &[],
    },
    Step {
        name: "tools",
        title: "Load the extensions, list their tools",
        needs: &["platform"],
    },
    Step {
        name: "create",
        title: "Create a VM (vers_vm_create)",
        needs: &["tools"],
    },
    Step {
        name: "use",
        title: "Let the tools act on it (vers_vm_use)",
        needs: &["create"],
    },
    Step {
        name: "build",
        title: "Build and run a program there, streamed (bash)",
        needs: &["use"],
    },
    Step {
        name: "files",
        title: "Write, edit and read a file (write, edit, read)",
        needs: &["use"],
    },
    Step {
        name: "commit",
        title: "Snapshot the VM (vers_vm_commit)",
        needs: &["use"],
    },
    Step {
        name: "branch",
        title: "Branch it twice; the branches diverge",
        needs: &["commit"],
    },
    Step {
        name: "restore",
        title: "Restore the snapshot: the old state",
        needs: &["commit"],
    },
    Step {
        name: "cancel",
        title: "Cancel `sleep 1000`: it is gone on the VM",
        needs: &["use"],
    },
    Step {
        name: "pause",
        title: "Pause and resume (vers_vm_state)",
        needs: &["use"],
    },
    Step {
        name: "delete",
        title: "Delete the VMs (vers_vm_delete)",
        needs: &["create"],
    },
];

/// The program that is built: in C where there is a compiler, else for the shell.
const BUILD: &str = r#"set -e
mkdir -p "$HOME/pi-vers-demo" && cd "$HOME/pi-vers-demo"
if command -v cc >/dev/null 2>&1; then
cat > primes.c <<'END'
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    int want = argc > 1 ? atoi(argv[1]) : 1, found = 0, n = 1;
    while (found < want) {
        int d = 2;
        n++;
        while (d * d <= n && n % d != 0) d++;
        if (d * d > n) found++;
    }
    printf("prime %d is %d\n", want, n);
    return 0;
}
END
cc -O2 -Wall -o primes primes.c
echo "built with $(cc --version | head -n 1)"
else
cat > primes <<'END'
#!/bin/sh
want=$1 found=0 n=1
while [ "$found" -lt "$want" ]; do
    n=$((n + 1)) d=2
    while [ $((d * d)) -le "$n" ] && [ $((n % d)) -ne 0 ]; do d=$((d + 1)); done
    [ $((d * d)) -gt "$n" ] && found=$((found + 1))
done
echo "prime $want is $n"
END
chmod +x primes
echo "no C compiler in this VM: a shell program instead"
fi
for i in 1 2 3 4 5; do ./primes $((i * 100)); sleep 0.2; done"#;

/// What it has to print.
const PRIMES: &str =
    "prime 100 is 541\nprime 200 is 1223\nprime 300 is 1987\nprime 400 is 2741\nprime 500 is 3571";

/// A text that quoting, heredocs and encodings have broken before.
const TEXT: &str = "It's a \"test\": $HOME `id` \\n %s ${x} EOF\nÄ ö 漢字 🦀 and a tab\there, trailing blanks  \nred\nEOF\n'last line, without an end";

/// What has been made so far.
pub(super) struct Stage<'a> {
    terminal: Arc<Terminal>,
    ground: &'a Ground,
    interrupts: &'a Interrupts,
    endpoint: Option<Endpoint>,
    session: Option<Session>,
    /// VMs that are to be deleted, the first one first.
    vms: Vec<String>,
    vm: String,
    home: String,
    commit: String,
}

/// What stays of the demo.
pub(super) struct Kept {
    pub(super) endpoint: Option<Endpoint>,
    vm: Option<String>,
}

fn wrong(message: impl Into<String>) -> Failure {
    Failure::new(Code::Tool, "unexpected", message)
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        terminal: Arc<Terminal>,
        ground: &'a Ground,
        interrupts: &'a Interrupts,
    ) -> Self {
        let (vm, home, commit) = Default::default();
        Self {
            terminal,
            ground,
            interrupts,
            endpoint: None,
            session: None,
            vms: Vec::new(),
            vm,
            home,
            commit,
        }
    }

    pub(super) async fn run(&mut self, step: &str) -> Result<Told, Failure> {
        match step {
            "platform" => self.platform().await,
            "tools" => self.tools().await,
            "create" => self.create().await,
            "use" => self.take_vm().await,
            "build" => self.build().await,
            "files" => self.files().await,
            "commit" => self.commit().await,
            "branch" => self.branch().await,
            "restore" => self.restore().await,
            "cancel" => self.cancel().await,
            "pause" => self.pause().await,
            "delete" => self.delete().await,
            other => Err(Failure::internal(format!("there is no step {other}"))),
        }
    }

    /// Ends the session; with `keep` the first VM stays.
    pub(super) async fn close(&mut self, keep: bool) -> Result<Kept, Failure> {
        if self.ground.stays && !keep {
            // A platform that stays shall have nothing of a demo that was cancelled or failed.
            for vm in std::mem::take(&mut self.vms) {
                if let Some(session) = &self.session {
                    let _ = tokio::time::timeout(
                        LIMIT,
                        session
                            .call("vers_vm_delete", json!({ "vmId": vm }))
                            .outcome(),
                    )
                    .await;
                }
            }
        }
        if let Some(session) = self.session.take() {
            session.end().await;
        }
        Ok(Kept {
            endpoint: self.endpoint.take(),
            vm: self.vms.first().cloned(),
        })
    }

    async fn platform(&mut self) -> Result<Told, Failure> {
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
        let begun = Instant::now();
        let host = match &self.ground.host {
            // The shipped grants alone, whatever the user's say: the demo shows what is shipped.
            Some(directory) => Host::builder()
                .cache(crate::dirs::cache()?.join("compiled"))
                .state(directory)
                .policy(shipped::policy()?)
                .platform(settings)
                .build()?,
            None => setup::host(shipped::policy()?, settings)?,
        };
        let extensions = setup::extensions(&host, &[]).await?;
        let cached = extensions.iter().all(pi_vers_host::Extension::from_cache);
        let harness = CommandLine::new(
            self.terminal.clone(),
            None,
            std::collections::BTreeMap::new(),
        )?;
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
        let session = self.session()?.clone();
        let mut call = session.call("bash", json!({ "command": command, "timeout": 0 }));
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
        call.canceller().cancel();
        let outcome = tokio::time::timeout(LIMIT, call.outcome()).await;
        let took = begun.elapsed();
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
        let after = self.bash(&count).await?;
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

    async fn state_of(&self, vm: &str) -> Result<String, Failure> {
        let listed = self.ask("vers_vms", json!({})).await?;
        let vms = listed
            .details
            .as_ref()
            .and_then(|details| details.get("vms"))
            .and_then(Value::as_array);
        let found = vms.into_iter().flatten().find(|entry| {
            ["vm_id", "vmId", "id"]
                .iter()
                .any(|key| entry.get(key).and_then(Value::as_str) == Some(vm))
        });
        let state = found
            .and_then(|entry| entry.get("state"))
            .and_then(Value::as_str);
        state.map(str::to_lowercase).ok_or_else(|| {
            wrong(format!(
                "vers_vms does not tell the state of VM {vm}: {}",
                listed.text()
            ))
        })
    }

    async fn choose(&self, vm: &str) -> Result<(), Failure> {
        self.ask("vers_vm_use", json!({ "vmId": vm }))
            .await
            .map(drop)
    }

    /// Calls a tool that makes a VM, and remembers the VM.
    async fn make(&mut self, tool: &str, arguments: Value) -> Result<String, Failure> {
        let output = self.ask(tool, arguments).await?;
        let vm = id_in(&output, &["vm_id", "vmId"])?;
        self.vms.push(vm.clone());
        Ok(vm)
    }

    async fn bash(&self, command: &str) -> Result<String, Failure> {
        Ok(self
            .ask("bash", json!({ "command": command }))
            .await?
            .text())
    }

    async fn ask(&self, tool: &str, arguments: Value) -> Result<ToolOutput, Failure> {
        self.watched(tool, arguments, |_| {}).await
    }

    fn session(&self) -> Result<&Session, Failure> {
        self.session
            .as_ref()
            .ok_or_else(|| Failure::internal("there is no session"))
    }

    /// Calls a tool, within the limit and until Ctrl-C.
    async fn watched(
        &self,
        tool: &str,
        arguments: Value,
        mut see: impl FnMut(&Update),
    ) -> Result<ToolOutput, Failure> {
        let mut call = self.session()?.call(tool, arguments);
        let (mut updates, canceller) = (call.updates(), call.canceller());
        let late = tokio::time::sleep(LIMIT);
        tokio::pin!(late);
        let (mut live, mut timed_out, mut given_up) = (true, false, false);
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = call.outcome() => break outcome,
                () = &mut late, if !timed_out => {
                    timed_out = true;
                    canceller.cancel();
                }
                () = self.interrupts.wait(), if !given_up => {
                    given_up = true;
                    canceller.cancel();
                }
                changed = updates.changed(), if live => match changed {
                    Ok(()) => see(&updates.borrow_and_update()),
                    Err(_) => live = false,
                },
            }
        };
        match outcome {
            Err(CallError::Cancelled { .. }) if timed_out => Err(Failure::new(
                Code::TimedOut,
                "timed-out",
                format!("{tool} did not end within {LIMIT:?} and was stopped"),
            )),
            outcome => outcome.map_err(|error| {
                let mut failure = Failure::from(error);
                failure.message = format!("{tool}: {}", failure.message);
                failure
            }),
        }
    }
}

impl Kept {
    pub(super) fn lines(&self) -> Told {
        self.vm
            .iter()
            .map(|vm| format!("VM {vm} is yours"))
            .collect()
    }

    /// What the user can do now.
    pub(super) fn how_to_go_on(&self, flag: &str) -> Vec<String> {
        let Some(vm) = &self.vm else {
            return Vec::new();
        };
        let run = format!("pi-vers run --local{flag} --session demo");
        vec![
            String::new(),
            "Go on with it:".to_owned(),
            format!("  {run} vers_vm_use '{{\"vmId\":\"{vm}\"}}'"),
            format!(
                "  {run} bash '{{\"command\":\"cd ~/pi-vers-demo && ls -l && ./primes 1000\"}}'"
            ),
            format!("  pi-vers local status{flag}    what runs"),
            format!("  pi-vers local down{flag}      end it; VMs and commits stay on disk"),
            format!("  pi-vers local reset{flag}     end it and remove everything"),
        ]
    }
}

fn text_of(update: &Update) -> String {
    let texts: Vec<&str> = update.content.iter().filter_map(Content::as_text).collect();
    texts.join("\n")
}

/// The beginning of an id, for people.
fn brief(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// The id of what was made: in the details, or else the last one in the text.
fn id_in(output: &ToolOutput, keys: &[&str]) -> Result<String, Failure> {
    let told = output
        .details
        .as_ref()
        .and_then(|details| keys.iter().find_map(|key| details.get(key)?.as_str()));
    if let Some(id) = told {
        return Ok(id.to_owned());
    }
    let text = output.text();
    let words = text.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    let last = words
        .filter(|word| word.len() == 36 && Uuid::try_parse(word).is_ok())
        .last();
    last.map(str::to_owned)
        .ok_or_else(|| wrong(format!("no id in the answer: {text}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn steps_build_upon_earlier_ones_only() {
        for (at, step) in STEPS.iter().enumerate() {
            for needed in step.needs {
                assert!(
                    STEPS.iter().take(at).any(|earlier| earlier.name == *needed),
                    "{} needs {needed}",
                    step.name
                );
            }
        }
    }

    #[test]
    fn the_new_id_is_the_last_one() {
        let (old, new) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let mut output = ToolOutput {
            content: vec![Content::text(format!("Branched VM {old} -> {new}."))],
            ..ToolOutput::default()
        };
        assert_eq!(id_in(&output, &["vm_id"]).unwrap(), new);
        output.details = Some(json!({ "vm_id": "x" }));
        assert_eq!(id_in(&output, &["vm_id"]).unwrap(), "x");
        assert!(id_in(&ToolOutput::default(), &["vm_id"]).is_err());
    }
}
