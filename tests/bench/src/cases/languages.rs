//! The same extension in each language, in the same host: how large, how long it takes to load, to start and to call.
//!
//! The components are those that `tests/samples/run.sh` builds and checks. Each round loads, starts and calls each of them, in an order drawn
//! anew: cold is a load into an empty cache of compiled code, cached one from it by a new host, which also asks the extension what it
//! offers; a start is the first call of a session, with a fresh instance; a call is `build_status`, which parses no arguments and reads the
//! store. A script is loaded by the runner, whose compiled code all scripts share.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pi_vers_host::platform::{Environment, Overrides, Settings};
use pi_vers_host::{Headless, Host};
use pi_vers_tests::built;
use rand::seq::SliceRandom as _;
use serde_json::json;

use crate::Outcome;
use crate::report::{Language, languages};

/// The tool that is called.
const TOOL: &str = "build_status";
/// Calls of a round, and those before them that warm up.
const CALLS: u32 = 200;
const WARM: u32 = 50;

/// Runs all of it. Needs no VM.
pub(crate) async fn measure(scratch: &Path, quick: bool) -> Outcome<()> {
    let components = components()?;
    let runner = std::fs::read(built::shipped("script-runner"))?;
    let mut results: Vec<Language> = components
        .iter()
        .map(|(name, path)| Language {
            name: name.clone(),
            size: std::fs::metadata(path).map_or(0, |data| data.len()),
            ..Language::default()
        })
        .collect();
    let (rounds, cold) = if quick { (2, 1) } else { (20, 3) };
    let mut order: Vec<usize> = (0..components.len()).collect();
    for round in 0..rounds {
        eprintln!("languages: round {} of {rounds}", round + 1);
        order.shuffle(&mut rand::rng());
        for &at in &order {
            let (Some((_, path)), Some(result)) = (components.get(at), results.get_mut(at)) else {
                continue;
            };
            for series in [
                &mut result.cold,
                &mut result.cached,
                &mut result.start,
                &mut result.call,
            ] {
                series.round();
            }
            let cache = scratch.join(format!("cache-{at}"));
            if round < cold && cache.exists() {
                std::fs::remove_dir_all(&cache)?;
            }
            if let Err(why) = turn(path, &runner, scratch, &cache, result).await {
                result.call.fail(why.to_string());
            }
        }
    }
    languages("The same extension in each language", &results);
    Ok(())
}

async fn turn(
    path: &Path,
    runner: &[u8],
    scratch: &Path,
    cache: &Path,
    result: &mut Language,
) -> Outcome<()> {
    let host = |cache: &Path| -> Outcome<Host> {
        let overrides = Overrides {
            base_url: Some("http://127.0.0.1:9".into()),
            ..Overrides::default()
        };
        let settings = Settings::discover(Environment::of([("HOME", "/nonexistent")]), overrides)?;
        Ok(Host::builder()
            .cache(cache)
            .state(scratch.join("state"))
            .script_runner(runner.to_vec())
            .platform(settings)
            .build()?)
    };
    let begun = Instant::now();
    let loaded = host(cache)?.load_file(path).await?;
    if !loaded.from_cache() {
        result.cold.add(begun.elapsed().as_secs_f64());
    }
    let host = host(cache)?;
    let begun = Instant::now();
    let extension = host.load_file(path).await?;
    result.cached.add(begun.elapsed().as_secs_f64());
    if !extension.from_cache() {
        return Err("compiled code was not kept".into());
    }
    let session = host.session(Arc::new(Headless::new(scratch)), vec![extension])?;
    let begun = Instant::now();
    session.call(TOOL, json!({})).outcome().await?;
    result.start.add(begun.elapsed().as_secs_f64());
    for number in 0..WARM + CALLS {
        let begun = Instant::now();
        session.call(TOOL, json!({})).outcome().await?;
        if number >= WARM {
            result.call.add(begun.elapsed().as_secs_f64());
        }
    }
    result.memory = session.memory().values().copied().max().unwrap_or_default();
    tokio::time::timeout(Duration::from_secs(10), session.end()).await?;
    Ok(())
}

/// What `tests/samples/run.sh` builds.
fn components() -> Outcome<Vec<(String, PathBuf)>> {
    let output = Command::new(built::root().join("tests/samples/run.sh"))
        .arg("--build")
        .env("CARGO_TARGET_DIR", built::target())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("tests/samples/run.sh --build: {}", output.status).into());
    }
    let lines = String::from_utf8(output.stdout)?;
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    Ok(pairs
        .map(|(name, path)| (name.to_owned(), PathBuf::from(path)))
        .collect())
}
