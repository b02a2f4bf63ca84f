//! `vers:platform/shell`: commands on VMs over one shared connection each. The keys stay here.
//!
//! Followed files and forwarded ports are modules of their own.

use std::time::Duration;

use futures::StreamExt;
use pi_vers_policy::{Command as PolicyCommand, Request, SecretUse, Vm};
use vers_client::ssh::EnvValue as ClientValue;
use wasmtime::component::{Access, Accessor, FutureReader, HasSelf, Resource, StreamReader};

use super::forward::{self, Forward};
use super::process::{Child, Place, Running, adopt, feed, name};
use super::vms::{Facts, facts};
use super::{follow, stand_in, streams};
use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::platform::shell::{Followed, Host, HostWithStore, Position};
use crate::bindings::vers::system::process::{Command, EnvValue, OutputMode, Program};
use crate::budget;
use crate::guest::{Ask, Guest, Has};

impl Host for Guest {}

impl HostWithStore<Guest> for HasSelf<Guest> {
    async fn connect(
        accessor: &Accessor<Guest, Has>,
        vm: String,
        patience: u64,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = Ask::of(accessor)?;
            let facts = facts(&ask, &vm).await?;
            ask.permit(&Request::ShellConnect { vm: facts.vm() })
                .await?;
            if ask.services.stand_in.is_some() {
                return stand_in::running(&ask, facts.id).await;
            }
            let _lease = ask.connections.to_vm(facts.id)?;
            ask.race(
                ask.services
                    .ssh
                    .connect(facts.id, Duration::from_millis(patience)),
            )
            .await
        }
        .await)
    }

    async fn disconnect(
        accessor: &Accessor<Guest, Has>,
        vm: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = Ask::of(accessor)?;
            let facts = facts(&ask, &vm).await?;
            ask.permit(&Request::ShellConnect { vm: facts.vm() })
                .await?;
            ask.owner.race(ask.services.ssh.disconnect(facts.id)).await
        }
        .await)
    }

    async fn spawn(
        accessor: &Accessor<Guest, Has>,
        vm: String,
        command: Command,
        stdin: Option<StreamReader<u8>>,
    ) -> wasmtime::Result<Result<Resource<Child>, Error>> {
        let stdin = stdin
            .map(|reader| accessor.with(|access| streams::incoming(access, reader)))
            .transpose()?;
        let ask = match Ask::of(accessor) {
            Ok(ask) => ask,
            Err(denied) => return Ok(Err(denied)),
        };
        if let Some(played) = &ask.services.stand_in {
            return stand_in::spawn_on_vm(accessor, &ask, played, &vm, command, stdin).await;
        }
        let started = async {
            let facts = facts(&ask, &vm).await?;
            let room = ask.room_for_process()?;
            let what = format!("{} on VM {}", name(&command.program), facts.id);
            let command = translate(&ask, &facts, command, stdin.is_some()).await?;
            let lease = ask.connections.to_vm(facts.id)?;
            // Not raced: the call may return only when what was being started is gone.
            let given_up = ask.owner.token();
            let started = ask.services.ssh.spawn_until(facts.id, command, given_up);
            let mut child = match started.await {
                Err(_) if ask.owner.ended().is_some() => return Err(ask.owner.error()),
                started => started?,
            };
            let (to, stdout, stderr) =
                (child.take_stdin(), child.take_stdout(), child.take_stderr());
            Ok((
                Running::new(what, Place::OnVm(child), room, Some(lease)),
                to,
                stdout,
                stderr,
            ))
        }
        .await;
        match started {
            Err(why) => Ok(Err(why)),
            Ok((running, to, stdout, stderr)) => {
                if let (Some(from), Some(to)) = (stdin, to) {
                    feed(from, to);
                }
                adopt(
                    accessor,
                    &ask,
                    running,
                    stdout.map(StreamExt::boxed),
                    stderr.map(StreamExt::boxed),
                )
                .map(Ok)
            }
        }
    }

    fn follow(
        mut access: Access<'_, Guest, Has>,
        vm: String,
        path: String,
        start: Position,
    ) -> wasmtime::Result<(StreamReader<Followed>, FutureReader<Result<(), Error>>)> {
        match Ask::with(&mut access) {
            Ok(ask) => {
                let owner = ask.owner.clone();
                let (lines, begun) = follow::follow(ask, vm, path, start);
                streams::items_checked(access, owner, begun, lines)
            }
            Err(denied) => streams::failed(access, denied),
        }
    }

    async fn forward_port(
        accessor: &Accessor<Guest, Has>,
        vm: String,
        remote: u16,
        local: Option<u16>,
    ) -> wasmtime::Result<Result<Resource<Forward>, Error>> {
        let ask = match Ask::of(accessor) {
            Ok(ask) => ask,
            Err(denied) => return Ok(Err(denied)),
        };
        match forward::open(&ask, &vm, remote, local).await {
            Ok(forward) => accessor.with(|mut access| Ok(Ok(access.get().table.push(forward)?))),
            Err(why) => Ok(Err(why)),
        }
    }
}

/// Asks the policy about a command and puts secrets where they belong.
pub(super) async fn translate(
    ask: &Ask,
    facts: &Facts,
    command: Command,
    stdin: bool,
) -> Result<vers_client::Command, Error> {
    let names: Vec<&str> = command
        .env
        .iter()
        .map(|variable| variable.name.as_str())
        .collect();
    let vm: Vm<'_> = facts.vm();
    let working_directory = command.working_directory.as_deref();
    let asked = match &command.program {
        Program::Argv(argv) => PolicyCommand::Argv(argv),
        Program::Shell(script) => PolicyCommand::Shell(script),
    };
    ask.permit(&Request::ShellSpawn {
        vm,
        command: asked,
        working_directory,
        env: &names,
    })
    .await?;
    let mut env = Vec::with_capacity(command.env.len());
    for variable in command.env {
        let value = match variable.value {
            EnvValue::Plain(value) => {
                let known = budget::known(&ask.services, &variable.name);
                ClientValue::Plain(known.unwrap_or(value))
            }
            EnvValue::Secret(name) => {
                ask.permit(&Request::Secret {
                    name: &name,
                    to: SecretUse::VmEnv,
                })
                .await?;
                ClientValue::Secret(vers_client::Secret::new(ask.services.secret(&name).await?))
            }
        };
        env.push((variable.name, value));
    }
    Ok(vers_client::Command {
        program: match command.program {
            Program::Argv(argv) => vers_client::Program::Argv(argv),
            Program::Shell(script) => vers_client::Program::Shell(script),
        },
        env,
        cwd: command.working_directory,
        merge_output: matches!(command.output, OutputMode::Merged),
        stdin,
        timeout: command.timeout.map(Duration::from_millis),
    })
}
