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
use rustix::io::Errno;
use rustix::net::sockopt::socket_type;
use rustix::net::{RecvFlags, SendFlags, SocketType};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;

pub(crate) type Input = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Standard input.
pub(crate) fn input() -> Input {
    let stdin = io::stdin();
    match kind(stdin.as_fd()) {
        Some(FileType::Socket) if socket_type(&stdin) == Ok(SocketType::STREAM) => {
            if let Ok(socket) = Receiver::of(stdin.as_fd()) {
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
            if let Ok(socket) = stdout.as_fd().try_clone_to_owned() {
                return Box::new(Sender { socket, full: None });
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

/// Waits for one side of a socket.
fn wait(socket: OwnedFd, what: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[allow(
        deprecated,
        reason = "deprecated for types that may change their descriptor: `OwnedFd` does not, and the other way is unsafe"
    )]
    AsyncFd::with_interest(socket, what)
}

/// Bytes that are taken from a socket at once.
const PIECE: usize = 64 << 10;

struct Receiver {
    socket: AsyncFd<OwnedFd>,
    /// Read into here: the reader's own buffer is not initialized, and to do that each time takes longer than to copy a message.
    piece: Box<[u8]>,
}

impl Receiver {
    fn of(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            socket: wait(descriptor.try_clone_to_owned()?, Interest::READABLE)?,
            piece: vec![0; PIECE].into_boxed_slice(),
        })
    }
}

impl AsyncRead for Receiver {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, piece } = self.get_mut();
        let most = piece.len().min(buffer.remaining());
        let piece = piece.get_mut(..most).unwrap_or_default();
        loop {
            let mut guard = ready!(socket.poll_read_ready(context))?;
            match rustix::net::recv(guard.get_inner(), &mut *piece, RecvFlags::DONTWAIT) {
                Ok((read, _)) => {
                    // Less than there was room for: the next read would only be told that there is nothing. What comes from
                    // now on, the end too, is told of anew.
                    if (1..most).contains(&read) {
                        guard.clear_ready();
                    }
                    buffer.put_slice(piece.get(..read).unwrap_or_default());
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::WOULDBLOCK) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(why) => return Poll::Ready(Err(why.into())),
            }
        }
    }
}

/// A socket tells of room each time its peer has read something, and each time the thread would be woken for nothing: so room is
/// waited for only while there is none.
struct Sender {
    socket: OwnedFd,
    full: Option<AsyncFd<OwnedFd>>,
}

impl AsyncWrite for Sender {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, full } = self.get_mut();
        let send = |socket: &OwnedFd| {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            rustix::net::send(socket, bytes, flags).map_err(io::Error::from)
        };
        loop {
            match full {
                None => match send(socket) {
                    Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                        *full = Some(wait(socket.try_clone()?, Interest::WRITABLE)?);
                    }
                    sent => return Poll::Ready(sent),
                },
                Some(waiting) => {
                    let mut guard = ready!(waiting.poll_write_ready(context))?;
                    if let Ok(sent) = guard.try_io(|socket| send(socket.get_ref())) {
                        drop(guard);
                        *full = None;
                        return Poll::Ready(sent);
                    }
                }
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
