//! `pi-vers dev`: a change is built and tested, and a front end that watches loads it with its grants.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::common::{Home, interrupt};

/// Nothing takes longer.
const SOON: Duration = Duration::from_secs(60);

/// Both outputs of a running command, line by line.
struct Lines(Receiver<String>);

impl Lines {
    fn of(child: &mut Child) -> Self {
        let (to, lines) = channel();
        let outputs: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for output in outputs {
            let to = to.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = to.send(line);
                }
            });
        }
        Self(lines)
    }

    /// All lines until each of these texts was in one: two pipes keep no order between them.
    fn until(&self, texts: &[&str]) -> Vec<String> {
        let (deadline, mut seen) = (Instant::now() + SOON, Vec::new());
        let told = |seen: &[String], text: &str| seen.iter().any(|line| line.contains(text));
        while !texts.iter().all(|text| told(&seen, text)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.0.recv_timeout(left);
            seen.push(line.unwrap_or_else(|why| panic!("not all of {texts:?} ({why}): {seen:#?}")));
        }
        seen
    }
}

#[test]
fn a_change_is_built_tested_and_granted_to_the_new_bytes_alone() {
    let home = Home::new();
    let ran = home.run(["new", "hello", "--lang", "script"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let script = std::fs::read_dir(home.path("work/hello")).unwrap();
    let script = script
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "js"))
        .expect("a script");
    let granted = home.path("work/hello/build/hello.policy.toml");
    let digest = || {
        let text = std::fs::read_to_string(&granted).unwrap();
        text.lines()
            .find(|line| line.starts_with("digest"))
            .unwrap()
            .to_owned()
    };

    let mut child = home.command(["dev", "hello"]).spawn().unwrap();
    let lines = Lines::of(&mut child);
    let seen = lines.until(&["scripts passed", "waiting for a change"]);
    assert!(
        seen.iter().any(|line| line.contains("+ tool ")),
        "{seen:#?}"
    );
    let first = digest();

    let good = std::fs::read_to_string(&script).unwrap();
    std::fs::write(&script, format!("{good}\n// changed\n")).unwrap();
    let seen = lines.until(&["scripts passed", "waiting for a change"]);
    assert!(
        !seen.iter().any(|line| line.contains("+ tool ")),
        "no tool is new: {seen:#?}"
    );
    assert_ne!(digest(), first);

    // What is wrong ends nothing.
    std::fs::write(&script, "export default {").unwrap();
    lines.until(&["can't be run", "waiting for a change"]);
    std::fs::write(&script, &good).unwrap();
    lines.until(&["scripts passed", "waiting for a change"]);
    assert_eq!(digest(), first);

    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_no_project_is_said_at_once() {
    let home = Home::new();
    let mut command = home.command(["dev"]);
    let ran = crate::common::finish(command.stdin(Stdio::null()).spawn().unwrap());
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.line().contains("pi-vers new"), "{ran:?}");
}
