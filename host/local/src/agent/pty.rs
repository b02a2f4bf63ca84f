//! Pseudo-terminals.

use crate::sandbox::sys;
use russh::Pty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// What a client asked for.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) term: String,
    pub(super) size: Winsize,
    pub(super) modes: Vec<(Pty, u32)>,
}

/// SSH's window size; numbers beyond the terminal's range are cut.
pub(super) fn size(columns: u32, rows: u32, width: u32, height: u32) -> Winsize {
    let cut = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    Winsize {
        ws_row: cut(rows),
        ws_col: cut(columns),
        ws_xpixel: cut(width),
        ws_ypixel: cut(height),
    }
}

/// The master's side, for reading and writing at the same time.
#[derive(Clone)]
pub(super) struct Master(Arc<AsyncFd<OwnedFd>>);

/// Opens a terminal: the master, the slave, the slave's name.
pub(super) fn open(request: &Request) -> io::Result<(Master, OwnedFd, OsString)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    let name = OsString::from_vec(ptsname(&master, Vec::new())?.into_bytes());
    tcsetwinsize(&master, request.size)?;
    let mut modes = tcgetattr(&slave)?;
    apply(&mut modes, &request.modes);
    tcsetattr(&slave, OptionalActions::Now, &modes)?;
    let status = rustix::fs::fcntl_getfl(&master)?;
    rustix::fs::fcntl_setfl(&master, status | rustix::fs::OFlags::NONBLOCK)?;
    Ok((
        Master(Arc::new(sys::watched(
            master,
            Interest::READABLE | Interest::WRITABLE,
        )?)),
        slave,
        name,
    ))
}

impl Master {
    pub(super) fn resize(&self, size: Winsize) {
        // A terminal whose program is gone has no size to change.
        let _ = tcsetwinsize(self.0.get_ref(), size);
    }
}

impl AsyncRead for Master {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let space = buf.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *space)?)) {
                Ok(Ok(n)) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                // The last slave was closed: that is a terminal's end of file.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Master {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), buf)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
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

/// Applies the modes that the client's terminal has (RFC 4254, section 8).
fn apply(t: &mut Termios, modes: &[(Pty, u32)]) {
    for (mode, value) in modes {
        let on = *value != 0;
        if let Some(index) = special_code(*mode) {
            // 255 means that the client's terminal has none; Linux writes that as 0.
            let code = u8::try_from(*value).unwrap_or(0);
            t.special_codes[index] = if code == 255 { 0 } else { code };
        } else if let Some(flag) = input_mode(*mode) {
            t.input_modes.set(flag, on);
        } else if let Some(flag) = local_mode(*mode) {
            t.local_modes.set(flag, on);
        } else if let Some(flag) = output_mode(*mode) {
            t.output_modes.set(flag, on);
        } else {
            control_mode(t, *mode, on);
        }
    }
}

fn special_code(mode: Pty) -> Option<SpecialCodeIndex> {
    Some(match mode {
        Pty::VINTR => SpecialCodeIndex::VINTR,
        Pty::VQUIT => SpecialCodeIndex::VQUIT,
        Pty::VERASE => SpecialCodeIndex::VERASE,
        Pty::VKILL => SpecialCodeIndex::VKILL,
        Pty::VEOF => SpecialCodeIndex::VEOF,
        Pty::VEOL => SpecialCodeIndex::VEOL,
        Pty::VEOL2 => SpecialCodeIndex::VEOL2,
        Pty::VSTART => SpecialCodeIndex::VSTART,
        Pty::VSTOP => SpecialCodeIndex::VSTOP,
        Pty::VSUSP => SpecialCodeIndex::VSUSP,
        Pty::VREPRINT => SpecialCodeIndex::VREPRINT,
        Pty::VWERASE => SpecialCodeIndex::VWERASE,
        Pty::VLNEXT => SpecialCodeIndex::VLNEXT,
        Pty::VDISCARD => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input_mode(mode: Pty) -> Option<InputModes> {
    Some(match mode {
        Pty::IGNPAR => InputModes::IGNPAR,
        Pty::PARMRK => InputModes::PARMRK,
        Pty::INPCK => InputModes::INPCK,
        Pty::ISTRIP => InputModes::ISTRIP,
        Pty::INLCR => InputModes::INLCR,
        Pty::IGNCR => InputModes::IGNCR,
        Pty::ICRNL => InputModes::ICRNL,
        Pty::IUCLC => InputModes::IUCLC,
        Pty::IXON => InputModes::IXON,
        Pty::IXANY => InputModes::IXANY,
        Pty::IXOFF => InputModes::IXOFF,
        Pty::IMAXBEL => InputModes::IMAXBEL,
        Pty::IUTF8 => InputModes::IUTF8,
        _ => return None,
    })
}

fn local_mode(mode: Pty) -> Option<LocalModes> {
    Some(match mode {
        Pty::ISIG => LocalModes::ISIG,
        Pty::ICANON => LocalModes::ICANON,
        Pty::XCASE => LocalModes::XCASE,
        Pty::ECHO => LocalModes::ECHO,
        Pty::ECHOE => LocalModes::ECHOE,
        Pty::ECHOK => LocalModes::ECHOK,
        Pty::ECHONL => LocalModes::ECHONL,
        Pty::NOFLSH => LocalModes::NOFLSH,
        Pty::TOSTOP => LocalModes::TOSTOP,
        Pty::IEXTEN => LocalModes::IEXTEN,
        Pty::ECHOCTL => LocalModes::ECHOCTL,
        Pty::ECHOKE => LocalModes::ECHOKE,
        Pty::PENDIN => LocalModes::PENDIN,
        _ => return None,
    })
}

fn output_mode(mode: Pty) -> Option<OutputModes> {
    Some(match mode {
        Pty::OPOST => OutputModes::OPOST,
        Pty::OLCUC => OutputModes::OLCUC,
        Pty::ONLCR => OutputModes::ONLCR,
        Pty::OCRNL => OutputModes::OCRNL,
        Pty::ONOCR => OutputModes::ONOCR,
        Pty::ONLRET => OutputModes::ONLRET,
        _ => return None,
    })
}

fn control_mode(t: &mut Termios, mode: Pty, on: bool) {
    match mode {
        Pty::CS7 | Pty::CS8 if on => {
            let size = match mode {
                Pty::CS7 => ControlModes::CS7,
                _ => ControlModes::CS8,
            };
            t.control_modes.remove(ControlModes::CSIZE);
            t.control_modes.insert(size);
        }
        Pty::PARENB => t.control_modes.set(ControlModes::PARENB, on),
        Pty::PARODD => t.control_modes.set(ControlModes::PARODD, on),
        _ => {}
    }
}
