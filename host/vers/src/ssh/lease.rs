//! What is handed out of a VM's connections: the use of one, a command's place on one, and a place with its channel.

use std::sync::Arc;

use russh::Channel;
use russh::client::Msg;
use tokio::sync::OwnedSemaphorePermit;

use super::machine::Machine;
use super::pool::Connection;

/// A connection in use: while one of these lives, it is not closed for being idle. A clone of the `Arc` inside does
/// not count.
pub(super) struct Held(Arc<Connection>);

impl Held {
    pub(super) fn new(connection: &Arc<Connection>) -> Self {
        connection.users().send_modify(|users| *users += 1);
        Self(connection.clone())
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0
            .users()
            .send_modify(|users| *users = users.saturating_sub(1));
    }
}

impl std::ops::Deref for Held {
    type Target = Arc<Connection>;

    fn deref(&self) -> &Arc<Connection> {
        &self.0
    }
}

/// A command's place on a connection.
pub(super) struct Slot {
    pub(super) connection: Held,
    pub(super) machine: Arc<Machine>,
    /// On the connection for bulk data, whose places are counted apart.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

impl Slot {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(super) fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// Gives the place up for one among those that linger, if there is one.
    pub(super) fn linger(self) -> Option<(OwnedSemaphorePermit, Held)> {
        let place = self.connection.lingering().try_acquire_owned().ok()?;
        Some((place, self.connection.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.machine.vacate(&self.connection);
    }
}

/// A place with a channel that nothing was asked of yet. Dropped unused, the channel is kept for the next command.
pub(super) struct Lease {
    pub(super) slot: Option<Slot>,
    pub(super) channel: Option<Channel<Msg>>,
}

impl Lease {
    /// For use. `None` never happens: it is taken once.
    pub(super) fn take(mut self) -> Option<(Slot, Channel<Msg>)> {
        self.slot.take().zip(self.channel.take())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (Some(slot), Some(channel)) = (&self.slot, self.channel.take()) {
            slot.connection.keep_spare(channel);
        }
    }
}
