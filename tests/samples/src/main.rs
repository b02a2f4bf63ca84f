//! One list for every language: what the sample extension `build-watch` must do, through the shipped binary on the local platform.
//!
//! `pi-vers-samples LANGUAGE=COMPONENT …` runs the list against each. `languages.json` says what a language can't do, case by case:
//! that is checked, too, so a case that works although it is said not to is a failure as well. `PI_VERS_BIN` names the binary.

#![allow(clippy::print_stdout, reason = "results are what this program is for")]

mod cases;
mod lab;
mod peer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use serde::Deserialize;

use crate::cases::CASES;
use crate::lab::Lab;

/// What is wrong, in words.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// A row of `languages.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Language {
    /// Cases that do not hold, and why not.
    differs: BTreeMap<String, String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok((passed, 0)) => {
            println!("\n{passed} passed, 0 failed");
            ExitCode::SUCCESS
        }
        Ok((passed, failed)) => {
            println!("\n{passed} passed, {failed} failed");
            ExitCode::FAILURE
        }
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome<(u32, u32)> {
    let languages: BTreeMap<String, Language> =
        serde_json::from_str(include_str!("../languages.json"))
            .map_err(|why| format!("languages.json: {why}"))?;
    for (name, language) in &languages {
        if let Some(unknown) = language.differs.keys().find(|name| !cases::is_known(name)) {
            return Err(format!(
                "languages.json: {name}: there is no case {unknown}"
            ));
        }
    }
    let mut components = Vec::new();
    for argument in std::env::args().skip(1) {
        let (name, path) = argument
            .split_once('=')
            .ok_or("usage: pi-vers-samples LANGUAGE=COMPONENT …")?;
        let language = languages
            .get(name)
            .ok_or_else(|| format!("languages.json has no {name}"))?;
        let path = PathBuf::from(path).canonicalize();
        components.push((
            name.to_owned(),
            language,
            path.map_err(|why| format!("{argument}: {why}"))?,
        ));
    }
    if components.is_empty() {
        return Err("usage: pi-vers-samples LANGUAGE=COMPONENT …".into());
    }
    let lab = Lab::start().await?;
    let (mut passed, mut failed) = (0, 0);
    for (name, language, component) in components {
        println!("\n{name}: {}", component.display());
        let subject = lab.subject(&component).await?;
        for case in CASES {
            let begun = Instant::now();
            let outcome = (case.run)(&lab, &subject).await;
            let expected = language.differs.get(case.name);
            let verdict = match (outcome, expected) {
                (Ok(()), None) => Ok("ok".to_owned()),
                (Err(why), Some(reason)) => Ok(format!("differs, as said ({reason}): {why}")),
                (Ok(()), Some(reason)) => Err(format!(
                    "works, though languages.json says it does not ({reason}): take that out"
                )),
                (Err(why), None) => Err(why),
            };
            let took = begun.elapsed().as_millis();
            match verdict {
                Ok(said) => {
                    passed += 1;
                    println!("  {} ({took} ms): {said}", case.name);
                }
                Err(why) => {
                    failed += 1;
                    println!("  {} ({took} ms): FAILED: {why}", case.name);
                }
            }
        }
    }
    lab.end().await?;
    Ok((passed, failed))
}
