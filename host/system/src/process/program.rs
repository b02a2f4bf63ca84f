//! Where a program is.
//!
//! The threat is a planted `./git`. A bare name is looked up in absolute directories only, never in the working
//! directory: empty and relative entries of a `PATH` are passed over. A path must be absolute and say plainly where it
//! leads: with `..` or `.` in it, a rule about `/usr/bin/*` could be met by a program elsewhere.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::{Error, Kind};

/// The absolute path of a program: `name` itself if it is absolute, else the first executable file of that name in
/// `path_dirs`. Links are not resolved (many programs look at the name they were called by). Blocks for a few `stat`s.
///
/// # Errors
/// `Invalid` for a relative path or one with `..`; `NotFound` if there is no such executable file.
pub fn resolve_program(name: &str, path_dirs: &[PathBuf]) -> Result<PathBuf, Error> {
    let shown = name.escape_debug();
    if name.is_empty() || name.contains('\0') {
        return Err(Error::new(
            Kind::Invalid,
            format!("`{shown}` is no name of a program"),
        ));
    }
    if name.starts_with('/') {
        if name.split('/').any(|part| part == "." || part == "..") {
            return Err(Error::new(
                Kind::Invalid,
                format!("the program `{shown}` has `.` or `..` in its path; write where it is"),
            ));
        }
        let path = PathBuf::from(name);
        return match is_executable(&path) {
            true => Ok(path),
            false => Err(Error::new(
                Kind::NotFound,
                format!("`{shown}` is not an executable file"),
            )),
        };
    }
    if name.contains('/') || name == "." || name == ".." {
        let message = format!(
            "the program `{shown}` is a relative path; write an absolute one, or a bare name"
        );
        return Err(Error::new(Kind::Invalid, message));
    }
    path_dirs
        .iter()
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| is_executable(path))
        .ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("there is no program `{shown}` in the search path"),
            )
        })
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
