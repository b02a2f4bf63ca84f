//! `pi-vers demo --swarm N`: a job for many agents, each on a VM of its own.
//!
//! One golden image with an agent and a project; N workers from it; the project's tests split among them; all connections cut in
//! the middle; every line that came back counted. The extension `vers-swarm` does the work, called as a harness would. Only what an image for
//! agents takes hours to get otherwise is done directly: a real pi's files are copied by the client of the platform.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use pi_vers_host::Host;
use pi_vers_system::files::{Access, Root};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vers_client::transfer::{self, Options, Side};
use vers_client::{Api, Environment, Overrides, Settings, Ssh, SshOptions, VmId};
use vers_local::Tier;

use super::board::{Told, shown};
use super::image::{self, Agent};
use super::model::ModelApi;
use super::project::Project;
use super::relay::Relay;
use super::stage::{Stage, id_in, wrong};
use super::watcher::Watcher;
use crate::args::DemoAgent;
use crate::failure::Failure;
use crate::harness::CommandLine;
use crate::{dirs, local, setup, shipped};

/// No call of this demo takes this long unless something hangs: a copy of a real pi, or the whole job.
pub(super) const LIMIT: Duration = Duration::from_secs(180);
/// The agents work for about 3 s: it is cut twice meanwhile, this far apart.
const CUT_AFTER: Duration = Duration::from_millis(700);
const CUTS: usize = 2;

/// What the swarm's demo has beside a stage's things.
pub(super) struct Swarm {
    workers: usize,
    agent: Agent,
    project: Project,
    /// A key that nobody else knows: who uses it has been given it.
    key: String,
    relay: Option<Relay>,
    model: Option<ModelApi>,
    agents: Vec<String>,
}

impl Swarm {
    pub(super) fn new(workers: usize, agent: DemoAgent) -> Result<Self, Failure> {
        Ok(Self {
            workers,
            agent: Agent::find(agent)?,
            project: Project::new(workers),
            key: format!("sk-vers-demo-{}", Uuid::new_v4().simple()),
            relay: None,
            model: None,
            agents: Vec::new(),
        })
    }

    /// What this worker is told: the tests that are its share, and, where the agent can say it, that it was given the key.
    fn task(&self, worker: usize) -> String {
        let tests = self.project.share(worker);
        let files: Vec<&str> = tests.iter().map(|test| test.file.as_str()).collect();
        let run = format!("stream sh project/run-tests.sh {}", files.join(" "));
        match self.agent {
            Agent::Scripted => format!("{run}\nenv LLM_PROXY_KEY"),
            Agent::Pi(_) => run,
        }
    }

    /// What is wrong with what a worker said; the lines that it had to say count.
    fn judge(&self, worker: usize, said: &str) -> Result<usize, String> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for line in said.lines() {
            *counts.entry(line.trim()).or_default() += 1;
        }
        let own = self.project.share(worker);
        let expected: Vec<&str> = own
            .iter()
            .flat_map(|test| test.lines.iter().map(String::as_str))
            .collect();
        for line in &expected {
            match counts.get(line).copied().unwrap_or(0) {
                1 => {}
                0 => return Err(format!("\"{line}\" is missing")),
                count => return Err(format!("\"{line}\" came {count} times")),
            }
        }
        let foreign = counts
            .keys()
            .find(|line| is_result(line) && !expected.contains(line));
        if let Some(line) = foreign {
            return Err(format!("\"{line}\" is somebody else's"));
        }
        let failed = own.iter().filter(|test| test.fails).count();
        let total = format!("failed: {failed}");
        if counts.get(total.as_str()) != Some(&1) {
            return Err(format!("\"{total}\" is missing"));
        }
        if matches!(self.agent, Agent::Scripted) {
            let digest = format!("{:x}", Sha256::digest(self.key.as_bytes()));
            let told = format!(
                "LLM_PROXY_KEY is set, sha256 {}",
                digest.get(..12).unwrap_or_default()
            );
            if counts.get(told.as_str()) != Some(&1) {
                return Err("it does not have the key".to_owned());
            }
        }
        Ok(expected.len())
    }
}

/// Whether this is a line of a test.
fn is_result(line: &str) -> bool {
    line.starts_with("ok ") || line.starts_with("not ok ")
}

impl Stage<'_> {
    fn swarm(&self) -> Result<&Swarm, Failure> {
        self.swarm
            .as_ref()
            .ok_or_else(|| Failure::internal("there is no swarm"))
    }

    fn swarm_mut(&mut self) -> Result<&mut Swarm, Failure> {
        self.swarm
            .as_mut()
            .ok_or_else(|| Failure::internal("there is no swarm"))
    }

    pub(super) async fn run_swarm(&mut self, step: &str) -> Result<Told, Failure> {
        match step {
            "platform" => self.platform().await,
            "host" => self.swarm_host().await,
            "golden" => self.golden().await,
            "spawn" => self.spawn().await,
            "task" => self.split().await,
            "cut" => self.cut().await,
            "wait" => self.collect().await,
            "teardown" => self.teardown().await,
            other => Err(Failure::internal(format!("there is no step {other}"))),
        }
    }

    fn tier(&self) -> Tier {
        self.endpoint
            .as_ref()
            .map_or(Tier::Sandbox, |endpoint| endpoint.tier)
    }

    /// A host that knows nothing of the user's: its variables are the demo's, its connections go through the relay.
    async fn swarm_host(&mut self) -> Result<Told, Failure> {
        let Some(endpoint) = &self.endpoint else {
            return Err(Failure::internal("there is no platform"));
        };
        let failed = |what: &'static str| {
            move |why: std::io::Error| Failure::internal(format!("cannot start the {what}: {why}"))
        };
        let relay = Relay::start(endpoint.ssh_addr)
            .await
            .map_err(failed("relay"))?;
        let key = self.swarm()?.key.clone();
        let model = ModelApi::start(key.clone())
            .await
            .map_err(failed("model API"))?;
        let prefix = image::prefix(endpoint.tier);
        let mut variables = vec![
            ("LLM_PROXY_KEY", key),
            ("VERS_AGENT_NAME", "demo".to_owned()),
        ];
        if endpoint.tier == Tier::UserSandbox {
            variables.push(("PI_PATH", format!("{prefix}/bin/pi")));
        }
        let overrides = Overrides {
            vm_connect: Some(relay.address()),
            ..local::overrides(endpoint)
        };
        let settings = Settings::discover(Environment::of(variables), overrides)?;
        let begun = Instant::now();
        let host = Host::builder()
            .cache(dirs::cache()?.join("compiled"))
            .state(self.ground.host.as_ref().unwrap_or(&self.ground.state))
            .policy(shipped::policy()?)
            .secrets(setup::secrets(&settings).await)
            .platform(settings)
            .build()?;
        let extensions = setup::extensions(&host, &[]).await?;
        let below = CommandLine::new(
            self.terminal.clone(),
            None,
            std::collections::BTreeMap::new(),
        )?
        .in_directory(self.ground.work.clone());
        let harness = Watcher::new(below, self.terminal.clone());
        let session = host.session(Arc::new(harness), extensions)?;
        let tools = session.tools();
        let own: Vec<&str> = tools
            .iter()
            .filter(|offer| offer.extension == "vers-swarm")
            .map(|offer| offer.item.name.as_str())
            .collect();
        let told = vec![
            format!("host and components ready in {}", shown(begun.elapsed())),
            format!("vers-swarm: {}", own.join(", ")),
            format!(
                "its SSH connections go through a relay at {}",
                relay.address()
            ),
        ];
        self.session = Some(session);
        let swarm = self.swarm_mut()?;
        swarm.relay = Some(relay);
        swarm.model = Some(model);
        Ok(told)
    }

    /// The image: an agent and the project. Its VM is not needed any more when it is committed.
    async fn golden(&mut self) -> Result<Told, Failure> {
        let prefix = image::prefix(self.tier());
        let directory = self.ground.work.join("image");
        let swarm = self.swarm()?;
        let api = swarm.model.as_ref().map(ModelApi::url).unwrap_or_default();
        swarm
            .agent
            .stage(&directory, prefix, &api, &swarm.project)?;
        let name = swarm.agent.name().to_owned();
        let vm = self
            .make("vers_vm_create", json!({ "wait_boot": true }))
            .await?;
        let begun = Instant::now();
        for (from, to) in [
            ("image/lib", format!("{prefix}/lib/pi-vers")),
            ("image/workspace", "workspace".to_owned()),
            ("image/agent", ".pi/agent".to_owned()),
        ] {
            let arguments = json!({ "src": from, "dst": format!("vm:{vm}:{to}") });
            self.ask("vers_vm_copy", arguments).await?;
        }
        self.install_pi(&vm, prefix).await?;
        self.choose(&vm).await?;
        let script = format!(
            "set -e\nmkdir -p {prefix}/bin\nln -s {prefix}/lib/pi-vers/pi {prefix}/bin/pi\n{prefix}/bin/pi --version\nchmod 755 ~/workspace/project/run-tests.sh\nls ~/workspace/project/tests | wc -l"
        );
        let told = self.bash(&script).await?;
        let copied = begun.elapsed();
        let (version, tests) = told.trim().split_once('\n').unwrap_or((told.trim(), "?"));
        let output = self.ask("vers_vm_commit", json!({ "vmId": vm })).await?;
        self.commit = id_in(&output, &["commit_id", "commitId"])?;
        self.ask("vers_vm_local", json!({})).await?;
        self.ask("vers_vm_delete", json!({ "vmId": vm })).await?;
        self.vms.retain(|other| *other != vm);
        Ok(vec![
            format!(
                "{name} installed in {} (pi --version: {version})",
                shown(copied)
            ),
            format!("a project with {} test files", tests.trim()),
            format!("commit {}; its VM is deleted", self.commit),
        ])
    }

    /// A real pi's package, and Node where it is not there already.
    async fn install_pi(&self, vm: &str, prefix: &str) -> Result<(), Failure> {
        let Agent::Pi(package) = &self.swarm()?.agent else {
            return Ok(());
        };
        let Some(endpoint) = &self.endpoint else {
            return Err(Failure::internal("there is no platform"));
        };
        let vm: VmId = vm
            .parse()
            .map_err(|_| wrong(format!("{vm} is no VM's id")))?;
        let api = Api::new(local::settings(endpoint)?)?;
        let ssh = Ssh::new(api, SshOptions::default())?;
        let lib = format!("{prefix}/lib/pi-vers");
        upload(
            &ssh,
            vm,
            &package.modules,
            "",
            &format!("{lib}/node_modules"),
            &package.exclude,
        )
        .await?;
        if let Some(node) = &package.node
            && let (Some(directory), Some(name)) = (node.parent(), node.file_name())
        {
            let name = name.to_string_lossy();
            upload(&ssh, vm, directory, &name, &format!("{lib}/node"), &[]).await?;
        }
        ssh.disconnect(vm).await;
        Ok(())
    }

    async fn spawn(&mut self) -> Result<Told, Failure> {
        let swarm = self.swarm()?;
        let arguments = json!({ "commitId": self.commit, "count": swarm.workers, "model": swarm.agent.model() });
        let begun = Instant::now();
        let output = self.ask("vers_swarm_spawn", arguments).await?;
        let took = begun.elapsed();
        let agents = output
            .details
            .as_ref()
            .and_then(|details| details.get("agents"));
        let agents: Vec<String> = agents
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|agent| Some(agent.get("id")?.as_str()?.to_owned()))
            .collect();
        let swarm = self.swarm_mut()?;
        if agents.len() != swarm.workers {
            return Err(wrong(format!(
                "{} workers were wanted, and there are {}: {}",
                swarm.workers,
                agents.len(),
                output.text()
            )));
        }
        let told = format!(
            "{} ready in {}: {}",
            agents.len(),
            shown(took),
            agents.join(", ")
        );
        swarm.agents = agents;
        Ok(vec![told])
    }

    async fn split(&mut self) -> Result<Told, Failure> {
        let swarm = self.swarm()?;
        let begun = Instant::now();
        let tasks = swarm.agents.iter().enumerate().map(|(worker, agent)| {
            let arguments = json!({ "agentId": agent, "task": swarm.task(worker) });
            self.ask("vers_swarm_task", arguments)
        });
        try_join_all(tasks).await?;
        Ok(vec![format!(
            "{} tests for {} workers, taken in {}",
            swarm.project.tests.len(),
            swarm.workers,
            shown(begun.elapsed())
        )])
    }

    async fn cut(&mut self) -> Result<Told, Failure> {
        let swarm = self.swarm()?;
        let Some(relay) = &swarm.relay else {
            return Err(Failure::internal("there is no relay"));
        };
        let mut told = Vec::new();
        for _ in 0..CUTS {
            tokio::select! {
                () = self.interrupts.wait() => break,
                () = tokio::time::sleep(CUT_AFTER) => {}
            }
            let cut = relay.cut();
            if cut == 0 {
                return Err(wrong("there was no connection to cut"));
            }
            told.push(format!("{cut} connections cut"));
        }
        let status = self.ask("vers_swarm_status", json!({})).await?;
        let working = status.text().matches("[working]").count();
        if working == 0 {
            return Err(wrong("no worker was at work any more: it was cut too late"));
        }
        told.push(format!(
            "{working} of {} workers are still at work",
            swarm.workers
        ));
        Ok(told)
    }

    async fn collect(&mut self) -> Result<Told, Failure> {
        let swarm = self.swarm()?;
        let begun = Instant::now();
        let seconds = LIMIT.as_secs() / 2;
        let waited = self
            .ask("vers_swarm_wait", json!({ "timeoutSeconds": seconds }))
            .await?;
        let took = begun.elapsed();
        let first = waited.text().lines().next().unwrap_or_default().to_owned();
        let mut lines = 0;
        for (worker, agent) in swarm.agents.iter().enumerate() {
            let read = self
                .ask("vers_swarm_read", json!({ "agentId": agent }))
                .await?
                .text();
            lines += swarm
                .judge(worker, &read)
                .map_err(|why| wrong(format!("{agent}: {why}; it said: {read}")))?;
        }
        let failing = swarm.project.tests.iter().filter(|test| test.fails);
        let failing: Vec<&str> = failing.map(|test| test.file.as_str()).collect();
        let mut told = vec![
            format!("{first} (after {} of waiting)", shown(took)),
            format!(
                "{lines} lines of tests, each of them there exactly once, each from the worker it was given to"
            ),
            format!(
                "the test that fails on purpose failed, and no other: {}",
                failing.join(", ")
            ),
        ];
        if let (Agent::Pi(_), Some(model)) = (&swarm.agent, &swarm.model) {
            let (answered, refused) = model.requests();
            if refused > 0 || answered < 2 * swarm.workers as u64 {
                return Err(wrong(format!(
                    "the model API has answered {answered} requests and refused {refused}"
                )));
            }
            told.push(format!(
                "the model API has answered {answered} requests, all with the workers' key"
            ));
        } else {
            told.push("each worker had the key: it named its digest".to_owned());
        }
        Ok(told)
    }

    async fn teardown(&mut self) -> Result<Told, Failure> {
        let begun = Instant::now();
        let output = self.ask("vers_swarm_teardown", json!({})).await?;
        let took = begun.elapsed();
        let vms = self.ask("vers_vms", json!({})).await?;
        let left = vms.details.as_ref().and_then(|details| details.get("vms"));
        let left = left.and_then(Value::as_array).map_or(usize::MAX, Vec::len);
        if left > 0 {
            return Err(wrong(format!(
                "there are still VMs: {}; the teardown said: {}",
                vms.text(),
                output.text()
            )));
        }
        let count = self.swarm()?.workers;
        Ok(vec![format!(
            "{count} VMs deleted in {}; vers_vms finds none",
            shown(took)
        )])
    }
}

/// Copies a directory, or a file in it, to a VM.
async fn upload(
    ssh: &Ssh,
    vm: VmId,
    directory: &Path,
    path: &str,
    to: &str,
    exclude: &[String],
) -> Result<(), Failure> {
    let root = Root::open(directory, Access::ReadOnly).map_err(|why| {
        Failure::internal(format!("{} can't be read: {why}", directory.display()))
    })?;
    let source = Side::Local {
        root,
        path: path.to_owned(),
    };
    let target = Side::Vm {
        ssh: ssh.clone(),
        vm,
        path: to.to_owned(),
    };
    let options = Options {
        exclude: exclude.to_vec(),
        ..Options::default()
    };
    let (progress, _) = watch::channel(transfer::Progress::default());
    transfer::copy(source, target, options, progress, CancellationToken::new()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn said(swarm: &Swarm, worker: usize) -> String {
        let tests = swarm.project.share(worker);
        let failed = tests.iter().filter(|test| test.fails).count();
        let mut lines: Vec<String> = tests.iter().flat_map(|test| test.lines.clone()).collect();
        lines.push(format!("failed: {failed}\n[exit code: {failed}]"));
        let digest = format!("{:x}", Sha256::digest(swarm.key.as_bytes()));
        lines.push(format!("LLM_PROXY_KEY is set, sha256 {}", &digest[..12]));
        lines.join("\n")
    }

    #[test]
    fn a_line_that_is_lost_doubled_or_foreign_is_noticed() {
        let swarm = Swarm::new(3, DemoAgent::Scripted).unwrap();
        let good = said(&swarm, 1);
        assert_eq!(swarm.judge(1, &good), Ok(15));
        assert!(swarm.judge(0, &good).is_err());
        let line = good.lines().nth(4).unwrap();
        let lost = good.replace(&format!("{line}\n"), "");
        assert!(swarm.judge(1, &lost).unwrap_err().ends_with("is missing"));
        let doubled = good.replace(line, &format!("{line}\n{line}"));
        assert!(swarm.judge(1, &doubled).unwrap_err().ends_with("2 times"));
        let foreign = format!("{good}\nok 999.0 gcd 1 1 = 1");
        assert!(
            swarm
                .judge(1, &foreign)
                .unwrap_err()
                .ends_with("somebody else's")
        );
        let keyless = good.replace("is set, sha256", "is set, sha256 0");
        assert!(swarm.judge(1, &keyless).is_err());
    }

    #[test]
    fn the_key_is_in_no_task() {
        let swarm = Swarm::new(2, DemoAgent::Scripted).unwrap();
        assert!((0..2).all(|worker| !swarm.task(worker).contains(&swarm.key)));
    }
}
