//! `vers:platform` on a tape.

use wasmtime::component::{Access, Accessor, FutureReader, Resource, StreamReader};

use super::system::adopted;
use super::{
    Asked, Taped, TapedGuest, all_asked, arguments, asked, compare, look, replayed_items, streamed,
};
use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::platform::fleet::{self, Golden, Member};
use crate::bindings::vers::platform::shell::{self, Followed, Position};
use crate::bindings::vers::platform::vms::{self, CommitInfo, Origin, State, Vm, VmConfig};
use crate::bindings::vers::system::process::Command;
use crate::capability::forward::Forward;
use crate::capability::process::Child;
use crate::guest::{Guest, Has};

impl vms::Host for TapedGuest<'_> {}

impl vms::HostWithStore<Guest> for Taped {
    all_asked! { vms:
        async fn list() -> Result<Vec<Vm>, Error>;
        async fn get(id: String) -> Result<Vm, Error>;
        async fn resolve(prefix: String) -> Result<String, Error>;
        async fn create(config: VmConfig, wait_boot: bool) -> Result<String, Error>;
        async fn delete(id: String) -> Result<(), Error>;
        async fn branch(id: String, count: u32) -> Result<Vec<String>, Error>;
        async fn commit(id: String, keep_paused: bool) -> Result<String, Error>;
        async fn restore(origin: Origin) -> Result<String, Error>;
        async fn set_state(id: String, state: State) -> Result<(), Error>;
        async fn set_labels(id: String, labels: Vec<(String, String)>) -> Result<(), Error>;
        async fn resize_disk(id: String, fs_size_mib: u32) -> Result<(), Error>;
        async fn list_commits(limit: u32, offset: u32) -> Result<Vec<CommitInfo>, Error>;
        async fn delete_commit(id: String) -> Result<(), Error>;
        async fn set_commit_public(id: String, is_public: bool) -> Result<(), Error>;
    }
}

impl fleet::Host for TapedGuest<'_> {
    fn available(&mut self) -> wasmtime::Result<bool> {
        look(
            self.0,
            "fleet.available",
            arguments!(),
            fleet::Host::available,
        )
    }
}

impl fleet::HostWithStore<Guest> for Taped {
    all_asked! { fleet:
        async fn golden_commit(explicit: Option<String>, ensure: bool) -> Result<Golden, Error>;
        async fn register(member: Member) -> Result<(), Error>;
        async fn deregister(vm: String) -> Result<(), Error>;
        async fn members(role: Option<String>) -> Result<Vec<Member>, Error>;
    }
}

impl shell::Host for TapedGuest<'_> {}

impl shell::HostForward for TapedGuest<'_> {
    fn local_port(&mut self, forward: Resource<Forward>) -> wasmtime::Result<u16> {
        let number = self.0.table.get(&forward)?.number();
        look(
            self.0,
            "shell.forward.local_port",
            arguments!(number),
            |guest| shell::HostForward::local_port(guest, forward),
        )
    }

    fn drop(&mut self, forward: Resource<Forward>) -> wasmtime::Result<()> {
        shell::HostForward::drop(self.0, forward)
    }
}

impl shell::HostWithStore<Guest> for Taped {
    all_asked! { shell:
        async fn connect(vm: String, patience: u64) -> Result<(), Error>;
        async fn disconnect(vm: String) -> Result<(), Error>;
    }

    async fn spawn(
        accessor: &Accessor<Guest, Taped>,
        vm: String,
        command: Command,
        stdin: Option<StreamReader<u8>>,
    ) -> wasmtime::Result<Result<Resource<Child>, Error>> {
        let input = stdin.is_some();
        let asked = Asked::of(accessor, "shell.spawn", arguments!(vm, command, input))?;
        if let Some(tap) = asked.replayed() {
            compare(accessor, tap, stdin)?;
            return adopted(accessor, &asked).await;
        }
        let real = accessor.with_getter::<Has>(super::guest);
        let spawn = <Has as shell::HostWithStore<Guest>>::spawn(&real, vm, command, stdin);
        super::system::spawned(accessor, &asked, Box::pin(spawn)).await
    }

    fn follow(
        access: Access<'_, Guest, Taped>,
        vm: String,
        path: String,
        start: Position,
    ) -> wasmtime::Result<(StreamReader<Followed>, FutureReader<Result<(), Error>>)> {
        let with = arguments!(vm, path, start);
        let real = |access: Access<'_, Guest, Has>| {
            <Has as shell::HostWithStore<Guest>>::follow(access, vm, path, start)
        };
        streamed(access, "shell.follow", with, real, replayed_items)
    }

    async fn forward_port(
        accessor: &Accessor<Guest, Taped>,
        vm: String,
        remote: u16,
        local: Option<u16>,
    ) -> wasmtime::Result<Result<Resource<Forward>, Error>> {
        let asked = Asked::of(
            accessor,
            "shell.forward_port",
            arguments!(vm, remote, local),
        )?;
        if asked.replayed().is_some() {
            return match asked.replay::<Result<(), Error>>().await? {
                Ok(()) => accessor.with(|mut access| {
                    let forward = Forward::replayed(asked.n);
                    Ok(Ok(access.get().0.table.push(forward)?))
                }),
                Err(why) => Ok(Err(why)),
            };
        }
        let real = accessor.with_getter::<Has>(super::guest);
        let open = <Has as shell::HostWithStore<Guest>>::forward_port(&real, vm, remote, local);
        let opened = asked.real(open).await?;
        asked.taped(&opened.as_ref().map(|_| ())).await?;
        if let Ok(forward) = &opened {
            accessor.with(|mut access| -> wasmtime::Result<()> {
                let forward = access.get().0.table.get_mut(forward)?;
                forward.set_number(asked.n);
                Ok(())
            })?;
        }
        Ok(opened)
    }
}
