//! Lieutenants under faults: cut connections, sessions that end and begin, agents that are killed, VMs that somebody pauses.
//!
//! What has to hold whatever happens: every prompt that was taken is answered or reported failed, once; and in the end every VM is either
//! on the list or deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use pi_vers_tests::faults::{Faults, Random};
use pi_vers_tests::{Bench, DEADLINE, settings};
use serde_json::json;

use super::desk::{ANNOUNCEMENT, Place, Run};

/// Prompts; each with a fault while it is worked on.
const ROUNDS: usize = 20;

struct Chaos {
    place: Place,
    faults: Faults,
    /// Somebody else who uses the same VMs.
    other: Bench,
    run: Run,
    /// What sessions that are over were told.
    told: Vec<String>,
}

impl Chaos {
    async fn session(place: &Place, faults: &Faults) -> Run {
        let settings = place.settings_through(Some(faults.address()), &[]);
        place
            .run("mine", &place.scratch.work(), settings, &[])
            .await
    }

    /// All that was announced, in all sessions.
    fn announced(&self) -> Vec<String> {
        let now = self.run.announced().into_iter().map(|message| message.text);
        self.told.iter().cloned().chain(now).collect()
    }

    /// The session ends, and the next one begins.
    async fn restart(self) -> Self {
        let Self {
            place,
            faults,
            other,
            run,
            mut told,
        } = self;
        let desk = run.desk.clone();
        run.end().await;
        told.extend(
            desk.sent(ANNOUNCEMENT)
                .into_iter()
                .map(|message| message.text),
        );
        let run = Self::session(&place, &faults).await;
        Self {
            place,
            faults,
            other,
            run,
            told,
        }
    }

    async fn on_vm(&self, vm: &str, command: &str) {
        self.other.text("vers_vm_use", json!({ "vmId": vm })).await;
        let _ = self.other.call("bash", json!({ "command": command })).await;
    }

    /// How the lieutenant of this name is.
    async fn status(&self, name: &str) -> String {
        let (_, details) = self.run.ok("vers_lt_status", json!({})).await;
        let all = details["lieutenants"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let one = all
            .iter()
            .find(|one| one["name"] == name)
            .expect("it is on the list");
        one["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Brings it back to work, and waits until it can be given something.
    async fn ready(&self, name: &str) {
        let began = std::time::Instant::now();
        loop {
            match self.status(name).await.as_str() {
                "idle" => return,
                "paused" | "error" => {
                    let resumed = self
                        .run
                        .session
                        .call("vers_lt_resume", json!({ "name": name }));
                    let mut resumed = resumed;
                    let _ = resumed.outcome().await;
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            assert!(
                began.elapsed() < DEADLINE,
                "{name} is not ready: {}",
                self.run.text("vers_lt_status", json!({})).await
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_prompt_is_answered_or_reported_failed_once_whatever_happens() {
    let place = Place::new().await;
    let faults = Faults::start(place.endpoint.ssh_addr, 7)
        .await
        .expect("a proxy");
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Bench::open(settings(&place.endpoint), elsewhere.path()).await;
    let run = Chaos::session(&place, &faults).await;
    let mut vms = BTreeMap::new();
    for name in ["a", "b"] {
        vms.insert(name, run.create(&place, name, "r").await);
    }
    let mut chaos = Chaos {
        place,
        faults,
        other,
        run,
        told: Vec::new(),
    };
    let mut random = Random(42);
    let mut taken = BTreeMap::new();
    for round in 0..ROUNDS {
        let name = if random.below(2) == 0 { "a" } else { "b" };
        let vm = vms[name].clone();
        chaos.ready(name).await;
        let marker = format!("marker-{round}-");
        let message = format!("run sleep 0.3; echo worked\nsay {marker}");
        let mut sent = chaos
            .run
            .session
            .call("vers_lt_send", json!({ "name": name, "message": message }));
        // That a VM sleeps is noticed after half a minute: once is enough.
        let fault = if round == 4 {
            4
        } else {
            [0, 1, 2, 3, 5][random.below(5) as usize]
        };
        if fault == 0 {
            chaos.faults.cut();
        }
        taken.insert(marker.clone(), sent.outcome().await.is_ok());
        tokio::time::sleep(Duration::from_millis(random.below(500))).await;
        match fault {
            1 => chaos.faults.cut(),
            2 => chaos = chaos.restart().await,
            3 => {
                chaos
                    .on_vm(&vm, "pkill -KILL -f [s]cripted-agent; true")
                    .await
            }
            4 => {
                chaos
                    .other
                    .text("vers_vm_state", json!({ "vmId": vm, "state": "Paused" }))
                    .await;
            }
            5 => {
                chaos.faults.cut();
                chaos = chaos.restart().await;
                chaos.faults.cut();
            }
            _ => {}
        }
        chaos.ready(name).await;
    }
    // What is still to be told comes now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let announced = chaos.announced();
    let failed = announced
        .iter()
        .filter(|text| text.contains("failed]"))
        .count();
    let mut silent = 0;
    for (marker, was_taken) in &taken {
        let times = announced
            .iter()
            .filter(|text| text.contains(marker.as_str()))
            .count();
        assert!(
            times <= 1,
            "{marker} was told {times} times: {announced:#?}"
        );
        silent += usize::from(*was_taken && times == 0);
    }
    // A run that failed says so without what it was about to say.
    assert!(
        silent <= failed,
        "{silent} prompts were taken and not told of, {failed} failed: {announced:#?}"
    );
    let good = taken.values().filter(|taken| **taken).count();
    assert!(
        good > ROUNDS / 2 && announced.len() <= ROUNDS,
        "{good} taken, {} told",
        announced.len()
    );
    chaos
        .run
        .text("vers_lt_destroy", json!({ "name": "*" }))
        .await;
    assert!(chaos.place.vms().await.is_empty());
    chaos.run.end().await;
    chaos.other.session.end().await;
    chaos.place.end().await;
}
