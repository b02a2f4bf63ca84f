//! Everything fails at once: connections are cut, the host is killed, agents are killed, VMs are paused, the API refuses, while a
//! swarm and a lieutenant work. What must hold: each task that was taken is answered or reported as failed, once; each line of an
//! answer is there once, in order; and in the end no VM is left that nobody knows.

mod api;
mod coordinator;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pi_vers_tests::faults::{Faults, Random};
use pi_vers_tests::{DEADLINE, Scratch, agents};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use api::{FaultyApi, Mood, Shared};
use coordinator::{Coordinator, Ended};

/// How many faults there are.
const FAULTS: u64 = 200;
/// Lines of an answer.
const LINES: usize = 6;
/// How long a task may take, with all that goes wrong.
const PATIENCE: Duration = Duration::from_secs(180);

/// What everybody shares.
struct Arena {
    harness: Coordinator,
    golden: String,
    over: AtomicBool,
    token: AtomicU64,
    /// Written by whoever kills the host: while VMs are made nobody does, because a VM that was asked for by a host that is dead belongs
    /// to nobody.
    making: RwLock<()>,
    answered: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    /// VMs that were asked for, and the platform's answer was cut off: nobody can know whether they were made, and that is said.
    unknown: AtomicU64,
}

impl Arena {
    fn token(&self) -> u64 {
        self.token.fetch_add(1, Ordering::Relaxed)
    }

    /// A VM was not made, or not by what is known.
    async fn not_made(&self, ended: &Ended) {
        if matches!(ended, Ended::Failed(why) if why.contains("is not known")) {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// A task whose answer is known word by word.
fn task(token: u64) -> String {
    let lines: Vec<String> = (1..=LINES).map(|n| format!("echo t{token}-{n}-")).collect();
    format!("stream {}", lines.join("; sleep 0.03; "))
}

/// The answer is whole, in order, and there once. (What was sent by a host that was killed may be answered beside it.)
fn is_answer(token: u64, text: &str) -> bool {
    let mine = format!("t{token}-");
    let found: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with(&mine) && line.ends_with('-'))
        .collect();
    let expected: Vec<String> = (1..=LINES).map(|n| format!("t{token}-{n}-")).collect();
    found == expected
}

/// One worker after the other, until it is over.
async fn work(arena: Arc<Arena>, number: usize) {
    let mut generation = 0;
    while !arena.is_over() {
        generation += 1;
        let label = format!("w{number}-{generation}");
        {
            let _making = arena.making.read().await;
            let spawn = json!({ "count": 1, "labels": [label], "commitId": arena.golden });
            let made = arena.harness.call("vers_swarm_spawn", spawn).await;
            let Ended::Well { details, .. } = &made else {
                arena.not_made(&made).await;
                continue;
            };
            if details["agents"][0]["status"] != "idle" {
                continue;
            }
        }
        while !arena.is_over() {
            if !give(&arena, &label).await {
                break;
            }
        }
    }
}

/// Gives a worker one task. Whether it can take another one.
async fn give(arena: &Arena, label: &str) -> bool {
    let token = arena.token();
    let given = arena
        .harness
        .call(
            "vers_swarm_task",
            json!({ "agentId": label, "task": task(token) }),
        )
        .await;
    let standing = settled(arena, label).await;
    let taken = match given {
        Ended::Well { .. } => true,
        Ended::Failed(_) | Ended::Unknown => false,
    };
    if matches!(standing.as_str(), "done" | "failed") || taken {
        let (text, _) = arena
            .harness
            .insist("vers_swarm_read", json!({ "agentId": label }))
            .await;
        let mine = text.contains(&format!("t{token}-1-"));
        if standing == "done" && mine {
            assert!(is_answer(token, &text), "task {token} of {label}: {text}");
            arena.answered.fetch_add(1, Ordering::Relaxed);
        } else if taken {
            // It died, or was stopped: that is said.
            assert!(
                standing != "done",
                "task {token} of {label} was taken and is {standing}: {text}"
            );
            arena.failed.fetch_add(1, Ordering::Relaxed);
        } else {
            arena.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
    matches!(
        standing.as_str(),
        "done" | "failed" | "never tasked" | "idle"
    )
}

/// Waits until a worker has told how its task ended.
async fn settled(arena: &Arena, label: &str) -> String {
    let settling = async {
        loop {
            let wait = json!({ "agentIds": [label], "timeoutSeconds": 10 });
            let (_, details) = arena.harness.insist("vers_swarm_wait", wait).await;
            let agent = &details["agents"][0];
            let standing = agent["outcome"]
                .as_str()
                .or(agent["status"].as_str())
                .unwrap_or_default()
                .to_owned();
            match standing.as_str() {
                // Its VM may be paused for a while.
                "lost" => {
                    arena.harness.insist("vers_swarm_discover", json!({})).await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                "working" | "starting" | "timed out" => {}
                _ => return standing,
            }
        }
    };
    let settled = tokio::time::timeout(PATIENCE, settling).await;
    settled.unwrap_or_else(|_| panic!("{label} never tells how its task ended"))
}

/// One lieutenant after the other, until it is over.
async fn command(arena: Arc<Arena>) {
    let mut generation = 0;
    while !arena.is_over() {
        generation += 1;
        let name = format!("lt-{generation}");
        {
            let _making = arena.making.read().await;
            let create = json!({ "name": name, "role": "tester", "commitId": arena.golden, "model": "scripted/scripted-1" });
            let made = arena.harness.call("vers_lt_create", create).await;
            if !matches!(made, Ended::Well { .. }) {
                arena.not_made(&made).await;
                continue;
            }
        }
        while !arena.is_over() {
            if !send(&arena, &name).await {
                break;
            }
        }
    }
}

/// The runs that were told of a lieutenant, by their numbers, with what was told.
fn told(arena: &Arena, name: &str) -> Vec<(u64, Value)> {
    let messages = arena.harness.messages("vers:lt_completed");
    let of_it = messages
        .into_iter()
        .filter(|message| message["details"]["name"] == name);
    let mut runs: Vec<(u64, Value)> = of_it
        .map(|message| (message["details"]["run"].as_u64().unwrap(), message))
        .collect();
    // A host that is killed between telling and noting that it has told tells again, with the same number.
    runs.sort_by_key(|(number, _)| *number);
    runs.dedup_by_key(|(number, _)| *number);
    runs
}

/// Whether a run says that it failed, and where it is of a task that can be told, of this one.
fn is_failure_of(token: u64, message: &Value) -> bool {
    let text = pi_vers_tests::text(message);
    let others = text
        .lines()
        .any(|line| line.starts_with('t') && line.ends_with('-'));
    message["details"]["error"] == true && (!others || text.contains(&format!("t{token}-")))
}

/// Gives the lieutenant one task. Whether it can take another one.
async fn send(arena: &Arena, name: &str) -> bool {
    let before = told(arena, name).len();
    let token = arena.token();
    let given = arena
        .harness
        .call(
            "vers_lt_send",
            json!({ "name": name, "message": task(token) }),
        )
        .await;
    if !matches!(given, Ended::Well { .. }) {
        // If it was heard all the same, it is told of beside the others.
        arena.refused.fetch_add(1, Ordering::Relaxed);
        return usable(arena, name).await;
    }
    let telling = async {
        loop {
            // Whatever was sent by a host that was killed comes in between.
            let runs = told(arena, name).split_off(before);
            let mine = |(_, message): &&(u64, Value)| {
                is_answer(token, &pi_vers_tests::text(message)) || is_failure_of(token, message)
            };
            if let Some((_, message)) = runs.iter().find(mine) {
                return message.clone();
            }
            let (_, details) = arena.harness.insist("vers_lt_status", json!({})).await;
            let all = details["lieutenants"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if all
                .iter()
                .any(|one| one["name"] == name && one["status"] == "paused")
            {
                let _ = arena
                    .harness
                    .call("vers_lt_resume", json!({ "name": name }))
                    .await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let Ok(message) = tokio::time::timeout(PATIENCE, telling).await else {
        let status = arena.harness.insist("vers_lt_status", json!({})).await;
        panic!(
            "task {token} of {name} is never told of: {status:?}, {:?}",
            told(arena, name)
        )
    };
    if message["details"]["error"] == true {
        arena.failed.fetch_add(1, Ordering::Relaxed);
    } else {
        arena.answered.fetch_add(1, Ordering::Relaxed);
    }
    usable(arena, name).await
}

async fn usable(arena: &Arena, name: &str) -> bool {
    let (_, details) = arena.harness.insist("vers_lt_status", json!({})).await;
    let all = details["lieutenants"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let one = all.into_iter().find(|one| one["name"] == name);
    one.is_some_and(|one| !matches!(one["status"].as_str(), Some("error" | "gone")))
}

/// Makes trouble, so often.
async fn trouble(
    arena: Arc<Arena>,
    edge: Arc<Faults>,
    api: Shared,
    direct: agents::Direct,
) -> BTreeSet<&'static str> {
    let mut random = Random(20_261_123);
    let mut done = BTreeSet::new();
    for _ in 0..FAULTS {
        tokio::time::sleep(Duration::from_millis(50 + random.below(250))).await;
        let kind = match random.below(20) {
            0..8 => {
                edge.cut();
                "cut"
            }
            8..10 => {
                let _nobody_makes = arena.making.write().await;
                arena.harness.kill_host().await;
                "host"
            }
            10..12 => {
                if let Some(vm) = pick(&direct, &mut random).await {
                    direct.run(&vm, "pkill -KILL -f 'scripted-agen[t]'").await;
                }
                "agent"
            }
            12..14 => {
                if let Some(vm) = pick(&direct, &mut random).await {
                    direct.pause(&vm).await;
                    tokio::time::sleep(Duration::from_millis(random.below(800))).await;
                    direct.resume(&vm).await;
                }
                "pause"
            }
            kind => {
                let mood = match kind {
                    14..16 => Mood::Broken,
                    16..18 => Mood::Busy,
                    _ => Mood::Silent,
                };
                api.be(mood);
                tokio::time::sleep(Duration::from_millis(100 + random.below(700))).await;
                api.be(Mood::Fine);
                match mood {
                    Mood::Broken => "500",
                    Mood::Busy => "429",
                    _ => "silence",
                }
            }
        };
        done.insert(kind);
    }
    done
}

/// One of the VMs that agents run on.
async fn pick(direct: &agents::Direct, random: &mut Random) -> Option<String> {
    let all = direct.agents().await;
    let at = usize::try_from(random.below(all.len().max(1) as u64)).ok()?;
    all.get(at).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_each_task_is_told_of_once_and_no_vm_is_left() {
    let scratch = Scratch::new();
    let endpoint = scratch.up().await;
    let golden = agents::golden(&scratch, &endpoint).await;
    let edge = Arc::new(Faults::start(endpoint.ssh_addr, 5).await.expect("a proxy"));
    let direct = agents::Direct::new(&endpoint);
    let to = endpoint
        .api_url
        .strip_prefix("http://")
        .and_then(|rest| rest.split('/').next())
        .unwrap();
    let api = Arc::new(FaultyApi::start(to.parse().unwrap()).await);
    let env = [
        ("VERS_BASE_URL", format!("http://{}/api/v1", api.address)),
        ("VERS_API_KEY", endpoint.api_key.clone()),
        ("VERS_VM_DOMAIN", endpoint.domain.clone()),
        ("VERS_VM_CONNECT", edge.address().to_string()),
        ("VERS_TLS_CA", endpoint.ca_pem.display().to_string()),
        ("LLM_PROXY_KEY", "sk-vers-chaos".to_owned()),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value)).into();
    let arena = Arc::new(Arena {
        harness: Coordinator::start(&scratch, env).await,
        golden,
        over: AtomicBool::new(false),
        token: AtomicU64::new(1),
        making: RwLock::new(()),
        answered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        unknown: AtomicU64::new(0),
    });
    let mut all = vec![tokio::spawn(command(arena.clone()))];
    all.extend((1..=3).map(|number| tokio::spawn(work(arena.clone(), number))));
    let kinds = trouble(arena.clone(), edge.clone(), api.clone(), direct.clone()).await;
    arena.over.store(true, Ordering::Relaxed);
    for one in all {
        one.await.expect("all that was asked of it holds");
    }
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    #[allow(clippy::print_stderr, reason = "what was survived is worth knowing")]
    {
        eprintln!(
            "{FAULTS} faults, {} restarts; {} tasks answered, {} reported as failed, {} not taken",
            count(&arena.harness.restarts),
            count(&arena.answered),
            count(&arena.failed),
            count(&arena.refused)
        );
    }
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    // No task is told of twice, whoever had sent it.
    let mut seen = BTreeSet::new();
    for message in arena.harness.messages("vers:lt_completed") {
        let run = (
            message["details"]["name"].to_string(),
            message["details"]["run"].to_string(),
        );
        let text = pi_vers_tests::text(&message);
        for line in text
            .lines()
            .filter(|line| line.starts_with('t') && line.ends_with('-'))
        {
            assert!(
                seen.insert((line.to_owned(), None))
                    || seen.contains(&(line.to_owned(), Some(run.clone()))),
                "{line} is told of in two runs: {message}"
            );
            seen.insert((line.to_owned(), Some(run.clone())));
        }
    }
    assert!(
        count(&arena.answered) >= 20,
        "too little was done for a test"
    );
    // What is left is known, and goes when it is told to.
    let mut said = Vec::new();
    for (tool, arguments) in [
        ("vers_swarm_discover", json!({})),
        ("vers_lt_discover", json!({})),
        ("vers_swarm_teardown", json!({ "force": true })),
        ("vers_lt_destroy", json!({ "name": "*" })),
    ] {
        said.push(arena.harness.insist(tool, arguments).await.0);
    }
    // A VM whose making was answered to nobody has no label, is listed, and can be deleted.
    let gone = async {
        loop {
            let left = direct.labels().await;
            if left.len() as u64 <= count(&arena.unknown)
                && left.iter().all(|vm| vm.ends_with("{}"))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(DEADLINE, gone).await.is_err() {
        let left = direct.labels().await;
        panic!(
            "VMs are left: {left:?}; {} may be\n{}",
            count(&arena.unknown),
            said.join("\n")
        );
    }
    let (listed, _) = arena.harness.insist("vers_vms", json!({})).await;
    for vm in direct.all().await {
        assert!(listed.contains(&vm), "{vm} is not listed: {listed}");
        arena
            .harness
            .insist("vers_vm_delete", json!({ "vmId": vm }))
            .await;
    }
    Arc::into_inner(arena)
        .expect("nobody else uses it")
        .harness
        .end()
        .await;
    scratch.end().await;
}
