//! Runs builds on VMs, shows their output, and remembers how they ended.

use pi_vers_sdk::declare::{Declaration, JsonSchema, Nothing, schemars, tool};
use pi_vers_sdk::harness::types::{Role, Span};
use pi_vers_sdk::harness::ui::{self, Severity};
use pi_vers_sdk::platform::shell;
use pi_vers_sdk::system::process::{Command, Exit, OutputMode, Program};
use pi_vers_sdk::system::store;
use pi_vers_sdk::text::Decoder;
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, call, outcome, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Bytes of output that are shown: its end.
const SHOWN: usize = 16 << 10;
/// Where builds are remembered.
const KEY: &str = "builds";

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
struct Build {
    /// The VM's id
    #[schemars(length(min = 1))]
    vm: String,
    /// Program and arguments
    #[schemars(length(min = 1))]
    command: Vec<String>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Builds {
    ok: u32,
    failed: u32,
    last: Option<String>,
}

impl Builds {
    async fn read() -> Result<(Self, Option<String>), Error> {
        let stored = store::get(KEY.into()).await?;
        let builds = stored.as_deref().map(serde_json::from_str).transpose();
        let builds =
            builds.map_err(|why| Error::Other(format!("what is stored is damaged: {why}")))?;
        Ok((builds.unwrap_or_default(), stored))
    }

    /// Counts one more, again if another call did meanwhile.
    async fn record(ok: bool, last: String) -> Result<Self, Error> {
        loop {
            let (mut builds, before) = Self::read().await?;
            if ok {
                builds.ok += 1;
            } else {
                builds.failed += 1;
            }
            builds.last = Some(last.clone());
            let after =
                serde_json::to_string(&builds).map_err(|why| Error::Other(why.to_string()))?;
            if store::swap(KEY.into(), before, Some(after)).await? {
                return Ok(builds);
            }
        }
    }

    fn counts(&self) -> String {
        format!("{} ok, {} failed", self.ok, self.failed)
    }

    fn words(&self) -> String {
        match &self.last {
            Some(last) => format!("{}; last: {last}", self.counts()),
            None => self.counts(),
        }
    }
}

fn show_status(text: String) {
    let span = Span {
        text,
        role: Role::Normal,
        bold: false,
        strikethrough: false,
    };
    ui::set_status("build", Some(&[span]));
}

/// The end of a text, whole characters.
fn keep_end(text: &mut String) {
    if text.len() > SHOWN {
        let from = text.ceil_char_boundary(text.len() - SHOWN);
        text.drain(..from);
    }
}

async fn run(call: &ToolCall, Build { vm, command }: Build) -> Result<ToolResult, ToolError> {
    let line = command.join(" ");
    show_status(format!("building: {line}"));
    let wanted = Command {
        program: Program::Argv(command),
        env: Vec::new(),
        working_directory: None,
        timeout: None,
        output: OutputMode::Merged,
    };
    // Dropped at any end of this function, it stops what runs.
    let child = shell::spawn(vm, wanted, None).await?;
    let mut stdout = child.stdout()?;
    let (mut output, mut decoder) = (String::new(), Decoder::new());
    let (mut bytes, mut buffer) = (0, Vec::new());
    while let Some(chunk) = stream::next(&mut stdout, buffer).await {
        bytes += chunk.len();
        decoder.push(&chunk, &mut output);
        keep_end(&mut output);
        call::show(call, output.as_str());
        buffer = chunk;
    }
    decoder.finish(&mut output);
    keep_end(&mut output);
    let (code, how) = match child.wait().await? {
        Exit::Code(code) => (Some(code), format!("exit {code}")),
        Exit::Signal(name) => (None, format!("signal {name}")),
    };
    let builds = Builds::record(code == Some(0), format!("{line}: {how}")).await?;
    show_status(format!("builds: {}", builds.counts()));
    let text = format!("{how}, {bytes} bytes\n{output}");
    let details = json!({ "code": code, "bytes": bytes });
    match code {
        Some(0) => Ok(outcome::text_with(text, &details)),
        _ => Err(outcome::failed_with(text, &details)),
    }
}

async fn status(_: &ToolCall, _: Nothing) -> Result<String, Error> {
    Ok(Builds::read().await?.0.words())
}

async fn command(text: String) -> Result<(), Error> {
    match text.trim() {
        "" => ui::notify(&Builds::read().await?.0.words(), Severity::Info),
        "reset" => store::delete(KEY.into()).await?,
        _ => return Err(Error::Invalid("Say /builds, or /builds reset.".into())),
    }
    Ok(())
}

fn extension() -> Declaration {
    let build_run = tool(
        "build_run",
        "Run a build",
        "Runs a build on a VM, shows its output meanwhile, and remembers how it ended.",
    );
    let build_status = tool(
        "build_status",
        "Builds so far",
        "Tells how many builds succeeded and failed, and how the last one ended.",
    );
    Declaration::new(
        "build-watch",
        "0.1.0",
        "Runs builds on VMs and remembers how they ended",
    )
    .tool(build_run.open_world().long_running(), run)
    .tool(build_status.read_only().idempotent(), status)
    .command(
        "builds",
        "Shows how the builds went",
        Some("[reset]"),
        command,
    )
}

pi_vers_sdk::extension!(extension);
