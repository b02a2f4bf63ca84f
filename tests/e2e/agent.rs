//! The driver of agents in the guest SDK, with an agent in a VM. Tests named `defect_N` are of what the TypeScript original did wrong.

use std::net::SocketAddr;
use std::path::Path;

use pi_vers_host::{CallError, Refusal};
use pi_vers_tests::faults::Faults;
use pi_vers_tests::{Bench, DEADLINE, built, settings};
use serde_json::{Value, json};

use crate::lab::Lab;

const GRANTS: &str = r#"
vms = ["get"]
shell = { vms = "any", commands = "any", env = "any", files = "rw" }
secrets = ["LLM_PROXY_KEY -> vm env"]
environment = ["PI_PATH", "PUNKIN_BIN", "VERS_AGENT_NAME", "VERS_VM_ID", "VERS_AGENT_DEPTH"]
limits = { call = "10 min" }
"#;

/// Nobody else's value, and none that a shell would leave alone.
const KEY: &str = "sk-vers-'\"$(touch /tmp/owned)`x`-c4n4ry";

/// A VM with an agent as its `pi`, and a guest that drives it.
struct Crew {
    lab: Lab,
    bench: Bench,
}

impl Crew {
    async fn new() -> Self {
        let lab = Lab::new().await;
        install(&lab).await;
        let bench = bench(&lab, None).await;
        Self { lab, bench }
    }

    /// The same, where the guest reaches the VM through this.
    async fn through(seed: u64) -> (Self, Faults) {
        let lab = Lab::new().await;
        install(&lab).await;
        let edge = lab.scratch.endpoint().await.ssh_addr;
        let faults = Faults::start(edge, seed).await.expect("a proxy");
        let bench = bench(&lab, Some(faults.address())).await;
        (Self { lab, bench }, faults)
    }

    async fn ok(&self, tool: &str, arguments: Value) -> Value {
        match tokio::time::timeout(DEADLINE, self.bench.call(tool, arguments.clone())).await {
            Ok(Ok(output)) => output.details.unwrap_or_default(),
            Ok(Err(why)) => panic!("{tool} {arguments}: {why}"),
            Err(_) => panic!(
                "{tool} {arguments}: no answer; the agent says {}",
                self.log().await
            ),
        }
    }

    async fn start(&self) -> Value {
        self.start_with(json!({})).await
    }

    async fn start_with(&self, more: Value) -> Value {
        let mut arguments = json!({ "vm": self.lab.vm, "name": "anna", "key": KEY });
        let (all, more) = (arguments.as_object_mut().unwrap(), more);
        all.extend(more.as_object().unwrap().clone());
        self.ok("crew_start", arguments).await
    }

    async fn send(&self, text: &str) -> Value {
        self.ok("crew_send", json!({ "text": text })).await
    }

    /// The first `n` news.
    async fn news(&self, n: usize) -> Vec<Value> {
        let news = self.ok("crew_news", json!({ "n": n })).await;
        news.as_array().unwrap().clone()
    }

    /// Gives it a prompt as the first one, and waits for the end of its run.
    async fn run(&self, prompt: &str) -> Value {
        let before = self.news(0).await.len();
        self.send(prompt).await;
        for n in before + 1.. {
            let news = self.news(n).await;
            if let Some(ended) = news[before..].iter().find(|news| news["news"] == "ended") {
                return ended.clone();
            }
        }
        unreachable!()
    }

    /// What the agent wrote.
    async fn log(&self) -> String {
        self.lab
            .bash("tail -c 3000 /tmp/pi-rpc/out /tmp/pi-rpc/err; true")
            .await
    }

    async fn end(self) {
        self.bench.session.end().await;
        self.lab.end().await;
    }
}

async fn install(lab: &Lab) {
    let work = lab.scratch.work();
    let copy = work.join("pi-vers");
    if std::fs::hard_link(built::binary(), &copy).is_err() {
        std::fs::copy(built::binary(), &copy).expect("a copy of the binary");
    }
    let target = format!("vm:{}:/usr/local/lib/pi-vers/pi-vers", lab.vm);
    lab.ok("vers_vm_copy", json!({ "src": "pi-vers", "dst": target }))
        .await;
    lab.bash(
        "printf '#!/bin/sh\\nexec /usr/local/lib/pi-vers/pi-vers scripted-agent \"$@\"\\n' >/usr/local/bin/pi && chmod 755 /usr/local/bin/pi",
    )
    .await;
}

async fn bench(lab: &Lab, through: Option<SocketAddr>) -> Bench {
    let mut endpoint = lab.scratch.endpoint().await;
    if let Some(address) = through {
        endpoint.ssh_addr = address;
    }
    Bench::guest("crew", settings(&endpoint), &state(lab), GRANTS, &[]).await
}

fn state(lab: &Lab) -> std::path::PathBuf {
    let state = Path::new(&lab.scratch.work()).join("crew");
    std::fs::create_dir_all(&state).unwrap();
    state
}

fn digest(value: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(value.as_bytes());
    digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_31_35_an_agent_starts_as_people_and_reef_expect_it_where_the_image_has_nothing() {
    let crew = Crew::new().await;
    crew.start_with(
        json!({ "prompt": "It's \"you\", $HOME.", "worker": true, "model": "claude-sonnet-4-6" }),
    )
    .await;
    let ended = crew
        .run("prompt\nmodel\nrun pwd\nenv LLM_PROXY_KEY\nrun printenv VERS_VM_ID VERS_AGENT_NAME VERS_AGENT_ROLE VERS_PARENT_AGENT REEF_CHILD_AGENT GIT_EDITOR VERS_AGENT_DEPTH")
        .await;
    assert_eq!(ended["outcome"], "done", "{ended}");
    let text = ended["text"].as_str().unwrap();
    // Nothing becomes of an apostrophe.
    assert!(text.contains("It's \"you\", $HOME."), "{text}");
    assert!(text.contains("vers/claude-sonnet-4-6"), "{text}");
    // The directory is there, also where the image has none.
    assert!(text.contains("/root/workspace"), "{text}");
    assert!(text.contains(&digest(KEY)), "{text}");
    let facts = format!(
        "{}\nanna\nworker\norchestrator\ntrue\ntrue\n1\n",
        crew.lab.vm
    );
    assert!(text.contains(&facts), "{text}");
    let seen = crew
        .lab
        .bash("tmux ls -F '#{session_name}' | sort; ls /tmp/pi-rpc | tr '\\n' ' '; cat /etc/profile.d/reef-agent.sh; cat /root/.swarm/identity.json; stat -c %a /root/.swarm/identity.json /tmp/pi-rpc /tmp/pi-rpc/out")
        .await;
    for expected in [
        "pi-keeper\npi-rpc\n",
        " in ",
        " out ",
        "err ",
        &format!("VERS_VM_ID='{}'", crew.lab.vm),
        "\"agentId\":\"anna\"",
        "600\n700\n600",
    ] {
        assert!(seen.contains(expected), "{expected}: {seen}");
    }
    crew.ok("crew_end", json!({})).await;
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_36_an_agent_is_ready_when_it_answers_and_is_asked_once() {
    let crew = Crew::new().await;
    // It takes its time, and nobody asks again meanwhile.
    crew.lab
        .bash("mv /usr/local/bin/pi /usr/local/bin/agent && printf '#!/bin/sh\\nsleep 4\\nexec agent \"$@\"\\n' >/usr/local/bin/pi && chmod 755 /usr/local/bin/pi")
        .await;
    crew.start().await;
    let sent = crew.lab.bash("wc -l </tmp/pi-rpc/sent").await;
    assert_eq!(sent.trim(), "1");
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_25_a_key_stands_in_no_command_line_no_tmux_and_no_file() {
    let crew = Crew::new().await;
    crew.start().await;
    assert_eq!(crew.run("say ready").await["outcome"], "done");
    // The search must not find itself: no other process is told what is looked for while command lines are read.
    let found = crew
        .lab
        .bash(
            "set +e; exec 2>/dev/null; a=c4n; b=4ry; tmux list-panes -a -F '#{pane_start_command} #{pane_current_command}' | grep -c \"$a$b\"; tmux show-environment -g | grep -c \"$a$b\"; \
             tmux show-environment -t pi-rpc | grep -c \"$a$b\"; all=$(cat /proc/[0-9]*/cmdline | tr '\\0' ' '); case $all in *$a$b*) echo 1;; *) echo 0;; esac; \
             grep -rl \"$a$b\" /tmp /root /etc/profile.d /var/tmp | wc -l; ls /tmp/owned 2>/dev/null | wc -l; true",
        )
        .await;
    let counts: Vec<&str> = found.split_whitespace().collect();
    assert_eq!(counts, ["0"; 6], "{found}");
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_39_the_end_of_a_run_is_what_the_protocol_says() {
    let crew = Crew::new().await;
    crew.start().await;
    // Neither a try that failed nor room that has to be made is the end, and an error is not "done".
    let ended = crew.run("retry 2\nsay after two tries").await;
    assert_eq!(ended["outcome"], "done", "{ended}");
    assert!(
        ended["text"].as_str().unwrap().contains("after two tries"),
        "{ended}"
    );
    let ended = crew.run("compact overflow\nsay after room was made").await;
    assert_eq!(ended["outcome"], "done", "{ended}");
    assert!(
        ended["text"]
            .as_str()
            .unwrap()
            .contains("after room was made"),
        "{ended}"
    );
    let ended = crew.run("say half\nfail the model is on strike").await;
    assert_eq!(
        ended["outcome"],
        json!({ "failed": "the model is on strike" }),
        "{ended}"
    );
    // A refusal that comes after the yes.
    let ended = crew.run("refuse no key for that").await;
    assert_eq!(
        ended["outcome"],
        json!({ "failed": "no key for that" }),
        "{ended}"
    );
    let refused = crew
        .bench
        .call("crew_send", json!({ "text": "reject not now" }))
        .await;
    assert!(
        matches!(&refused, Err(CallError::Failed(output)) if output.text().contains("not now")),
        "{refused:?}"
    );
    // Noise on the output is no line of the protocol.
    let ended = crew.run("noise {\"type\":\nsay still here").await;
    assert!(
        ended["text"].as_str().unwrap().contains("still here"),
        "{ended}"
    );
    let events: Vec<Value> = crew.news(0).await;
    let starts = events
        .iter()
        .filter(|news| news["news"] == "started")
        .count();
    let ends = events.iter().filter(|news| news["news"] == "ended").count();
    assert_eq!((starts, ends), (4, 5), "{events:?}");
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_40_a_silent_agent_is_working_until_it_is_stopped() {
    let crew = Crew::new().await;
    crew.start().await;
    crew.send("hang").await;
    crew.news(1).await;
    let state = crew.ok("crew_state", json!({})).await;
    assert_eq!(state["status"], "Working");
    // While it works, another prompt waits for its turn.
    assert_eq!(crew.send("say later").await["queued"], true);
    let state = crew.ok("crew_abort", json!({})).await;
    assert_eq!(state["status"], "Idle");
    let news = crew.news(2).await;
    assert_eq!(news[1]["outcome"], "aborted", "{news:?}");
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_49_52_an_agent_that_crashes_is_not_shown_as_working_and_leaves_its_place() {
    let crew = Crew::new().await;
    crew.start().await;
    crew.send("say last words\ncrash 3").await;
    let news = crew.news(3).await;
    let outcome = news[1]["outcome"]["failed"].as_str().unwrap_or_default();
    assert!(outcome.contains("exited with code 3"), "{news:?}");
    assert!(
        news[2]["status"]
            .as_str()
            .unwrap()
            .contains("exited with code 3"),
        "{news:?}"
    );
    let refused = crew
        .bench
        .call("crew_send", json!({ "text": "hello?" }))
        .await;
    assert!(
        matches!(&refused, Err(CallError::Failed(output)) if output.text().contains("has ended")),
        "{refused:?}"
    );
    // And another start on the same VM finds its place taken by nobody, though the session of before is still there.
    crew.start().await;
    assert_eq!(crew.run("say again").await["outcome"], "done");
    // Nobody is left to write a record.
    crew.send("hang").await;
    crew.lab
        .bash("pkill -KILL -f '^sh /tmp/pi-rpc/ru[n]'; pkill -KILL -f 'scripted-agen[t]'; true")
        .await;
    let news = crew.news(5).await;
    let last = news.last().unwrap();
    assert!(
        last["status"].as_str().unwrap().starts_with("Ended"),
        "{news:?}"
    );
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_not_there_is_said_to_be_missing() {
    let crew = Crew::new().await;
    crew.lab.bash("rm /usr/local/bin/pi").await;
    let failed = crew
        .bench
        .call("crew_start", json!({ "vm": crew.lab.vm, "name": "anna" }))
        .await;
    let Err(CallError::Failed(output)) = &failed else {
        panic!("{failed:?}")
    };
    assert!(
        output.text().contains("its program was not found"),
        "{}",
        output.text()
    );
    let attached = crew
        .bench
        .call("crew_attach", json!({ "vm": crew.lab.vm, "name": "anna" }))
        .await;
    assert!(
        matches!(&attached, Err(CallError::Failed(output)) if output.text().contains("no agent runs there")),
        "{attached:?}"
    );
    let nowhere = "00000000-0000-4000-8000-000000000000";
    let attached = crew
        .bench
        .call("crew_attach", json!({ "vm": nowhere, "name": "anna" }))
        .await;
    assert!(
        matches!(&attached, Err(CallError::Failed(output)) if output.text().contains("there is no VM")),
        "{attached:?}"
    );
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_38_a_model_that_does_not_exist_is_not_silently_another() {
    let crew = Crew::new().await;
    let failed = crew
        .bench
        .call(
            "crew_start",
            json!({ "vm": crew.lab.vm, "name": "anna", "model": "vers/no-such-model" }),
        )
        .await;
    let Err(CallError::Failed(output)) = &failed else {
        panic!("{failed:?}")
    };
    assert!(
        output
            .text()
            .contains("Model not found: vers/no-such-model"),
        "{}",
        output.text()
    );
    let left = crew
        .lab
        .bash("tmux ls 2>&1; pgrep -fc '[s]cripted-agent' || true")
        .await;
    assert!(!left.contains("pi-rpc") && left.contains('0'), "{left}");
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_of_an_agent_hangs_nobody() {
    let crew = Crew::new().await;
    crew.start().await;
    let ended = crew
        .run("ask confirm Shall I?\nask select Which | a | b\nnotify all is well")
        .await;
    assert_eq!(ended["outcome"], "done", "{ended}");
    assert_eq!(
        ended["text"]
            .as_str()
            .unwrap()
            .matches("answer: cancelled")
            .count(),
        2,
        "{ended}"
    );
    let news = crew.news(0).await;
    assert!(
        news.iter()
            .any(|news| news["news"] == "notice" && news["text"] == "all is well"),
        "{news:?}"
    );
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_37_messages_arrive_whole_in_order_and_once() {
    let crew = Crew::new().await;
    crew.start().await;
    // Larger than a pipe takes at once, and characters that are more than a byte or end a line for some.
    let long = format!("say {}\u{2028}end", "ä'\"\\$`".repeat(20_000));
    let ended = crew.run(&long).await;
    let text = ended["text"].as_str().unwrap();
    assert!(
        text.trim_end().ends_with("\u{2028}end") && text.len() > 140_000,
        "{} bytes",
        text.len()
    );
    crew.send("sleep 300").await;
    for n in 0..8 {
        crew.send(&format!("say number {n}")).await;
    }
    // Queued or not, depending on how quick this machine is: in one run or in several.
    let mut text = String::new();
    for n in 3.. {
        let news = crew.news(n).await;
        let texts = news.iter().filter_map(|news| news["text"].as_str());
        text = texts.skip(1).collect();
        if text.contains("number 7") {
            break;
        }
    }
    let numbers: Vec<usize> = (0..8)
        .map(|n| text.matches(&format!("number {n}")).count())
        .collect();
    assert_eq!(numbers, [1; 8], "{text}");
    let places: Vec<usize> = (0..8)
        .map(|n| text.find(&format!("number {n}")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{text}");
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_42_every_line_of_output_is_seen_once_across_cut_connections() {
    let (crew, faults) = Crew::through(7).await;
    crew.start().await;
    let run = crew.run("stream for i in $(seq 1 400); do echo line $i; sleep 0.01; done\nsay over");
    let cut = async {
        for _ in 0..12 {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            faults.cut();
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = run => ended,
        () = cut => unreachable!(),
    };
    assert!(faults.counts().cuts() > 3, "nothing was survived");
    assert_eq!(ended["outcome"], "done", "{ended}");
    let lines: Vec<&str> = ended["text"]
        .as_str()
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("line "))
        .collect();
    let expected: Vec<String> = (1..=400).map(|n| format!("line {n}")).collect();
    assert_eq!(lines, expected);
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_44_what_an_agent_said_while_nobody_listened_is_read_and_not_lost() {
    let crew = Crew::new().await;
    crew.start().await;
    let first = crew.run("say one").await;
    crew.send("run sleep 1\nsay two").await;
    crew.news(3).await;
    // The coordinator goes, in the middle of a run.
    let Crew { lab, bench } = crew;
    bench.session.end().await;

    let bench = self::bench(&lab, None).await;
    let crew = Crew { lab, bench };
    // The run is going on, or over; in any case it is told once, and nothing of the first one is told again.
    let arguments = json!({ "vm": crew.lab.vm, "name": "anna", "bookmark": first["bookmark"] });
    crew.ok("crew_attach", arguments).await;
    let news = crew.news(2).await;
    assert_eq!(news[0]["news"], "started", "{news:?}");
    assert!(
        news[1]["text"].as_str().unwrap().contains("two"),
        "{news:?}"
    );
    assert!(
        !news[1]["text"].as_str().unwrap().contains("one"),
        "{news:?}"
    );
    // And it works as before.
    assert_eq!(crew.run("count").await["outcome"], "done");
    // Without a bookmark, what it said last is asked for.
    crew.ok("crew_let_go", json!({})).await;
    crew.ok("crew_attach", json!({ "vm": crew.lab.vm, "name": "anna" }))
        .await;
    let state = async {
        loop {
            let state = crew.ok("crew_state", json!({})).await;
            if state["bytes"] != 0 {
                return state;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let state = tokio::time::timeout(DEADLINE, state)
        .await
        .expect("its last words");
    assert_eq!(state["status"], "Idle");
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_43_an_agents_log_is_bounded_by_what_was_read() {
    let crew = Crew::new().await;
    crew.start().await;
    // Without the repeated messages, each of these would be 20 times as long.
    for _ in 0..5 {
        let ended = crew.run("big 1500000").await;
        assert_eq!(ended["outcome"], "done");
        assert!(
            ended["leftOut"].as_u64().unwrap() > 1_000_000,
            "{}",
            ended["leftOut"]
        );
    }
    let used = async {
        loop {
            let du = crew
                .lab
                .bash("du -k /tmp/pi-rpc/out | cut -f1; stat -c %s /tmp/pi-rpc/out")
                .await;
            let numbers: Vec<u64> = du.split_whitespace().map(|n| n.parse().unwrap()).collect();
            if numbers[0] * 1024 < numbers[1] / 2 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, used)
        .await
        .expect("disk space that was given back");
    crew.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_no_key_is_handed_on() {
    let lab = Lab::new().await;
    let endpoint = lab.scratch.endpoint().await;
    let grants = "vms = [\"get\"]\nshell = { vms = \"any\", commands = [], files = \"rw\" }";
    let bench = Bench::guest(
        "crew",
        settings(&endpoint),
        &state(&lab),
        grants,
        &[("LLM_PROXY_KEY", KEY)],
    )
    .await;
    let refused = bench
        .call("crew_start", json!({ "vm": lab.vm, "name": "anna" }))
        .await;
    assert!(
        matches!(
            &refused,
            Err(CallError::Refused {
                kind: Refusal::Denied,
                ..
            })
        ),
        "{refused:?}"
    );
    bench.session.end().await;
    lab.end().await;
}
