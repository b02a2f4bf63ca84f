//! Where things are kept: the XDG directories, private to the user.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

const NAME: &str = "pi-vers";

/// `policy.toml` and the like: `$XDG_CONFIG_HOME/pi-vers`. Not made: nothing is written there.
pub(crate) fn config() -> Result<PathBuf, Failure> {
    base("XDG_CONFIG_HOME", ".config").map(|base| base.join(NAME))
}

/// Sessions, stores of extensions, the local platform: `$XDG_STATE_HOME/pi-vers`, made if it is not there.
pub(crate) fn state() -> Result<PathBuf, Failure> {
    private(base("XDG_STATE_HOME", ".local/state")?.join(NAME))
}

/// Compiled components: `$XDG_CACHE_HOME/pi-vers`, made if it is not there.
pub(crate) fn cache() -> Result<PathBuf, Failure> {
    private(base("XDG_CACHE_HOME", ".cache")?.join(NAME))
}

/// The local platform's, unless the user says another: `local` in the state directory.
pub(crate) fn local(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(directory) => std::path::absolute(directory).map_err(|why| {
            Failure::usage(format!("{} is no directory: {why}", directory.display()))
        }),
        None => Ok(state()?.join("local")),
    }
}

/// The specification says that a relative path is to be ignored.
fn base(variable: &str, below_home: &str) -> Result<PathBuf, Failure> {
    let given = std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || {
        std::env::home_dir()
            .filter(|home| home.is_absolute())
            .map(|home| home.join(below_home))
    };
    given.or_else(home).ok_or_else(|| {
        Failure::internal("there is no home directory")
            .next(format!("set HOME or {variable} to an absolute path"))
    })
}

/// Makes a directory that only its owner can enter. One that is somebody else's is refused.
pub(crate) fn private(directory: PathBuf) -> Result<PathBuf, Failure> {
    let failed = |what: &str, why: &dyn std::fmt::Display| {
        Failure::internal(format!("cannot {what} {}: {why}", directory.display()))
            .next("make it writable, or choose another with the XDG variables")
    };
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory);
    made.map_err(|why| failed("make", &why))?;
    let metadata = std::fs::metadata(&directory).map_err(|why| failed("read", &why))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(failed("use", &"it belongs to somebody else"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        let permissions = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&directory, permissions)
            .map_err(|why| failed("make private", &why))?;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_is_made_private_even_if_it_was_not() {
        let root = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let made = private(root.path().join("a/b")).unwrap();
        assert_eq!(mode(&made), 0o700);
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(mode(&private(made).unwrap()), 0o700);
    }

    #[test]
    fn a_file_in_its_place_is_told() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(private(file).unwrap_err().line().contains("cannot make"));
    }
}
