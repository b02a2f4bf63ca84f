//! The tape of this process: `--record FILE`, `--replay FILE`, or `PI_VERS_RECORD` and `PI_VERS_REPLAY`.
//!
//! A tape holds one session, so a process has one tape; its end is told when the process ends.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pi_vers_host::{Tape, TapeError};

use crate::args::Loading;
use crate::failure::{Code, Failure};
use crate::terminal::Terminal;

/// The variables that name the file where no option does.
const RECORD: &str = "PI_VERS_RECORD";
const REPLAY: &str = "PI_VERS_REPLAY";

static OPEN: Mutex<Option<Tape>> = Mutex::new(None);

impl From<TapeError> for Failure {
    fn from(why: TapeError) -> Self {
        let message = why.to_string();
        match why {
            TapeError::Differs { .. } => Self::new(Code::Differs, "replay", message),
            TapeError::File { .. } | TapeError::Line { .. } => {
                Self::new(Code::Usage, "tape", message)
            }
            TapeError::Broken { .. } => Self::new(Code::Internal, "tape", message),
        }
    }
}

/// Which file, and whether it is replayed.
fn wanted(loading: &Loading) -> Result<Option<(PathBuf, bool)>, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let given = (loading.record.clone(), loading.replay.clone());
    let (record, replay) = match given {
        (None, None) => (
            variable(RECORD).map(PathBuf::from),
            variable(REPLAY).map(PathBuf::from),
        ),
        given => given,
    };
    match (record, replay) {
        (None, None) => Ok(None),
        (Some(file), None) => Ok(Some((file, false))),
        (None, Some(file)) => Ok(Some((file, true))),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "{RECORD} and {REPLAY} are both set: a session is recorded or replayed"
        ))),
    }
}

/// Whether this run replays: then it needs no platform.
pub(crate) fn replays(loading: &Loading) -> Result<bool, Failure> {
    Ok(wanted(loading)?.is_some_and(|(_, replays)| replays))
}

/// The tape's file, where no extension writes.
pub(crate) fn file(loading: &Loading) -> Result<Option<PathBuf>, Failure> {
    Ok(wanted(loading)?.map(|(file, _)| file))
}

/// The tape that the options or the environment ask for.
pub(crate) fn tape(loading: &Loading) -> Result<Option<Tape>, Failure> {
    let Some((path, replays)) = wanted(loading)? else {
        return Ok(None);
    };
    let path = std::path::absolute(&path)
        .map_err(|why| Failure::usage(format!("{} is no file: {why}", path.display())))?;
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if open.is_some() {
        return Err(Failure::usage(
            "this process has a tape already, and a tape holds one session",
        ));
    }
    if !replays && Path::new(&path).exists() {
        return Err(Failure::usage(format!(
            "the tape {} is there already: remove it, or name another file",
            path.display()
        )));
    }
    let tape = match replays {
        true => Tape::replay(path)?,
        false => Tape::record(path),
    };
    *open = Some(tape.clone());
    Ok(Some(tape))
}

/// The end of the process: the last line of a recording, or whether the replay was the same.
pub(crate) fn finish(terminal: &Terminal) -> Result<(), Failure> {
    let tape = OPEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(tape) = tape else {
        return Ok(());
    };
    for note in tape.notes() {
        terminal.note(format!("pi-vers: {note}"));
    }
    Ok(tape.finish()?)
}
