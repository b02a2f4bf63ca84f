//! The job that the swarm does: the tests of a small project, one of which fails.
//!
//! What each test has to print is computed here, by another implementation than the project's; so the lines that come back show that the tests
//! have run on the VMs, and each of them once.

use std::fmt::Write as _;
use std::path::Path;

/// Checks in each test.
const CHECKS: u64 = 5;
/// Tests for each worker.
pub(super) const SHARE: usize = 3;

/// The project's library. Its leap years have a mistake, which is there on purpose.
const LIBRARY: &str = r#"# Small sums, for shells.
gcd() {
    a=$1 b=$2
    while [ "$b" -ne 0 ]; do r=$((a % b)) a=$b b=$r; done
    echo "$a"
}
is_prime() {
    d=2
    [ "$1" -lt 2 ] && { echo no; return; }
    while [ $((d * d)) -le "$1" ]; do
        [ $(($1 % d)) -eq 0 ] && { echo no; return; }
        d=$((d + 1))
    done
    echo yes
}
collatz() {
    n=$1 steps=0
    while [ "$n" -ne 1 ]; do
        if [ $((n % 2)) -eq 0 ]; then n=$((n / 2)); else n=$((3 * n + 1)); fi
        steps=$((steps + 1))
    done
    echo "$steps"
}
is_leap() {
    # Wrong: most centuries are no leap years.
    [ $(($1 % 4)) -eq 0 ] && echo yes || echo no
}
"#;

/// Runs test files, and counts what failed.
const RUNNER: &str = r#"#!/bin/sh
# Usage: run-tests.sh FILE…
cd "$(dirname "$0")" || exit 2
failed=0
check() {
    # Work takes its time.
    sleep 0.2
    if [ "$3" = "$2" ]; then echo "ok $1 = $2"; else echo "not ok $1: expected $2, got $3"; failed=$((failed + 1)); fi
}
. ./library.sh
for file; do . "./tests/$file"; done
echo "failed: $failed"
[ "$failed" -eq 0 ]
"#;

/// A test file, and what it prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) file: String,
    script: String,
    pub(super) lines: Vec<String>,
    pub(super) fails: bool,
}

/// The project.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) tests: Vec<Test>,
}

impl Project {
    /// One with [`SHARE`] tests for each worker.
    pub(super) fn new(workers: usize) -> Self {
        let tests = (0..workers * SHARE).map(|number| test(number as u64));
        Self {
            tests: tests.collect(),
        }
    }

    /// The tests of this worker: as many as everybody's, and not those of a neighbour.
    pub(super) fn share(&self, worker: usize) -> &[Test] {
        self.tests.chunks(SHARE).nth(worker).unwrap_or_default()
    }

    /// Puts it into a directory.
    pub(super) fn write(&self, directory: &Path) -> std::io::Result<()> {
        let tests = directory.join("tests");
        std::fs::create_dir_all(&tests)?;
        std::fs::write(directory.join("library.sh"), LIBRARY)?;
        std::fs::write(directory.join("run-tests.sh"), RUNNER)?;
        for test in &self.tests {
            std::fs::write(tests.join(&test.file), &test.script)?;
        }
        Ok(())
    }
}

fn test(number: u64) -> Test {
    let kind = ["gcd", "is_prime", "collatz", "is_leap"]
        .get(usize::try_from(number % 4).unwrap_or(0))
        .copied()
        .unwrap_or("gcd");
    let (mut script, mut lines, mut fails) = (String::new(), Vec::new(), false);
    for check in 0..CHECKS {
        let seed = number * CHECKS + check;
        let (arguments, expected, got) = case(kind, seed, number == 3 && check == 2);
        let name = format!("{number:03}.{check} {kind} {arguments}");
        let _ = writeln!(
            script,
            "check '{name}' '{expected}' \"$({kind} {arguments})\""
        );
        lines.push(if expected == got {
            format!("ok {name} = {expected}")
        } else {
            fails = true;
            format!("not ok {name}: expected {expected}, got {got}")
        });
    }
    Test {
        file: format!("{number:03}-{kind}.sh"),
        script,
        lines,
        fails,
    }
}

/// The arguments of a check, what is right, and what the library says.
fn case(kind: &str, seed: u64, century: bool) -> (String, String, String) {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    match kind {
        "gcd" => {
            let (a, b) = (60 + seed * 36, 24 + seed * 18);
            let right = (1..=a.min(b)).rev().find(|d| a % d == 0 && b % d == 0);
            let right = right.unwrap_or(1).to_string();
            (format!("{a} {b}"), right.clone(), right)
        }
        "is_prime" => {
            let n = 101 + seed * 2;
            let right = yes(n > 1 && (2..n).all(|d| !n.is_multiple_of(d)));
            (n.to_string(), right.clone(), right)
        }
        "collatz" => {
            let n = 7 + seed;
            let steps = std::iter::successors(Some(n), |n| match n {
                1 => None,
                n if n % 2 == 0 => Some(n / 2),
                n => Some(3 * n + 1),
            });
            let right = (steps.count() - 1).to_string();
            (n.to_string(), right.clone(), right)
        }
        _ => {
            // 1900 is the one that fails; the others are of a time without such centuries.
            let year = if century { 1900 } else { 1901 + seed % 99 };
            let right = yes(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
            (year.to_string(), right, yes(year % 4 == 0))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::HashSet;
    use std::process::Command;

    #[test]
    fn the_tests_print_what_is_expected_and_one_fails() {
        let project = Project::new(2);
        let directory = tempfile::tempdir().unwrap();
        project.write(directory.path()).unwrap();
        // Without its pauses.
        let runner = std::fs::read_to_string(directory.path().join("run-tests.sh")).unwrap();
        let quick = runner.replace("sleep 0.2", ":");
        std::fs::write(directory.path().join("run-tests.sh"), quick).unwrap();
        for worker in 0..2 {
            let share = project.share(worker);
            let output = Command::new("sh")
                .arg(directory.path().join("run-tests.sh"))
                .args(share.iter().map(|test| &test.file))
                .output()
                .unwrap();
            let failed = share.iter().filter(|test| test.fails).count();
            let mut expected: Vec<String> =
                share.iter().flat_map(|test| test.lines.clone()).collect();
            expected.push(format!("failed: {failed}"));
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(text.lines().collect::<Vec<_>>(), expected);
            assert_eq!(output.status.success(), failed == 0);
        }
        let lines = || project.tests.iter().flat_map(|test| &test.lines);
        assert_eq!(lines().filter(|line| line.starts_with("not ok")).count(), 1);
        assert_eq!(lines().collect::<HashSet<_>>().len(), lines().count());
    }

    #[test]
    fn every_test_belongs_to_one_worker() {
        let project = Project::new(20);
        let shared: Vec<&Test> = (0..20).flat_map(|worker| project.share(worker)).collect();
        assert_eq!(shared, project.tests.iter().collect::<Vec<_>>());
        assert!(project.share(20).is_empty());
        assert_eq!(project.tests.iter().filter(|test| test.fails).count(), 1);
    }
}
