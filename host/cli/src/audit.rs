//! The audit log of this process: one file, opened once and written out before the end.
//!
//! Off unless `--audit FILE` or `PI_VERS_AUDIT` names a file. It is no key of the policy: who keeps a log wants it of every host on the
//! machine, also of one whose policy is another file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pi_vers_host::AuditFile;

use crate::failure::Failure;

/// The variable that names the file where no option does.
pub(crate) const VARIABLE: &str = "PI_VERS_AUDIT";

static OPEN: Mutex<Option<(PathBuf, Arc<AuditFile>)>> = Mutex::new(None);

/// The log that the option or the environment asks for, opened when it is first needed.
pub(crate) fn log(given: Option<&Path>) -> Result<Option<Arc<AuditFile>>, Failure> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let Some(path) = given.map(Path::to_owned).or(variable.map(PathBuf::from)) else {
        return Ok(None);
    };
    let path = std::path::absolute(&path)
        .map_err(|why| Failure::usage(format!("{} is no file: {why}", path.display())))?;
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, log)) = open.as_ref()
        && *known == path
    {
        return Ok(Some(log.clone()));
    }
    // Without its log nothing is to run.
    let log = AuditFile::open(&path, AuditFile::LIMIT)
        .map_err(|why| Failure::new(crate::failure::Code::Internal, "audit", why.to_string()))?;
    let log = Arc::new(log);
    *open = Some((path, log.clone()));
    Ok(Some(log))
}

/// Waits until what was recorded is in the file; at the end of the process. `false`: some of it is not.
pub(crate) fn finish() -> bool {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.as_ref().is_none_or(|(_, log)| log.flush())
}
