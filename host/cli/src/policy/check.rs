//! `pi-vers policy check`: mistakes, and grants that nobody needs.

use std::path::{Path, PathBuf};

use pi_vers_host::policy::{Error as PolicyError, Policy};
use pi_vers_host::{Extension, visible};
use serde_json::json;

use super::{Check, held};
use crate::failure::{Code, Failure};
use crate::shipped::{self, SHIPPED};
use crate::terminal::{Style, Terminal};
use crate::{inspect, setup};

/// Something to know about a section.
struct Finding {
    /// `warning`: probably a mistake. `note`: meant so, perhaps.
    level: &'static str,
    extension: String,
    message: String,
}

pub(super) async fn check(terminal: &Terminal, options: Check) -> Result<Code, Failure> {
    let file = setup::policy_file(options.file.as_deref())?;
    let project = options
        .file
        .is_none()
        .then(|| PathBuf::from(setup::PROJECT));
    let user = there(Policy::load(&file), options.file.is_none())?;
    if let Some(project) = &project {
        there(Policy::load_project(project), true)?;
    }
    let host = setup::host(Policy::empty(), setup::settings()?).await?;
    let mut known = Vec::new();
    for what in &options.extension {
        known.push(inspect::extension(&host, what).await?);
    }
    for name in user
        .names()
        .filter(|name| SHIPPED.iter().any(|shipped| shipped.name == *name))
    {
        if !known.iter().any(|extension| extension.name() == name) {
            known.push(inspect::extension(&host, name).await?);
        }
    }
    let policy = user.clone().over(shipped::policy()?);
    let names = user.names().map(str::to_owned);
    let findings: Vec<Finding> = names
        .flat_map(|name| section(&policy, &name, &known))
        .collect();
    let warned = findings.iter().any(|finding| finding.level == "warning");
    if options.json {
        let all = findings.iter().map(|finding| {
            json!({ "level": finding.level, "extension": finding.extension, "message": finding.message })
        });
        let json = json!({
            "file": file.display().to_string(),
            "sections": user.names().collect::<Vec<_>>(),
            "ok": !warned,
            "findings": all.collect::<Vec<_>>(),
        });
        terminal.line(json.to_string());
    } else {
        print(terminal, &file, &user, &findings);
    }
    Ok(if warned { Code::Tool } else { Code::Ok })
}

/// The policy, or an empty one where the usual file is not there.
fn there(loaded: Result<Policy, PolicyError>, usual: bool) -> Result<Policy, Failure> {
    match loaded {
        Err(PolicyError::Read { source, .. })
            if usual && source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(Policy::empty())
        }
        loaded => Ok(loaded?),
    }
}

fn print(terminal: &Terminal, file: &Path, policy: &Policy, findings: &[Finding]) {
    for finding in findings {
        let style = match finding.level {
            "warning" => Style::Bad,
            _ => Style::Dim,
        };
        let level = terminal.styled(style, finding.level);
        let name = visible(&finding.extension);
        terminal.line(format!(
            "{level} [extension.{name}]: {}",
            visible(&finding.message)
        ));
    }
    let count = policy.names().count();
    terminal.line(format!(
        "{}: {count} section{}, {} finding{}",
        visible(&file.display().to_string()),
        if count == 1 { "" } else { "s" },
        findings.len(),
        if findings.len() == 1 { "" } else { "s" },
    ));
}

fn section(policy: &Policy, name: &str, known: &[Extension]) -> Vec<Finding> {
    let finding = |level, message: String| Finding {
        level,
        extension: name.to_owned(),
        message,
    };
    let Some((digest, grants)) = held(policy, name) else {
        let message = "digest = \"shipped\", but no extension of that name is inside pi-vers: it holds for nothing";
        return vec![finding("warning", message.into())];
    };
    let mut found = Vec::new();
    match known.iter().find(|extension| extension.name() == name) {
        None => found.push(finding(
            "note",
            "its component is not known here: give it with --extension to compare its digest and what it imports".into(),
        )),
        Some(extension) if extension.digest() != digest => found.push(finding(
            "warning",
            format!(
                "bound to {digest}, but the component {} is {}: these grants do not hold for it",
                extension.origin(),
                extension.digest()
            ),
        )),
        Some(extension) => {
            let unneeded = unneeded(extension, &grants.keys());
            found.extend(unneeded.into_iter().map(|key| {
                finding(
                    "warning",
                    format!("grants `{key}`, which its component has no import to use: remove the line"),
                )
            }));
        }
    }
    found.extend(
        grants
            .broad()
            .into_iter()
            .map(|message| finding("note", message)),
    );
    found
}

/// Keys that are granted and that what the component imports has no use for.
fn unneeded(extension: &Extension, granted: &[String]) -> Vec<String> {
    let needed = inspect::keys(extension);
    let imports = |key: &str| needed.contains(&key);
    let info = extension.info();
    let useful = |key: &str| match key {
        // These say how, not what.
        "ask" | "limits" | "store" | "log" => true,
        // Files of VMs are granted there, too.
        "shell" => imports("shell") || imports("files"),
        "secrets" => {
            imports("process") || imports("shell") || imports("http") || imports("session")
        }
        "bus" => imports("bus") || !info.topics.is_empty(),
        "replace" => !info.tools.is_empty(),
        key => imports(key),
    };
    granted.iter().filter(|key| !useful(key)).cloned().collect()
}
