//! `pi-vers`: extensions for coding agents that work on Vers VMs, from the command line.

mod args;
mod audit;
mod author;
mod bridge;
mod call;
mod clients;
mod core;
mod demo;
mod dirs;
mod doctor;
mod failure;
mod fleet;
mod harness;
mod hook;
mod inspect;
mod interrupt;
mod local;
mod login;
mod mcp;
mod notices;
mod person;
mod policy;
mod progress;
mod registry;
mod run;
mod scripted;
mod session;
mod setup;
mod shipped;
mod ssh;
mod tape;
mod terminal;
mod tools;
mod whoami;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::failure::{Code, Failure};
use crate::terminal::Terminal;

fn main() -> ExitCode {
    // The local platform starts this program anew inside each of its sandboxes.
    vers_local::helper_main();
    let cli = Cli::parse();
    log();
    if let Command::Local(args::Local::Serve) = cli.command {
        return local::serve();
    }
    let terminal = Arc::new(Terminal::new(cli.quiet));
    let code = match start(&terminal, cli.command) {
        Ok(code) => code,
        Err(failure) => {
            terminal.end_show();
            terminal.note(format!("pi-vers: {}", failure.line()));
            failure.code
        }
    };
    ExitCode::from(code as u8)
}

fn start(terminal: &Arc<Terminal>, command: Command) -> Result<Code, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|why| Failure::internal(format!("cannot start: {why}")))?;
    let result = runtime.block_on(Box::pin(dispatch(terminal.clone(), command)));
    // A thread that waits for standard input or a lock is not waited for, nor is a task that stops a process politely.
    runtime.shutdown_background();
    pi_vers_system::process::kill_all();
    let taped = tape::finish(terminal);
    if !audit::finish() {
        terminal.note("pi-vers: the end of the audit log could not be written: is the disk full?");
    }
    // Why the session did not go as recorded says more than what it came to.
    taped?;
    result
}

async fn dispatch(terminal: Arc<Terminal>, command: Command) -> Result<Code, Failure> {
    match command {
        Command::Demo(options) => Box::pin(demo::demo(terminal, options)).await,
        Command::Tools(options) => tools::tools(terminal, options).await,
        Command::Run(options) => run::run(terminal, options).await,
        Command::Bridge(options) => Box::pin(bridge::bridge(terminal, options)).await,
        Command::Mcp(line) => match line.command {
            Some(command) => Box::pin(clients::command(terminal, command)).await,
            None => Box::pin(mcp::mcp(terminal, line.serve)).await,
        },
        Command::Hook(hook) => hook::hook(hook).await,
        Command::Core(options) => Box::pin(core::core(options)).await,
        Command::New(options) => author::new(&terminal, &options),
        Command::Build(options) => author::build(terminal, options).await,
        Command::Dev(options) => author::dev(terminal, options).await,
        Command::Test(options) => Box::pin(author::test(terminal, options)).await,
        Command::Add(options) => Box::pin(registry::add(terminal, options)).await,
        Command::Remove(options) => registry::remove(&terminal, &options),
        Command::List(options) => registry::list(&terminal, &options),
        Command::Update(options) => Box::pin(registry::update(terminal, options)).await,
        Command::Lock(options) => Box::pin(registry::lock(terminal, options)).await,
        Command::Inspect(options) => inspect::inspect(terminal, options).await,
        Command::Policy(command) => policy::command(terminal, command).await,
        Command::Fleet(command) => fleet::fleet(terminal, command).await,
        Command::Local(command) => local::command(terminal, command).await,
        Command::SshProxy(options) => ssh::proxy(options).await,
        Command::SshConfig(options) => ssh::config(&terminal, options).await,
        Command::Login(options) => login::login(terminal, options).await,
        Command::Whoami(options) => whoami::whoami(terminal, options).await,
        Command::ScriptedAgent(options) => {
            Box::pin(scripted::scripted(&terminal, options.words)).await
        }
        Command::Doctor(options) => doctor::doctor(terminal, options).await,
    }
}

/// What extensions and the host log goes to standard error, as `PI_VERS_LOG` says.
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PI_VERS_LOG")
        // The SDK warns of every answer that is an error: those are for the client.
        .unwrap_or_else(|_| "warn,rmcp=error".into());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_ansi(false);
    // Set once; there is no other in this process.
    let _ = logs.try_init();
}
