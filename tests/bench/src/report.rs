//! Tables, as `docs/benchmarks.md` has them.

#![allow(clippy::print_stdout, reason = "tables are what this program is for")]

use std::process::Command;

use pi_vers_bench::stats::Series;

use crate::rounds::Result;

/// In what a table counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// Milliseconds.
    Time,
    /// MiB/s, for so many bytes in each run.
    Rate(u64),
}

/// A table of one job. `against`: the methods that each line is compared with, by name.
pub(crate) fn table(title: &str, unit: Unit, results: &[Result], against: &[&str]) {
    let references: Vec<&Result> = against
        .iter()
        .filter_map(|name| results.iter().find(|result| result.name == *name))
        .collect();
    let (heads, cpu) = match unit {
        Unit::Time => ("median ms | p25 | p75 | p95 | p99", "client CPU ms"),
        Unit::Rate(_) => ("median MiB/s | p25 | p75 | p5 | p1", "client CPU s/GiB"),
    };
    let ratios: String = references
        .iter()
        .map(|reference| format!(" × {} |", reference.name))
        .collect();
    println!("\n### {title}\n\n| method | {heads} | {cpu} | failed | n |{ratios}");
    println!(
        "|---|{}{}",
        "---:|".repeat(8),
        "---:|".repeat(references.len())
    );
    for result in results {
        let series = &result.series;
        let (quantiles, cpu) = match unit {
            Unit::Time => (
                [0.5, 0.25, 0.75, 0.95, 0.99].map(|part| shown(series.quantile(part), |s| s * 1e3)),
                shown(series.cpu_each(), |s| s * 1e3),
            ),
            Unit::Rate(bytes) => {
                let mib = bytes as f64 / f64::from(1 << 20);
                (
                    // A slow run is a low rate.
                    [0.5, 0.75, 0.25, 0.95, 0.99]
                        .map(|part| shown(series.quantile(part), |s| mib / s)),
                    shown(series.cpu_each(), |s| s * 1024.0 / mib),
                )
            }
        };
        let ratios: String = references
            .iter()
            .map(|reference| {
                let ratio = series.times_faster_than(&reference.series);
                format!(" {} |", shown(ratio, |ratio| ratio))
            })
            .collect();
        println!(
            "| {} | {} | {cpu} | {} | {} |{ratios}",
            result.name,
            quantiles.join(" | "),
            series.failures,
            series.len(),
        );
    }
    for Result { name, series } in results {
        if let Some(why) = &series.first_failure {
            println!("\nThe first failure of {name}: {}", why.replace('\n', " "));
        }
    }
}

/// What a server of the Model Context Protocol gave.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) name: String,
    /// From the start of the process to its first list of tools.
    pub(crate) start: Series,
    /// A call, with the server's processor time.
    pub(crate) call: Series,
    /// The most bytes of memory that it had.
    pub(crate) memory: u64,
}

/// A table of servers.
pub(crate) fn servers(title: &str, servers: &[Server]) {
    println!(
        "\n### {title}\n\n| server | start ms | least | call µs | p25 | p75 | p99 | server CPU µs a call | memory MiB | starts | calls | failed |"
    );
    println!("|---|{}", "---:|".repeat(11));
    for server in servers {
        let (start, call) = (&server.start, &server.call);
        let ms = |part| shown(start.quantile(part), |s| s * 1e3);
        let us = |part| shown(call.quantile(part), |s| s * 1e6);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {:.0} | {} | {} | {} |",
            server.name,
            ms(0.5),
            ms(0.0),
            us(0.5),
            us(0.25),
            us(0.75),
            us(0.99),
            shown(call.cpu_each(), |s| s * 1e6),
            server.memory as f64 / f64::from(1 << 20),
            start.len(),
            call.len(),
            start.failures,
        );
    }
    for Server { name, start, .. } in servers {
        if let Some(why) = &start.first_failure {
            println!("\nThe first failure of {name}: {}", why.replace('\n', " "));
        }
    }
}

/// What an extension in one language gave.
#[derive(Default)]
pub(crate) struct Language {
    pub(crate) name: String,
    /// Bytes of the component, or of the script.
    pub(crate) size: u64,
    /// A load that compiles.
    pub(crate) cold: Series,
    /// A load of compiled code.
    pub(crate) cached: Series,
    /// The first call of a session.
    pub(crate) start: Series,
    pub(crate) call: Series,
    /// Linear memory of the instance after the calls, in bytes.
    pub(crate) memory: u64,
}

/// A table of languages.
pub(crate) fn languages(title: &str, all: &[Language]) {
    println!(
        "\n### {title}\n\n| language | size KiB | load, cold ms | load, cached ms | first call ms | call µs | p25 | p75 | p99 | memory MiB | loads | calls | failed |"
    );
    println!("|---|{}", "---:|".repeat(12));
    for one in all {
        let ms = |series: &Series| shown(series.quantile(0.5), |s| s * 1e3);
        let us = |part| shown(one.call.quantile(part), |s| s * 1e6);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            one.name,
            one.size.div_ceil(1024),
            ms(&one.cold),
            ms(&one.cached),
            ms(&one.start),
            us(0.5),
            us(0.25),
            us(0.75),
            us(0.99),
            shown(Some(one.memory as f64 / f64::from(1 << 20)), |mib| mib),
            one.cached.len(),
            one.call.len(),
            one.call.failures,
        );
    }
    for Language { name, call, .. } in all {
        if let Some(why) = &call.first_failure {
            println!("\nThe first failure of {name}: {}", why.replace('\n', " "));
        }
    }
    println!("\nLoad average {} when it ended.", load());
}

fn shown(value: Option<f64>, unit: impl Fn(f64) -> f64) -> String {
    value.map_or_else(
        || "–".into(),
        |value| match unit(value) {
            large if large >= 100.0 => format!("{large:.0}"),
            middle if middle >= 10.0 => format!("{middle:.1}"),
            small => format!("{small:.2}"),
        },
    )
}

/// A bar of the design, and where this run stands.
pub(crate) struct Bar {
    what: String,
    here: String,
    met: Option<bool>,
}

impl Bar {
    /// Met when `here` is at least, or at most, so much.
    pub(crate) fn new(what: &str, here: Option<f64>, met: impl Fn(f64) -> bool) -> Self {
        Self {
            what: what.into(),
            here: shown(here, |here| here),
            met: here.map(met),
        }
    }
}

/// All the bars of a run.
pub(crate) fn bars(bars: &[Bar]) {
    println!("\n### Against the bars\n\n| bar | here | |\n|---|---:|---|");
    for Bar { what, here, met } in bars {
        let met = match met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "not measured",
        };
        println!("| {what} | {here} | {met} |");
    }
    println!("\nLoad average {} when it ended.", load());
}

/// How many times as fast the first is, by name.
pub(crate) fn ratio(results: &[Result], fast: &str, slow: &str) -> Option<f64> {
    let find = |name: &str| results.iter().find(|result| result.name == name);
    find(fast)?.series.times_faster_than(&find(slow)?.series)
}

/// A method's series, by name.
pub(crate) fn series<'a>(results: &'a [Result], name: &str) -> Option<&'a Series> {
    let found = results.iter().find(|result| result.name == name);
    found.map(|result| &result.series)
}

/// What it was measured on.
pub(crate) fn processor() {
    let first = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let processors = first("/proc/cpuinfo");
    let processor = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "- {count} × {processor}; Linux {}",
        first("/proc/sys/kernel/osrelease").trim()
    );
    println!("- load average {} when it began", load());
}

/// And with what.
pub(crate) fn machine(scratch: &std::path::Path, agreed: &str, theirs: &str) {
    processor();
    let commit = says("git", &["rev-parse", "--short", "HEAD"]);
    println!(
        "- {}; {}; {}; {}",
        says("ssh", &["-V"]),
        says("openssl", &["version"]),
        says("rustc", &["--version"]),
        optional("node", &["--version"])
    );
    println!(
        "- {}; {}",
        optional("rsync", &["--version"]),
        optional("tar", &["--version"])
    );
    println!(
        "- OpenSSH's sshd with default limits (MaxSessions 10, MaxStartups 10:30:100) behind a TLS terminator of this program, on the same machine"
    );
    println!("- agreed on: `ssh` {theirs}; ours and the bare channel {agreed}");
    println!("- files in {}; commit {commit}", scratch.display());
}

/// The load average of the last 1, 5 and 15 minutes.
fn load() -> String {
    let averages = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<&str> = averages.split(' ').take(3).collect();
    averages.join(" ")
}

fn says(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let said = output
        .map(|output| [output.stdout, output.stderr].concat())
        .unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn optional(program: &str, arguments: &[&str]) -> String {
    let version = says(program, arguments);
    match version.as_str() {
        "unknown" => format!("no {program}"),
        _ if version.contains(program) => version,
        _ => format!("{program} {version}"),
    }
}
