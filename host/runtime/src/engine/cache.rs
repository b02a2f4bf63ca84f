//! Compiled components on disk, so that a second start compiles nothing.
//!
//! `<directory>/<engine>/<sha-256 of the component>.cwasm`, where `<engine>` stands for wasmtime's
//! version, its settings and the CPU's features. Writers write aside and rename, so a reader sees a
//! whole file or none, whatever was killed in between. A file that does not load is removed and made
//! anew. The directory must belong to this user and be closed to others; else it is refused.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, DirBuilder};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pi_vers_policy::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compiled;
use crate::error::Error;

pub(crate) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// Opens or makes the cache. Refuses a directory that others can write to.
    pub(super) fn open(engine: &Engine, directory: &Path) -> Result<Self, Error> {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let own = directory.join(format!("{:016x}", hasher.finish()));
        let refuse = |why: String| Error::Cache {
            directory: own.clone(),
            why,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&own)
            .map_err(|why| refuse(format!("it can't be made: {why}")))?;
        for path in [directory, own.as_path()] {
            let data = fs::symlink_metadata(path).map_err(|why| refuse(why.to_string()))?;
            if !data.is_dir() || data.uid() != rustix::process::geteuid().as_raw() {
                return Err(refuse(format!(
                    "{} is not a directory of this user",
                    path.display()
                )));
            }
            if data.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|why| {
                    refuse(format!(
                        "others may write there, and its mode can't be changed: {why}"
                    ))
                })?;
            }
        }
        Ok(Self { directory: own })
    }

    /// The compiled component, from disk or compiled now. The flag says which: true when it was there.
    /// Compiling takes up to seconds of both CPUs; call it where blocking is allowed.
    pub(crate) fn load(
        &self,
        engine: &Engine,
        digest: &Digest,
        wasm: &[u8],
    ) -> wasmtime::Result<(Component, bool)> {
        let file = self
            .directory
            .join(format!("{}.cwasm", digest.to_string().replace(':', "-")));
        if file.exists() {
            match compiled::load(engine, &file) {
                Ok(component) => return Ok((component, true)),
                Err(why) => {
                    tracing::warn!(
                        "compiled code {} does not load ({why:#}); compiling anew",
                        file.display()
                    );
                    let _ = fs::remove_file(&file);
                }
            }
        }
        let code = engine.precompile_component(wasm)?;
        match self.keep(&file, &code) {
            Ok(()) => Ok((compiled::load(engine, &file)?, false)),
            Err(why) => {
                tracing::warn!(
                    "compiled code can't be kept in {}: {why}",
                    self.directory.display()
                );
                Ok((Component::from_binary(engine, wasm)?, false))
            }
        }
    }

    fn keep(&self, file: &Path, code: &[u8]) -> std::io::Result<()> {
        let mut aside = tempfile::NamedTempFile::new_in(&self.directory)?;
        aside.write_all(code)?;
        aside.as_file().sync_data()?;
        aside.persist(file).map_err(|why| why.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::Engine;

    const EMPTY: &[u8] = b"(component)";

    #[test]
    fn a_second_load_compiles_nothing_and_a_broken_file_is_made_anew() {
        let engine = Engine::new().unwrap();
        let home = tempfile::tempdir().unwrap();
        let cache = engine.cache(&home.path().join("cache")).unwrap();
        let wasm = wat(EMPTY);
        let digest = Digest::of(&wasm);
        assert!(!cache.load(engine.wasm(), &digest, &wasm).unwrap().1);
        assert!(cache.load(engine.wasm(), &digest, &wasm).unwrap().1);
        let file = fs::read_dir(&cache.directory)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        fs::write(&file, b"half a fi").unwrap();
        assert!(!cache.load(engine.wasm(), &digest, &wasm).unwrap().1);
        assert!(cache.load(engine.wasm(), &digest, &wasm).unwrap().1);
    }

    #[test]
    fn a_directory_open_to_others_is_closed_before_use() {
        let engine = Engine::new().unwrap();
        let home = tempfile::tempdir().unwrap();
        let open = home.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        engine.cache(&open).unwrap();
        assert_eq!(
            fs::metadata(&open).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    fn wat(text: &[u8]) -> Vec<u8> {
        assert_eq!(text, EMPTY);
        // The empty component: magic, version 13, layer 1.
        vec![0, b'a', b's', b'm', 0x0d, 0, 1, 0]
    }
}
