//! What of the user's own agent configuration workers get: nothing, unless the flag names it.
//!
//! The original copied the whole of `~/.pi/agent`, settings with keys in them included, and installed packages on each VM. Here a
//! closed list of what holds no secrets can be named, and each name is a path of its own in the policy.

use pi_vers_sdk::harness::session;
use pi_vers_sdk::system::files::{self, CopyOptions, Location};
use pi_vers_sdk::{Error, FlagValue, outcome};

/// The flag that names it.
pub(crate) const FLAG: &str = "vers-swarm-sync";

/// Something that can be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The skills.
    Skills,
    /// The instructions for every project.
    AgentsMd,
    /// The prompt templates.
    Prompts,
}

impl Part {
    const ALL: [Self; 3] = [Self::Skills, Self::AgentsMd, Self::Prompts];

    /// Its name in the flag.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Skills => "skills",
            Self::AgentsMd => "agents-md",
            Self::Prompts => "prompts",
        }
    }

    /// Where it is, below the home directory: here and on a VM.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Skills => ".pi/agent/skills",
            Self::AgentsMd => ".pi/agent/AGENTS.md",
            Self::Prompts => ".pi/agent/prompts",
        }
    }
}

/// Reads the flag.
///
/// # Errors
/// The name that is none.
pub fn parse(list: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    for name in list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let Some(part) = Part::ALL.into_iter().find(|part| part.name() == name) else {
            return Err(format!(
                "--{FLAG} names {name:?}, and only skills, agents-md and prompts can be copied to agents."
            ));
        };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    Ok(parts)
}

/// What is to be copied, and from where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    home: String,
    parts: Vec<Part>,
}

/// What the flag asks for.
pub(crate) fn plan() -> Result<Plan, String> {
    let parts = match session::flag(FLAG) {
        Some(FlagValue::Text(list)) => parse(&list)?,
        _ => Vec::new(),
    };
    if parts.is_empty() {
        return Ok(Plan::default());
    }
    let home = match session::variable("HOME") {
        Ok(Some(home)) if home.starts_with('/') => home,
        Ok(_) => {
            return Err(format!(
                "--{FLAG} needs the variable HOME, which is not set."
            ));
        }
        Err(error) => {
            return Err(format!(
                "--{FLAG} needs the variable HOME: {}",
                outcome::explain(&error)
            ));
        }
    };
    Ok(Plan { home, parts })
}

impl Plan {
    /// Copies it to a VM. What is not here is nothing to copy.
    pub(crate) async fn copy(&self, vm: &str) -> Result<(), String> {
        for part in &self.parts {
            let source = Location::Local(format!("{}/{}", self.home, part.path()));
            match files::stat(source.clone()).await {
                Ok(_) => {}
                Err(Error::NotFound(_)) => continue,
                Err(error) => return Err(failed(*part, &error)),
            }
            let target = Location::Vm((vm.to_owned(), part.path().into()));
            let options = CopyOptions {
                recursive: None,
                exclude: vec![".git".into(), "node_modules".into()],
            };
            let (progress, done) = files::copy(&source, &target, &options);
            drop(progress);
            done.await.map_err(|error| failed(*part, &error))?;
        }
        Ok(())
    }
}

fn failed(part: Part, error: &Error) -> String {
    format!(
        "{} was not copied: {}",
        part.name(),
        outcome::explain(error)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_is_copied_unless_it_is_named_and_settings_and_keys_cannot_be() {
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(
            parse(" skills,agents-md ,, skills"),
            Ok(vec![Part::Skills, Part::AgentsMd])
        );
        for name in [
            "settings",
            "settings.json",
            "auth",
            "../..",
            "all",
            "Skills",
        ] {
            assert!(parse(name).unwrap_err().contains("only skills"), "{name}");
        }
    }
}
