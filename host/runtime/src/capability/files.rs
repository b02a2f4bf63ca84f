//! `vers:system/files`: files of this machine beneath granted directories, and files of VMs.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt, Shared};
use futures::stream::{Stream, StreamExt, TryStreamExt};
use pi_vers_policy::{Access as Want, Request};
use pi_vers_system::files as local;
use vers_client::ssh as remote;
use wasmtime::component::{Access, Accessor, FutureReader, HasSelf, StreamReader};

use super::streams;
use super::vms::facts;
use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::system::files::{
    CopyOptions, CopyProgress, CopySummary, Host, HostWithStore, Kind, Location, Metadata, Range,
    WriteOptions,
};
use crate::connections::Lease;
use crate::guest::{Ask, Guest, Has};

impl Host for Guest {}

/// A location the policy has granted.
pub(super) enum Place {
    Here {
        root: local::Root,
        path: String,
    },
    OnVm {
        files: remote::Files,
        path: String,
        /// Its connection counts as long as it is used.
        lease: Lease,
    },
}

/// Judges a location and opens what is needed to reach it.
pub(super) async fn place(ask: &Ask, at: Location, access: Want) -> Result<Place, Error> {
    match at {
        Location::Vm((vm, path)) => {
            let facts = facts(ask, &vm).await?;
            ask.permit(&Request::VmFile {
                vm: facts.vm(),
                path: &path,
                access,
            })
            .await?;
            if let Some(stand_in) = &ask.services.stand_in {
                return super::stand_in::file(stand_in, &facts.id.to_string(), &path, access);
            }
            let lease = ask.connections.to_vm(facts.id)?;
            Ok(Place::OnVm {
                files: ask.services.ssh.files(facts.id),
                path,
                lease,
            })
        }
        Location::Local(path) => {
            let base = ask.services.directory();
            let path = pi_vers_policy::normalise(&base, &path)
                .map_err(|why| Error::Invalid(why.to_string()))?;
            ask.permit(&Request::LocalFile {
                path: &path,
                access,
            })
            .await?;
            let granted = ask.grants.file_root(&path, access);
            let missing = access == Want::Write && granted.is_some_and(|root| root != path);
            let (root, path) = beneath(granted, &path)?;
            let mode = match access {
                Want::Read => local::Access::ReadOnly,
                Want::Write => local::Access::ReadWrite,
            };
            let guarded = ask.services.guarded();
            let root = blocking(move || {
                if missing {
                    make(&root);
                }
                let root = local::Root::open(&root, mode)?;
                Ok(match access {
                    Want::Read => root,
                    // Looked for anew: what was not there before may be now.
                    Want::Write => root.guarded(local::Guard::new(guarded.iter())),
                })
            })
            .await?;
            Ok(Place::Here { root, path })
        }
    }
}

/// The directory to open and the rest of the path. A grant may name a file itself, and a path that a
/// person approved has no granted directory at all: then it is the file's own directory.
fn beneath(granted: Option<&Path>, path: &Path) -> Result<(PathBuf, String), Error> {
    let root = match granted {
        Some(root) if root != path || path.is_dir() => root,
        _ => path.parent().unwrap_or(Path::new("/")),
    };
    let rest = path.strip_prefix(root).unwrap_or(path);
    let rest = rest
        .to_str()
        .ok_or_else(|| Error::Invalid("a path of this machine must be UTF-8".into()))?;
    Ok((
        root.to_owned(),
        if rest.is_empty() {
            ".".into()
        } else {
            rest.to_owned()
        },
    ))
}

/// Makes a directory that was granted for writing and is not there yet, for its owner alone. Where that is not possible, opening it
/// says why.
fn make(granted: &Path) {
    let mut builder = std::fs::DirBuilder::new();
    let _ = builder.recursive(true).mode(0o700).create(granted);
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, pi_vers_system::Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|why| Error::Other(why.to_string()))?
        .map_err(Error::from)
}

impl From<local::Metadata> for Metadata {
    fn from(data: local::Metadata) -> Self {
        let kind = match data.kind {
            local::FileKind::File => Kind::File,
            local::FileKind::Directory => Kind::Directory,
            local::FileKind::Link => Kind::Link,
            local::FileKind::Other => Kind::Other,
        };
        Self {
            name: data.name,
            kind,
            size: data.size,
            mode: data.mode,
            modified: data.modified,
        }
    }
}

impl From<remote::Metadata> for Metadata {
    fn from(data: remote::Metadata) -> Self {
        let kind = match data.kind {
            remote::FileKind::File => Kind::File,
            remote::FileKind::Directory => Kind::Directory,
            remote::FileKind::Link => Kind::Link,
            remote::FileKind::Other => Kind::Other,
        };
        Self {
            name: data.name,
            kind,
            size: data.size,
            mode: data.mode,
            modified: data.modified,
        }
    }
}

fn digest(expect: Option<Vec<u8>>) -> Result<Option<[u8; 32]>, Error> {
    let wrong = |bytes: Vec<u8>| {
        Error::Invalid(format!(
            "`expect` has {} bytes; a SHA-256 has 32",
            bytes.len()
        ))
    };
    expect
        .map(|bytes| bytes.try_into().map_err(wrong))
        .transpose()
}

/// A place that is judged when either the stream or its outcome is first waited for.
type Judged = Shared<BoxFuture<'static, Result<(), Error>>>;

/// The bytes of a place and, apart from them, the judgement on it: a guest that waits for the outcome before it
/// reads must learn of a denial all the same.
fn bytes(
    ask: Ask,
    at: Location,
    range: Option<Range>,
) -> (
    impl Stream<Item = Result<bytes::Bytes, Error>> + Send + 'static,
    Judged,
) {
    let found = Arc::new(Mutex::new(None));
    let to = found.clone();
    let judged = async move {
        let place = ask.owner.race(place(&ask, at, Want::Read)).await??;
        *to.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        Ok(())
    };
    let judged = judged.boxed().shared();
    let (offset, length) = range.map_or((0, None), |range| (range.offset, range.length));
    let first = judged.clone();
    let stream = futures::stream::once(async move {
        first.await?;
        let place = found.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok::<_, Error>(match place {
            Some(Place::Here { root, path }) => root
                .read(&path, offset, length)
                .map(|chunk| chunk.map_err(Error::from))
                .boxed(),
            Some(Place::OnVm { files, path, lease }) => files
                .read(&path, offset, length)
                .map(move |chunk| {
                    let _used = &lease;
                    chunk.map_err(Error::from)
                })
                .boxed(),
            None => futures::stream::empty().boxed(),
        })
    })
    .try_flatten();
    (stream, judged)
}

impl HostWithStore<Guest> for HasSelf<Guest> {
    async fn stat(
        accessor: &Accessor<Guest, Has>,
        at: Location,
    ) -> wasmtime::Result<Result<Metadata, Error>> {
        Ok(async {
            let ask = Ask::of(accessor)?;
            match place(&ask, at, Want::Read).await? {
                Place::Here { root, path } => ask.race(root.stat(&path)).await.map(Metadata::from),
                Place::OnVm {
                    files,
                    path,
                    lease: _lease,
                } => ask.race(files.stat(&path)).await.map(Metadata::from),
            }
        }
        .await)
    }

    async fn list(
        accessor: &Accessor<Guest, Has>,
        at: Location,
    ) -> wasmtime::Result<Result<Vec<Metadata>, Error>> {
        Ok(async {
            let ask = Ask::of(accessor)?;
            match place(&ask, at, Want::Read).await? {
                Place::Here { root, path } => Ok(ask
                    .race(root.list(&path))
                    .await?
                    .into_iter()
                    .map(Metadata::from)
                    .collect()),
                Place::OnVm {
                    files,
                    path,
                    lease: _lease,
                } => Ok(ask
                    .race(files.list(&path))
                    .await?
                    .into_iter()
                    .map(Metadata::from)
                    .collect()),
            }
        }
        .await)
    }

    fn read(
        mut access: Access<'_, Guest, Has>,
        at: Location,
        range: Option<Range>,
    ) -> wasmtime::Result<(StreamReader<u8>, FutureReader<Result<(), Error>>)> {
        match Ask::with(&mut access) {
            Ok(ask) => {
                let owner = ask.owner.clone();
                let tally = ask.tally("files");
                let (source, judged) = bytes(ask, at, range);
                let source = streams::counted(source, tally);
                streams::outgoing_checked(access, owner, judged, source)
            }
            Err(denied) => streams::failed(access, denied),
        }
    }

    async fn write(
        accessor: &Accessor<Guest, Has>,
        at: Location,
        data: StreamReader<u8>,
        options: WriteOptions,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let data = accessor.with(|access| streams::incoming(access, data))?;
        // The write itself runs here and not in a task of its own: a guest that traps halfway drops this
        // future with its store, so that half of a stream never counts as the whole.
        Ok(async {
            let ask = Ask::of(accessor)?;
            let expect = digest(options.expect)?;
            let tally = ask.tally("files");
            match place(&ask, at, Want::Write).await? {
                Place::Here { root, path } => {
                    let options = local::WriteOptions {
                        parents: options.parents,
                        mode: options.mode,
                        expect_sha256: expect,
                    };
                    ask.race(root.write(
                        &path,
                        streams::counted(streams::stream(data).map(Ok), tally),
                        options,
                    ))
                    .await
                }
                Place::OnVm {
                    files,
                    path,
                    lease: _lease,
                } => {
                    let options = remote::WriteOptions {
                        parents: options.parents,
                        mode: options.mode,
                        expect_sha256: expect,
                    };
                    ask.race(files.write(
                        &path,
                        streams::counted(streams::stream(data).map(Ok), tally),
                        options,
                    ))
                    .await
                }
            }
        }
        .await)
    }

    async fn remove(
        accessor: &Accessor<Guest, Has>,
        at: Location,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(async {
            let ask = Ask::of(accessor)?;
            match place(&ask, at, Want::Write).await? {
                Place::Here { root, path } => ask.race(root.remove(&path)).await,
                Place::OnVm {
                    files,
                    path,
                    lease: _lease,
                } => ask.race(files.remove(&path)).await,
            }
        }
        .await)
    }

    fn copy(
        access: Access<'_, Guest, Has>,
        source: Location,
        target: Location,
        options: CopyOptions,
    ) -> wasmtime::Result<(
        StreamReader<CopyProgress>,
        FutureReader<Result<CopySummary, Error>>,
    )> {
        super::copy::start(access, source, target, options)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_granted_directory_is_the_root_and_a_granted_file_its_own() {
        let (root, rest) = beneath(Some(Path::new("/a")), Path::new("/a/b/c")).unwrap();
        assert_eq!((root.as_path(), rest.as_str()), (Path::new("/a"), "b/c"));
        let (root, rest) = beneath(Some(Path::new("/a/file")), Path::new("/a/file")).unwrap();
        assert_eq!((root.as_path(), rest.as_str()), (Path::new("/a"), "file"));
        let (root, rest) = beneath(None, Path::new("/x/y")).unwrap();
        assert_eq!((root.as_path(), rest.as_str()), (Path::new("/x"), "y"));
        let (root, rest) = beneath(Some(Path::new("/")), Path::new("/")).unwrap();
        assert_eq!((root.as_path(), rest.as_str()), (Path::new("/"), "."));
    }
}
