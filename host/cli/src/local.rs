//! The local platform: `pi-vers local …`, and `--local` of other commands.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use vers_client::{Environment, Overrides, Secret, Settings};
use vers_local::{Capabilities, Endpoint, Options};

use crate::args::{self, Place, Up};
use crate::dirs;
use crate::failure::{Code, Failure};
use crate::terminal::Terminal;

/// The options of a platform on this directory, served by this program.
pub(crate) fn options(state: &Path) -> Result<Options, Failure> {
    Ok(Options::new(state, program()?))
}

pub(crate) fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|why| Failure::internal(format!("cannot find this program's own file: {why}")))
}

/// Starts a platform in the background, or finds the one that runs.
pub(crate) async fn start(options: Options) -> Result<Endpoint, Failure> {
    let serve = (program()?, vec!["local".into(), "serve".into()]);
    Ok(vers_local::up(options, serve).await?)
}

/// What a client has to know of a platform.
pub(crate) fn settings(endpoint: &Endpoint) -> Result<Settings, Failure> {
    Ok(Settings::discover(
        Environment::process(),
        overrides(endpoint),
    )?)
}

/// What of a platform wins over every variable.
pub(crate) fn overrides(endpoint: &Endpoint) -> Overrides {
    Overrides {
        api_key: Some(Secret::new(endpoint.api_key.clone())),
        base_url: Some(endpoint.api_url.clone()),
        vm_domain: Some(endpoint.domain.clone()),
        vm_connect: Some(endpoint.ssh_addr),
        tls_ca: Some(endpoint.ca_pem.clone()),
        insecure_tls: Some(false),
    }
}

/// `--local`: a platform that was up already, or one for this run.
#[derive(Debug)]
pub(crate) struct Local {
    endpoint: Endpoint,
    state: PathBuf,
    started: bool,
}

impl Local {
    pub(crate) async fn attach(terminal: &Terminal, state: Option<&Path>) -> Result<Self, Failure> {
        let state = dirs::local(state)?;
        if let Some(endpoint) = vers_local::find(&state).await? {
            return Ok(Self {
                endpoint,
                state,
                started: false,
            });
        }
        terminal.remark("starting the local platform for this run (`pi-vers local up` keeps one)");
        let endpoint = start(options(&state)?).await?;
        Ok(Self {
            endpoint,
            state,
            started: true,
        })
    }

    /// A platform that has to be up already.
    pub(crate) async fn running(state: &Path) -> Result<Self, Failure> {
        match vers_local::find(state).await? {
            Some(endpoint) => Ok(Self {
                endpoint,
                state: state.to_owned(),
                started: false,
            }),
            None => Err(Failure::new(
                Code::Platform,
                "unavailable",
                "the local platform is not running",
            )
            .next(format!("`pi-vers local up{}` starts it", state_flag(state)))),
        }
    }

    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        settings(&self.endpoint)
    }

    /// The state directory of a platform that was started for this run, and has to end with it.
    pub(crate) fn to_end(&self) -> Option<&Path> {
        self.started.then_some(self.state.as_path())
    }

    /// What stays if the program is quit now.
    pub(crate) fn left_behind(&self) -> Option<String> {
        let down = format!(
            "the local platform still runs: `pi-vers local down{}` ends it",
            state_flag(&self.state)
        );
        self.started.then_some(down)
    }

    /// Ends the platform if it was started for this run. Disks and commits stay for the next one.
    pub(crate) async fn leave(self, terminal: &Terminal) -> Result<(), Failure> {
        if self.started {
            let report = vers_local::down(&self.state).await?;
            if report.vms_put_to_sleep > 0 {
                terminal.remark(format!(
                    "ended the local platform; {} VM(s) sleep until they are used again (`pi-vers local reset` removes them)",
                    report.vms_put_to_sleep
                ));
            }
        }
        Ok(())
    }
}

/// ` --state DIR` where it is not the usual one.
pub(crate) fn state_flag(state: &Path) -> String {
    match dirs::local(None) {
        Ok(usual) if usual == state => String::new(),
        _ => format!(" --state {}", quoted(state)),
    }
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/._-+=:@%".contains(&b));
    if plain {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// `pi-vers local …`, but `serve`.
pub(crate) async fn command(
    terminal: Arc<Terminal>,
    command: args::Local,
) -> Result<Code, Failure> {
    match command {
        args::Local::Up(options) => up(&terminal, options).await,
        args::Local::Status(place) => status(&terminal, &place).await,
        args::Local::Down(place) => {
            let state = dirs::local(place.state.as_deref())?;
            let report = vers_local::down(&state).await?;
            let text = match (report.was_running, report.vms_put_to_sleep) {
                (false, 0) => format!("the local platform was not running ({})", state.display()),
                (_, 0) => "ended: no process, cgroup or mount is left; commits stay".to_owned(),
                (_, slept) => format!(
                    "ended: no process, cgroup or mount is left; {slept} VM(s) sleep on disk, commits stay"
                ),
            };
            tell(&terminal, place.json, json!(report), &text);
            Ok(Code::Ok)
        }
        args::Local::Reset(place) => {
            let state = dirs::local(place.state.as_deref())?;
            let report = vers_local::reset(&state).await?;
            tell(
                &terminal,
                place.json,
                json!(report),
                &format!("ended and removed: nothing is left in {}", state.display()),
            );
            Ok(Code::Ok)
        }
        // `main` has taken it before any runtime was there.
        args::Local::Serve => Err(Failure::internal("`local serve` is for `local up`")),
    }
}

/// `pi-vers local serve`: the options come on standard input, from `up`, which is also told what goes wrong.
pub(crate) fn serve() -> ExitCode {
    vers_local::serve_main()
}

fn tell(terminal: &Terminal, json: bool, value: Value, text: &str) {
    if json {
        terminal.line(value.to_string());
    } else {
        terminal.line(text);
    }
}

async fn up(terminal: &Terminal, given: Up) -> Result<Code, Failure> {
    let state = dirs::local(given.place.state.as_deref())?;
    let mut options = options(&state)?;
    if let Some(address) = given.api {
        options.api_listen = address;
    }
    if let Some(address) = given.ssh {
        options.ssh_listen = address;
    }
    options.tier = given.tier.map(|tier| match tier {
        args::Tier::Sandbox => vers_local::Tier::Sandbox,
        args::Tier::UserSandbox => vers_local::Tier::UserSandbox,
    });
    if let Some(network) = given.network {
        options.network = match network {
            args::Network::None => vers_local::Network::None,
            args::Network::Host => vers_local::Network::Host,
        };
    }
    let running = vers_local::find(&state).await?.is_some();
    let endpoint = start(options).await?;
    if given.place.json {
        terminal.line(described(&endpoint).to_string());
        return Ok(Code::Ok);
    }
    let flag = state_flag(&state);
    terminal.line(format!(
        "The local platform {} (tier {}).",
        if running { "was up already" } else { "is up" },
        tier(endpoint.tier)
    ));
    terminal.line(format!("  use it       pi-vers run --local{flag} vers_vms"));
    terminal.line(format!("  what it can  pi-vers local status{flag}"));
    terminal.line(format!("  end it       pi-vers local down{flag}"));
    terminal.line("For other programs:");
    terminal.line(format!("  export VERS_BASE_URL={}", endpoint.api_url));
    terminal.line(format!(
        "  export VERS_API_KEY=\"$(cat {})\"",
        quoted(&endpoint.state_dir.join("api_key"))
    ));
    terminal.line(format!(
        "  export VERS_VM_DOMAIN={} VERS_VM_CONNECT={}",
        endpoint.domain, endpoint.ssh_addr
    ));
    terminal.line(format!("  export VERS_TLS_CA={}", quoted(&endpoint.ca_pem)));
    Ok(Code::Ok)
}

/// An endpoint without its key.
fn described(endpoint: &Endpoint) -> Value {
    json!({
        "api_url": endpoint.api_url,
        "api_key_file": endpoint.state_dir.join("api_key"),
        "ssh_addr": endpoint.ssh_addr,
        "domain": endpoint.domain,
        "ca_pem": endpoint.ca_pem,
        "tier": endpoint.tier,
        "pid": endpoint.pid,
        "started_at": endpoint.started_at,
        "state_dir": endpoint.state_dir,
    })
}

/// The word of a tier.
pub(crate) fn tier(tier: vers_local::Tier) -> &'static str {
    match tier {
        vers_local::Tier::Sandbox => "sandbox",
        vers_local::Tier::UserSandbox => "user-sandbox",
    }
}

async fn status(terminal: &Terminal, place: &Place) -> Result<Code, Failure> {
    let state = dirs::local(place.state.as_deref())?;
    let status = vers_local::status(&state).await?;
    if place.json {
        terminal.line(json!(status).to_string());
        return Ok(Code::Ok);
    }
    match (status.running, &status.api_url) {
        (true, Some(url)) => {
            let uptime = std::time::Duration::from_secs(status.uptime_secs.unwrap_or_default());
            terminal.line(format!(
                "running at {url} for {uptime:?}, process {}",
                status.pid.unwrap_or_default()
            ));
        }
        _ => terminal.line(format!(
            "not running; `pi-vers local up{}` starts it",
            state_flag(&state)
        )),
    }
    terminal.line(format!(
        "state     {} ({} KiB on disk)",
        state.display(),
        status.disk_bytes >> 10
    ));
    if let Some(capabilities) = &status.capabilities {
        for line in capability_lines(capabilities) {
            terminal.line(line);
        }
    }
    terminal.line(format!("commits   {}", status.commits));
    terminal.line(format!("VMs       {}", status.vms.len()));
    for vm in &status.vms {
        let note = vm
            .note
            .as_ref()
            .map(|note| format!("  ({note})"))
            .unwrap_or_default();
        terminal.line(format!(
            "  {}  {:8}  created {}{note}",
            vm.vm_id, vm.state, vm.created_at
        ));
    }
    terminal.line(&status.captured.statement);
    for lost in &status.captured.not_captured {
        terminal.line(format!("  not in a commit: {lost}"));
    }
    for login in &status.pending_logins {
        terminal.line(format!(
            "login of {} waits for {}",
            pi_vers_host::visible(&login.email),
            login.link
        ));
    }
    Ok(Code::Ok)
}

/// What a platform can do here.
pub(crate) fn capability_lines(capabilities: &Capabilities) -> Vec<String> {
    let mut lines = vec![format!(
        "tier      {}: {}, memory and CPU limits {}, pausing by {}",
        tier(capabilities.tier),
        if capabilities.full_root {
            "the whole file system of a VM can be changed"
        } else {
            "the system below a VM is read-only"
        },
        if capabilities.limits {
            "enforced"
        } else {
            "not enforced"
        },
        match capabilities.pause {
            vers_local::Pause::Freezer => "freezing",
            vers_local::Pause::Signal => "signals",
        },
    )];
    lines.extend(
        capabilities
            .notes
            .iter()
            .map(|note| format!("  note: {note}")),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_commands_are_quoted() {
        assert_eq!(quoted(Path::new("/tmp/a.b")), "/tmp/a.b");
        assert_eq!(quoted(Path::new("/tmp/a b'c$(x)")), "'/tmp/a b'\\''c$(x)'");
    }
}
