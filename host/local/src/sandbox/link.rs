//! The socket pair between the helper and the sandbox's first process: small messages, each with at most one descriptor.

use super::steps::{Failed, Named as _, Step};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

/// Longest message.
const LONGEST: usize = 16 * 1024;

/// What is said over the link.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// Helper to sandbox: the descriptor is the root file system, detached.
    Root,
    /// Helper to sandbox: the descriptor is a detached mount for this place.
    Mount(PathBuf),
    /// Helper to sandbox: that was all; ids are mapped.
    Go,
    /// Sandbox to helper: it runs.
    Ready,
    /// Sandbox to helper: a step failed.
    Failed(String),
}

/// One end.
pub(super) struct Link(OwnedFd);

/// Both ends. Closing one is seen as the end of messages on the other.
pub(super) fn pair() -> Step<(Link, Link)> {
    let (a, b) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .named(|| "make a socket pair".into())?;
    Ok((Link(a), Link(b)))
}

impl Link {
    pub(super) fn send(&self, message: &Message, fd: Option<&OwnedFd>) -> Step<()> {
        let bytes = serde_json::to_vec(message).named(|| "encode a message".into())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Failed::new("a descriptor does not fit a message"));
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .named(|| "send to the other side of the sandbox".into())?;
        Ok(())
    }

    /// The next message; an error when the other end is gone.
    pub(super) fn receive(&self) -> Step<(Message, Option<OwnedFd>)> {
        let mut bytes = vec![0u8; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .named(|| "hear from the other side of the sandbox".into())?;
        let fd = control.drain().find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if received.bytes == 0 {
            return Err(Failed::new("the other side of the sandbox is gone"));
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(Failed::new("a message is too long"));
        }
        let message = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default())
            .named(|| "decode a message".into())?;
        Ok((message, fd))
    }
}
