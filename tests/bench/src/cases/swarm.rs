//! Twenty workers from one commit, on VMs that take a second to boot: ours, and as the original does it.
//!
//! The VMs are those of the local platform, behind a proxy that makes them boot slowly; the agent is the scripted one. The original's way is done
//! step by step, one worker after the other, with its own waits (`docs/benchmarks.md` names them) and `ssh` as it calls it. Processor time is not
//! measured: the VMs are children of this process, too.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use pi_vers_bench::booting::Booting;
use pi_vers_bench::stats::Series;
use pi_vers_system::files::{Access, Root};
use pi_vers_tests::built;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vers_client::api::{Origin, VmConfig};
use vers_client::transfer::{self, Options, Side};
use vers_client::{Api, CommitId, Environment, Overrides, Secret, Settings, Ssh, SshOptions, VmId};

use super::Context;
use crate::Outcome;
use crate::report::{Bar, Unit, table};
use crate::rounds::Result;

const OURS: &str = "ours, `vers_swarm_spawn`";
const ORIGINAL: &str = "the original's sequence";
/// How long a VM boots.
const BOOT: Duration = Duration::from_secs(1);
/// Nothing here takes so long.
const DEADLINE: Duration = Duration::from_secs(600);

/// What the original waits, in its own words: `echo ready` every 2 s; 3 s before it first asks the agent, and between asking again.
const BOOT_POLL: Duration = Duration::from_secs(2);
const BOOT_POLLS: usize = 30;
const PROBE: Duration = Duration::from_secs(3);
const PROBES: usize = 9;

/// The original's start script, but for its variables.
const START: &str = "set -e; mkdir -p /tmp/pi-rpc; rm -f /tmp/pi-rpc/in /tmp/pi-rpc/out /tmp/pi-rpc/err; mkfifo /tmp/pi-rpc/in; \
touch /tmp/pi-rpc/out /tmp/pi-rpc/err; tmux new-session -d -s pi-keeper 'sleep infinity > /tmp/pi-rpc/in'; \
tmux new-session -d -s pi-rpc 'cd /root/workspace; pi --mode rpc --no-session < /tmp/pi-rpc/in >> /tmp/pi-rpc/out 2>> /tmp/pi-rpc/err'; \
sleep 1; tmux has-session -t pi-rpc && echo daemon_started || echo daemon_failed";

/// A platform with a golden commit.
struct Fleet {
    binary: PathBuf,
    root: PathBuf,
    settings: Vec<(&'static str, String)>,
    domain: String,
    booting: Booting,
    api: Api,
    commit: CommitId,
}

/// A program of this project, in directories of its own.
fn program(binary: &Path, root: &Path) -> Command {
    let mut command = Command::new(binary);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", root)
        .env("XDG_STATE_HOME", root.join("state"))
        .env("XDG_CONFIG_HOME", root.join("config"))
        .env("XDG_CACHE_HOME", root.join("cache"))
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn says(mut command: Command) -> Outcome<String> {
    let output = tokio::time::timeout(DEADLINE, command.output()).await??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {said} {why}", output.status).into())
}

impl Fleet {
    async fn start(context: &Context) -> Outcome<Self> {
        let binary = tokio::task::spawn_blocking(|| built::binary().to_owned()).await?;
        let root = context.here.join("swarm");
        std::fs::create_dir(&root)?;
        let mut up = program(&binary, &root);
        up.args(["local", "up", "--json"]);
        let said: Value = serde_json::from_str(&says(up).await?)?;
        let field = |name: &str| -> Outcome<String> {
            let field = said.get(name).and_then(Value::as_str);
            Ok(field
                .ok_or("the platform does not say where it is")?
                .to_owned())
        };
        let key = std::fs::read_to_string(field("api_key_file")?)?
            .trim()
            .to_owned();
        let (domain, edge) = (field("domain")?, field("ssh_addr")?.parse()?);
        let booting = Booting::start(edge, &domain, BOOT).await?;
        let overrides = Overrides {
            api_key: Some(Secret::new(key.clone())),
            base_url: Some(field("api_url")?),
            vm_domain: Some(domain.clone()),
            vm_connect: Some(edge),
            tls_ca: Some(field("ca_pem")?.into()),
            insecure_tls: Some(false),
        };
        let environment = Environment::of([("HOME", "/nonexistent")]);
        let api = Api::new(Settings::discover(environment, overrides)?)?;
        let commit = golden(&api, &binary, &root).await?;
        let settings = vec![
            ("VERS_BASE_URL", field("api_url")?),
            ("VERS_API_KEY", key),
            ("VERS_VM_DOMAIN", domain.clone()),
            ("VERS_VM_CONNECT", booting.address().to_string()),
            ("VERS_TLS_CA", field("ca_pem")?),
            ("LLM_PROXY_KEY", "sk-vers-of-a-benchmark".to_owned()),
        ];
        Ok(Self {
            binary,
            root,
            settings,
            domain,
            booting,
            api,
            commit,
        })
    }

    /// From the call until it says that all are ready.
    async fn ours(&self, count: usize) -> Outcome<Duration> {
        let arguments = json!({ "commitId": self.commit.to_string(), "count": count });
        let mut command = program(&self.binary, &self.root);
        command.envs(self.settings.iter().map(|(name, value)| (*name, value)));
        command.args(["run", "--json", "--quiet", "vers_swarm_spawn"]);
        command.arg(arguments.to_string());
        let answer: Value = serde_json::from_str(&says(command).await?)?;
        let agents = answer.pointer("/details/agents").and_then(Value::as_array);
        let ready = agents
            .into_iter()
            .flatten()
            .filter(|agent| agent.get("status").and_then(Value::as_str) == Some("idle"));
        if ready.count() != count {
            return Err(format!("not all are ready: {answer}").into());
        }
        let millis = answer.get("ms").and_then(Value::as_u64);
        Ok(Duration::from_millis(
            millis.ok_or("it does not say how long it took")?,
        ))
    }

    /// The same, as the original does it.
    async fn original(&self, count: usize) -> Outcome<Duration> {
        let begun = Instant::now();
        for _ in 0..count {
            self.worker().await?;
        }
        Ok(begun.elapsed())
    }

    async fn worker(&self) -> Outcome<()> {
        let vm = self.api.restore(&Origin::Commit(self.commit)).await?;
        let key = self.api.ssh_key(vm).await?;
        let key_file = self.root.join(format!("{vm}.key"));
        std::fs::write(&key_file, format!("{}\n", key.private_key.expose().trim()))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&key_file, mode)?;
        let ssh = |command: &str| self.ssh(vm, &key_file, command);
        let mut polls = 0;
        while says(ssh("echo ready")).await.is_err() {
            polls += 1;
            if polls == BOOT_POLLS {
                return Err(format!("VM {vm} failed to boot").into());
            }
            tokio::time::sleep(BOOT_POLL).await;
        }
        says(ssh(
            "mkdir -p /root/.swarm/status && echo '{}' > /root/.swarm/identity.json",
        ))
        .await?;
        // There is nothing to synchronise; the directories are made all the same.
        says(ssh("mkdir -p /root/.pi/agent/skills /root/.pi/agent/git")).await?;
        let started = says(ssh(START)).await?;
        if !started.contains("daemon_started") {
            return Err(format!("Failed to start pi daemon on {vm}: {started}").into());
        }
        let mut tail = ssh("tail -f -n +1 /tmp/pi-rpc/out").spawn()?;
        let output = tail.stdout.take().ok_or("no output")?;
        let mut lines = BufReader::new(output).lines();
        let answered = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains("startup-check") {
                    return Ok(());
                }
            }
            Err("the agent's output has ended".into())
        };
        let asking = async {
            for _ in 0..PROBES {
                tokio::time::sleep(PROBE).await;
                self.send(
                    vm,
                    &key_file,
                    &json!({ "id": "startup-check", "type": "get_state" }),
                )
                .await?;
            }
            std::future::pending::<Outcome<()>>().await
        };
        let ready: Outcome<()> = tokio::select! {
            done = answered => done,
            done = asking => done,
            () = tokio::time::sleep(PROBE * (PROBES as u32 + 1)) => Err("Pi RPC failed to start".into()),
        };
        ready
    }

    /// A connection for each command, as the original has it.
    async fn send(&self, vm: VmId, key: &Path, command: &Value) -> Outcome<()> {
        let mut ssh = self.ssh(vm, key, "cat > /tmp/pi-rpc/in");
        let mut child = ssh.stdin(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().ok_or("no input")?;
        input.write_all(format!("{command}\n").as_bytes()).await?;
        drop(input);
        child.wait().await?;
        Ok(())
    }

    fn ssh(&self, vm: VmId, key: &Path, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        let proxy = format!(
            "ProxyCommand=openssl s_client -connect {} -servername %h -quiet 2>/dev/null",
            self.booting.address()
        );
        ssh.arg("-i").arg(key);
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=30",
            &proxy,
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("root@{vm}.{}", self.domain))
            .arg(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        ssh
    }

    /// Deletes all VMs.
    async fn clear(&self) -> Outcome<()> {
        for vm in self.api.list_vms().await? {
            self.api.delete_vm(vm.id).await?;
        }
        Ok(())
    }

    async fn end(self) -> Outcome<()> {
        let mut reset = program(&self.binary, &self.root);
        reset.args(["local", "reset"]);
        says(reset).await.map(drop)
    }
}

/// A commit with the scripted agent as `pi`.
async fn golden(api: &Api, binary: &Path, root: &Path) -> Outcome<CommitId> {
    let ssh = Ssh::new(api.clone(), SshOptions::default())?;
    let vm = api.create_vm(&VmConfig::default(), true).await?;
    let name = binary.file_name().ok_or("the binary has no name")?;
    let directory = binary.parent().ok_or("the binary has no directory")?;
    let source = Side::Local {
        root: Root::open(directory, Access::ReadOnly)?,
        path: name.to_string_lossy().into_owned(),
    };
    let target = Side::Vm {
        ssh: ssh.clone(),
        vm,
        path: "/usr/local/lib/pi-vers/pi-vers".to_owned(),
    };
    let (progress, _) = watch::channel(transfer::Progress::default());
    let never = CancellationToken::new();
    transfer::copy(source, target, Options::default(), progress, never).await?;
    let script = "mkdir -p ~/workspace && printf '#!/bin/sh\\nexec /usr/local/lib/pi-vers/pi-vers scripted-agent \"$@\"\\n' > /usr/local/bin/pi && chmod 755 /usr/local/bin/pi";
    let child = ssh.spawn(vm, vers_client::Command::shell(script)).await?;
    let exit = child.wait().await?;
    if !exit.is_success() {
        return Err(format!("the agent can't be installed: {exit}").into());
    }
    ssh.disconnect(vm).await;
    let commit = api.commit(vm, false).await?;
    api.delete_vm(vm).await?;
    // Compiled code is there before the clock starts.
    let mut warm = program(binary, root);
    warm.arg("tools");
    says(warm).await?;
    Ok(commit)
}

/// N workers, ready.
pub(crate) async fn spawn(context: &Context) -> Outcome<Vec<Bar>> {
    let count = if context.quick { 4 } else { 20 };
    let rounds = context.rounds(5, 2);
    let fleet = Fleet::start(context).await?;
    let (mut ours, mut original) = (Series::default(), Series::default());
    for round in 0..=rounds {
        eprintln!("swarm: round {round} of {rounds}");
        if round > 0 {
            ours.round();
            original.round();
        }
        let done = fleet.ours(count).await;
        fleet.clear().await?;
        // The first one warms up; the original's sequence takes minutes, and is done once.
        if round == 1 {
            keep(&mut original, fleet.original(count).await);
            fleet.clear().await?;
        }
        if round > 0 {
            keep(&mut ours, done);
        }
    }
    fleet.end().await?;
    let seconds = ours.quantile(0.5);
    let results =
        [(OURS, ours), (ORIGINAL, original)].map(|(name, series)| Result { name, series });
    let title = format!("{count} workers from one commit, until all are ready; VMs boot in 1 s");
    table(&title, Unit::Time, &results, &[ORIGINAL]);
    let bar = format!("{count} workers, 1 s boots: seconds until all are ready, at most 3");
    Ok(vec![Bar::new(&bar, seconds, |seconds| seconds <= 3.0)])
}

fn keep(series: &mut Series, done: Outcome<Duration>) {
    match done {
        Ok(took) => series.add(took.as_secs_f64()),
        Err(why) => series.fail(why.to_string()),
    }
}
