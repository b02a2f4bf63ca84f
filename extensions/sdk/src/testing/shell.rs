//! Commands on VMs.

use std::cell::Cell;
use std::rc::Rc;

use futures::channel::oneshot;
use serde_json::json;

use super::Kit;
use super::executor;
use super::files::{changed, key};
use super::processes::{self, Child};
use super::streams::{FutureReader, StreamReader, pipe};
use super::world::{ask, wait_for, world};
use crate::Error;
use crate::bindings::vers::platform::shell::{Followed, Line, Position};
use crate::bindings::vers::system::process::Command;
use crate::system::files::Location;

#[derive(Default)]
pub(crate) struct Shell {
    forwards: Vec<Rc<Open>>,
}

#[derive(Debug)]
struct Open {
    vm: String,
    remote: u16,
    local: u16,
    is_open: Cell<bool>,
}

/// Opens the connection now.
pub async fn connect(vm: String, patience: u64) -> Result<(), Error> {
    wait_for("shell.connect", json!({ "vm": vm, "patience": patience })).await?;
    world(|world| world.vms.awake(&vm))
}

/// Closes the VM's connection and stops what runs over it.
pub async fn disconnect(vm: String) -> Result<(), Error> {
    wait_for("shell.disconnect", json!({ "vm": vm })).await?;
    processes::end_on(&vm);
    Ok(())
}

/// Starts a command on a VM.
pub async fn spawn(
    vm: String,
    command: Command,
    stdin: Option<StreamReader<u8>>,
) -> Result<Child, Error> {
    processes::start("shell.spawn", Some(vm), command, stdin).await
}

/// The lines of a growing file, each exactly once and in order.
#[must_use]
pub fn follow(
    vm: &str,
    path: &str,
    start: Position,
) -> (StreamReader<Followed>, FutureReader<Result<(), Error>>) {
    let (mut writer, reader) = pipe();
    let (tell, told) = oneshot::channel();
    let at = key(&Location::Vm((vm.into(), path.into())));
    if let Err(error) = ask("shell.follow", json!({ "vm": vm, "path": path })) {
        return (reader, FutureReader::ready(Err(error)));
    }
    let vm = vm.to_owned();
    executor::spawn(async move {
        let mut from = match start {
            Position::Offset(from) => from,
            Position::End => world(|world| {
                world
                    .files
                    .tree
                    .bytes(&at)
                    .map_or(0, |bytes| bytes.len() as u64)
            }),
        };
        let ended = loop {
            let change = changed();
            if let Err(error) = world(|world| world.vms.awake(&vm)) {
                break error;
            }
            let next = world(|world| {
                let bytes = world.files.tree.bytes(&at)?;
                if from > bytes.len() as u64 {
                    return Some(Followed::Truncated);
                }
                let rest = bytes.get(usize::try_from(from).ok()?..)?;
                let end = rest.iter().position(|byte| *byte == b'\n')?;
                let line = rest.get(..end)?;
                let text =
                    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
                Some(Followed::Line(Line {
                    offset: from,
                    next: from + end as u64 + 1,
                    text,
                    left_out: 0,
                }))
            });
            match next {
                Some(news) => {
                    from = match &news {
                        Followed::Line(line) => line.next,
                        Followed::Replaced | Followed::Truncated => 0,
                    };
                    match executor::waiting(writer.write_one(news)).await {
                        Ok(None) => {}
                        // Nobody reads any more.
                        Ok(Some(_)) => return,
                        Err(error) => break error,
                    }
                }
                None => {
                    if let Err(error) = executor::waiting(change).await {
                        break error;
                    }
                }
            }
        };
        drop(writer);
        // Who does not ask how it ended, need not know.
        let _ = tell.send(Err(ended));
    });
    (reader, FutureReader::of(told))
}

/// A port of this machine that leads to a VM. Dropping it closes the port.
#[derive(Debug)]
pub struct Forward(Rc<Open>);

impl Forward {
    /// The port of this machine.
    #[must_use]
    pub fn local_port(&self) -> u16 {
        self.0.local
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.is_open.set(false);
    }
}

/// Forwards a port of this machine to a port of the VM.
pub async fn forward_port(
    vm: String,
    remote_port: u16,
    local_port: Option<u16>,
) -> Result<Forward, Error> {
    wait_for(
        "shell.forward-port",
        json!({ "vm": vm, "remote-port": remote_port, "local-port": local_port }),
    )
    .await?;
    world(|world| {
        world.vms.awake(&vm)?;
        let free = 40_000 + u16::try_from(world.shell.forwards.len()).unwrap_or(0);
        let open = Rc::new(Open {
            vm,
            remote: remote_port,
            local: local_port.unwrap_or(free),
            is_open: Cell::new(true),
        });
        world.shell.forwards.push(open.clone());
        Ok(Forward(open))
    })
}

impl Kit {
    /// The ports that lead to VMs now: of this machine, the VM, and its port.
    #[must_use]
    pub fn forwards(&self) -> Vec<(u16, String, u16)> {
        world(|world| {
            let open = world.shell.forwards.iter().filter(|one| one.is_open.get());
            open.map(|one| (one.local, one.vm.clone(), one.remote))
                .collect()
        })
    }
}
