//! The components this user has installed: by digest, private, and compared with it each time they are used.

use std::io::Write as _;
use std::path::PathBuf;

use pi_vers_host::policy::Digest;

use crate::dirs;
use crate::failure::Failure;

fn place(digest: &Digest) -> Result<PathBuf, Failure> {
    let directory = dirs::private(dirs::state()?.join("components"))?;
    let name = digest.to_string().replace(':', "-");
    Ok(directory.join(format!("{name}.wasm")))
}

/// Keeps bytes, all of them or none.
pub(super) fn put(bytes: &[u8]) -> Result<Digest, Failure> {
    let digest = Digest::of(bytes);
    if get(&digest)?.is_some() {
        return Ok(digest);
    }
    let place = place(&digest)?;
    let failed = |why: &dyn std::fmt::Display| {
        Failure::internal(format!("{} cannot be written: {why}", place.display()))
    };
    let directory = place
        .parent()
        .ok_or_else(|| failed(&"it has no directory"))?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(|why| failed(&why))?;
    file.write_all(bytes).map_err(|why| failed(&why))?;
    file.as_file().sync_all().map_err(|why| failed(&why))?;
    file.persist(&place).map_err(|why| failed(&why.error))?;
    Ok(digest)
}

/// The bytes of this digest. A file that holds others counts as none.
pub(super) fn get(digest: &Digest) -> Result<Option<Vec<u8>>, Failure> {
    match std::fs::read(place(digest)?) {
        Ok(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
        Ok(_) => {
            tracing::warn!(
                "an installed component has other bytes than its digest says; it is not used"
            );
            Ok(None)
        }
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(Failure::internal(format!(
            "an installed component cannot be read: {why}"
        ))),
    }
}

/// Whether they are there, without reading them.
pub(super) fn has(digest: &Digest) -> bool {
    place(digest).is_ok_and(|place| place.is_file())
}
