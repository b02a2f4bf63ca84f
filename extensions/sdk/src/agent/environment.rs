//! What an agent finds in its environment: who it is, whose it is, where the rest of the fleet is, and keys by reference.

use crate::Error;
use crate::harness::session;
use crate::system::process::{EnvValue, EnvVar};

use super::Launch;

/// The provider of models where nothing says otherwise.
const VERS: &str = "vers";

/// A variable of the host, if the policy lets it be read and it is set to something.
pub(crate) fn variable(name: &str) -> Option<String> {
    let value = session::variable(name).ok().flatten()?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// What the coordinator itself is called.
#[must_use]
pub fn own_name() -> String {
    variable("VERS_AGENT_NAME").unwrap_or_else(|| "orchestrator".into())
}

/// The VM that the coordinator itself runs on; none is no VM.
#[must_use]
pub fn own_vm() -> Option<String> {
    variable("VERS_VM_ID")
}

/// The agent's program, as the coordinator's environment says; none leaves it to the VM's.
pub(crate) fn program() -> Option<String> {
    variable("PI_PATH").or_else(|| variable("PUNKIN_BIN"))
}

/// How deep in a tree of agents the next one is: 1 below a person's.
pub(crate) fn depth() -> u32 {
    variable("VERS_AGENT_DEPTH")
        .and_then(|depth| depth.parse().ok())
        .unwrap_or(0_u32)
        .saturating_add(1)
}

/// The provider and the model that a name means.
///
/// # Errors
/// `Error::Invalid` for one that is empty.
pub(crate) fn model(name: &str) -> Result<(String, String), Error> {
    let name = name.trim();
    let (provider, id) = match name.split_once('/') {
        Some((provider, id)) => (provider.trim().to_owned(), id.trim()),
        None => (provider().to_owned(), name),
    };
    if provider.is_empty() || id.is_empty() {
        return Err(Error::Invalid(format!(
            "{name:?} is no model: write its id, or provider/id"
        )));
    }
    Ok((provider, id.to_owned()))
}

/// Whose models a bare name means.
fn provider() -> &'static str {
    let anthropic = variable("REEF_MODEL_PROVIDER").as_deref() == Some("anthropic")
        || (!session::has_secret("LLM_PROXY_KEY") && session::has_secret("ANTHROPIC_API_KEY"));
    if anthropic { "anthropic" } else { VERS }
}

fn plain(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: EnvValue::Plain(value.into()),
    }
}

/// The agent's variables; on a VM with its id.
pub(crate) fn environment(launch: &Launch, vm: Option<&str>) -> Vec<EnvVar> {
    let mut all = vec![
        plain("GIT_EDITOR", "true"),
        plain("REEF_CHILD_AGENT", "true"),
        plain("VERS_AGENT_ROLE", launch.role.word()),
        plain("VERS_AGENT_NAME", &*launch.name),
        plain("VERS_PARENT_AGENT", own_name()),
        plain("VERS_AGENT_DEPTH", depth().to_string()),
    ];
    all.extend(vm.map(|vm| plain("VERS_VM_ID", vm)));
    all.extend(own_vm().map(|vm| plain("REEF_PARENT_VM_ID", vm)));
    if vm.is_some() {
        for (name, default) in [
            ("PI_VERS_HOME", "/root/pi-vers"),
            ("SERVICES_DIR", "/root/reef/services-active"),
        ] {
            all.push(plain(
                name,
                variable(name).unwrap_or_else(|| default.into()),
            ));
        }
    }
    for name in [
        "VERS_BASE_URL",
        "VERS_INFRA_URL",
        "VERS_VM_REGISTRY_URL",
        "VERS_GOLDEN_COMMIT_ID",
        "REEF_MODEL_PROVIDER",
        "REEF_ROOT_VM_ID",
        "PI_PATH",
        "PUNKIN_BIN",
    ] {
        all.extend(variable(name).map(|value| plain(name, value)));
    }
    if let Some(key) = &launch.key {
        all.push(plain("LLM_PROXY_KEY", &**key));
    }
    for name in [
        "LLM_PROXY_KEY",
        "ANTHROPIC_API_KEY",
        "VERS_API_KEY",
        "VERS_AUTH_TOKEN",
    ] {
        let given = all.iter().any(|variable| variable.name == name);
        // Anthropic's key only goes where it is used.
        let wanted = name != "ANTHROPIC_API_KEY" || provider() != VERS;
        if !given && wanted && session::has_secret(name) {
            all.push(EnvVar {
                name: name.into(),
                value: EnvValue::Secret(name.into()),
            });
        }
    }
    all
}
