//! Standard input and output as fast as they can be had.
//!
//! Tokio's own go through a pool of threads, which costs more than all else that a call does. Some clients give a server
//! pipes, others socket pairs, and both can be waited for. The flag that makes a descriptor not block belongs to everybody who
//! has it, so it is not set on what we were given: a pipe is opened anew, and a socket is asked not to block at each call.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::FileType;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

pub(crate) type Input = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Standard input.
pub(crate) fn input() -> Input {
    let stdin = io::stdin();
    match kind(stdin.as_fd()) {
        Some(FileType::Socket) => {
            if let Ok(socket) = Socket::of(stdin.as_fd()) {
                return Box::new(socket);
            }
        }
        Some(FileType::Fifo) => {
            let file = File::open("/dev/fd/0").and_then(pipe::Receiver::from_file);
            if let Ok(pipe) = file {
                return Box::new(pipe);
            }
        }
        _ => {}
    }
    Box::new(tokio::io::stdin())
}

/// Standard output.
pub(crate) fn output() -> Output {
    let stdout = io::stdout();
    match kind(stdout.as_fd()) {
        Some(FileType::Socket) => {
            if let Ok(socket) = Socket::of(stdout.as_fd()) {
                return Box::new(socket);
            }
        }
        Some(FileType::Fifo) => {
            let file = File::options().write(true).open("/dev/fd/1");
            if let Ok(pipe) = file.and_then(pipe::Sender::from_file) {
                return Box::new(pipe);
            }
        }
        _ => {}
    }
    Box::new(tokio::io::stdout())
}

fn kind(descriptor: BorrowedFd<'_>) -> Option<FileType> {
    let stat = rustix::fs::fstat(descriptor).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    fn of(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        #[allow(
            deprecated,
            reason = "deprecated for types that may change their descriptor: `OwnedFd` does not, and the other way is unsafe"
        )]
        let socket = AsyncFd::new(descriptor.try_clone_to_owned()?)?;
        Ok(Self(socket))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            let tried = guard.try_io(|socket| {
                let (read, _) =
                    rustix::net::recv(socket.get_ref(), &mut *unfilled, RecvFlags::DONTWAIT)?;
                Ok(read)
            });
            if let Ok(read) = tried {
                buffer.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let tried =
                guard.try_io(|socket| Ok(rustix::net::send(socket.get_ref(), bytes, flags)?));
            if let Ok(sent) = tried {
                return Poll::Ready(sent);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
