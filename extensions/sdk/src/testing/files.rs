//! Files of this machine and of VMs, in memory.

use std::collections::BTreeMap;

use futures::channel::oneshot;
use serde_json::{Value, json};

use super::Kit;
use super::executor;
use super::streams::{FutureReader, StreamReader, pipe};
use super::world::{ask, wait_for, world};
use crate::Error;
use crate::bell::Bell;
use crate::bindings::vers::system::files::{
    CopyOptions, CopyProgress, CopySummary, Kind, Location, Metadata, Range, WriteOptions,
};

/// A place: the VM, if it is on one, and the absolute path.
pub(crate) type Key = (Option<String>, String);

#[derive(Debug, Clone)]
enum Node {
    Directory,
    File { bytes: Vec<u8>, mode: u32 },
}

/// All files, by place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree(BTreeMap<Key, Node>);

#[derive(Default)]
pub(crate) struct Files {
    pub(crate) tree: Tree,
}

thread_local! {
    static CHANGED: Bell = const { Bell::new() };
}

/// The next change of any file.
pub(crate) fn changed() -> impl Future<Output = ()> {
    CHANGED.with(Bell::next)
}

/// Where a location is: relative paths begin at the working directory here, at `/root` on a VM.
pub(crate) fn key(at: &Location) -> Key {
    let (vm, path, home) = match at {
        Location::Local(path) => (None, path, super::session::working_directory()),
        Location::Vm((vm, path)) => (Some(vm.clone()), path, "/root".to_owned()),
    };
    let whole = if path.starts_with('/') {
        path.clone()
    } else {
        format!("{home}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    (vm, format!("/{}", parts.join("/")))
}

impl Tree {
    pub(crate) fn bytes(&self, at: &Key) -> Option<&Vec<u8>> {
        match self.0.get(at)? {
            Node::File { bytes, .. } => Some(bytes),
            Node::Directory => None,
        }
    }

    /// What is on this machine.
    pub(crate) fn here(&self) -> Self {
        Self(
            self.0
                .iter()
                .filter(|((vm, _), _)| vm.is_none())
                .map(|(at, node)| (at.clone(), node.clone()))
                .collect(),
        )
    }

    pub(crate) fn clone_vm(&mut self, from: &str, to: &str) {
        let all = self
            .0
            .iter()
            .filter(|((vm, _), _)| vm.as_deref() == Some(from));
        let new: Vec<_> = all
            .map(|((_, path), node)| ((Some(to.to_owned()), path.clone()), node.clone()))
            .collect();
        self.0.extend(new);
    }

    fn put(&mut self, at: Key, bytes: Vec<u8>, mode: u32) {
        let mut parent = at.1.as_str();
        while let Some((up, _)) = parent.rsplit_once('/').filter(|(up, _)| !up.is_empty()) {
            self.0
                .entry((at.0.clone(), up.into()))
                .or_insert(Node::Directory);
            parent = up;
        }
        self.0.insert(at, Node::File { bytes, mode });
    }

    /// What is below a directory, with paths relative to it.
    fn below<'a>(&'a self, at: &'a Key) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let root = format!("{}/", at.1.trim_end_matches('/'));
        self.0.iter().filter_map(move |((vm, path), node)| {
            let rest = path.strip_prefix(root.as_str()).filter(|_| *vm == at.0)?;
            Some((rest, node))
        })
    }

    fn stat(&self, at: &Key) -> Result<Metadata, Error> {
        let missing = || Error::NotFound(format!("{} is not there", at.1));
        // Where relative paths begin there is always a directory.
        let is_root = matches!(at.1.as_str(), "/" | "/root" | "/work");
        let node = match self.0.get(at) {
            Some(node) => node,
            None if is_root => &Node::Directory,
            None => return Err(missing()),
        };
        let name = at.1.rsplit('/').next().unwrap_or_default();
        Ok(metadata(name, node))
    }
}

fn metadata(name: &str, node: &Node) -> Metadata {
    let (kind, size, mode) = match node {
        Node::Directory => (Kind::Directory, 0, 0o755),
        Node::File { bytes, mode } => (Kind::File, bytes.len() as u64, *mode),
    };
    Metadata {
        name: name.into(),
        kind,
        size,
        mode,
        modified: 1_767_225_600,
    }
}

fn shown(at: &Location) -> Value {
    match at {
        Location::Local(path) => json!({ "path": path }),
        Location::Vm((vm, path)) => json!({ "vm": vm, "path": path }),
    }
}

/// A VM that is not there has no files.
fn reach(at: &Key) -> Result<(), Error> {
    match &at.0 {
        Some(vm) => world(|world| world.vms.awake(vm)),
        None => Ok(()),
    }
}

/// Follows links.
pub async fn stat(at: Location) -> Result<Metadata, Error> {
    wait_for("files.stat", shown(&at)).await?;
    let at = key(&at);
    reach(&at)?;
    world(|world| world.files.tree.stat(&at))
}

/// The entries of a directory, by name.
pub async fn list(at: Location) -> Result<Vec<Metadata>, Error> {
    wait_for("files.list", shown(&at)).await?;
    let at = key(&at);
    reach(&at)?;
    world(|world| {
        let tree = &world.files.tree;
        if tree.stat(&at)?.kind != Kind::Directory {
            return Err(Error::Invalid(format!("{} is no directory", at.1)));
        }
        let entries = tree.below(&at).filter(|(name, _)| !name.contains('/'));
        Ok(entries.map(|(name, node)| metadata(name, node)).collect())
    })
}

/// The bytes of a file, and whether all of them came.
#[must_use]
pub fn read(
    at: &Location,
    range: Option<Range>,
) -> (StreamReader<u8>, FutureReader<Result<(), Error>>) {
    let (writer, reader) = pipe();
    let done = ask("files.read", shown(at)).and_then(|()| {
        let at = key(at);
        reach(&at)?;
        world(|world| {
            if world.files.tree.stat(&at)?.kind == Kind::Directory {
                return Err(Error::Invalid(format!("{} is a directory", at.1)));
            }
            let bytes = world.files.tree.bytes(&at).cloned().unwrap_or_default();
            let from = range.map_or(0, |range| {
                usize::try_from(range.offset).unwrap_or(usize::MAX)
            });
            let most = range
                .and_then(|range| range.length)
                .map_or(usize::MAX, |most| {
                    usize::try_from(most).unwrap_or(usize::MAX)
                });
            writer.push(bytes.into_iter().skip(from).take(most));
            Ok(())
        })
    });
    (reader, FutureReader::ready(done))
}

/// Replaces the file in one step.
pub async fn write(
    at: Location,
    mut data: StreamReader<u8>,
    options: WriteOptions,
) -> Result<u64, Error> {
    wait_for("files.write", shown(&at)).await?;
    let at = key(&at);
    reach(&at)?;
    let mut bytes = Vec::new();
    let mut buffer = Vec::new();
    while let Some(more) =
        executor::waiting(crate::stream::next(&mut data, std::mem::take(&mut buffer))).await?
    {
        bytes.extend_from_slice(&more);
        buffer = more;
    }
    let length = bytes.len() as u64;
    world(|world| {
        let tree = &mut world.files.tree;
        let (is_directory, mode) = match tree.0.get(&at) {
            Some(Node::File { mode, .. }) => (false, *mode),
            Some(Node::Directory) => (true, 0),
            None => (false, 0o644),
        };
        if is_directory {
            return Err(Error::Invalid(format!("{} is a directory", at.1)));
        }
        if let Some(expected) = options.expect {
            let old = tree
                .bytes(&at)
                .ok_or_else(|| Error::NotFound(format!("{} is not there", at.1)))?;
            if crate::digest::sha256(old) != expected {
                return Err(Error::Conflict(format!("{} has changed", at.1)));
            }
        }
        let parent = (
            at.0.clone(),
            at.1.rsplit_once('/').map_or("", |(up, _)| up).to_owned(),
        );
        if !options.parents && !parent.1.is_empty() {
            tree.stat(&parent)?;
        }
        tree.put(at, bytes, options.mode.unwrap_or(mode));
        Ok(())
    })?;
    CHANGED.with(Bell::ring);
    Ok(length)
}

/// Removes a file or an empty directory.
pub async fn remove(at: Location) -> Result<(), Error> {
    wait_for("files.remove", shown(&at)).await?;
    let at = key(&at);
    reach(&at)?;
    world(|world| {
        let tree = &mut world.files.tree;
        tree.stat(&at)?;
        if tree.below(&at).next().is_some() {
            return Err(Error::Conflict(format!("{} is not empty", at.1)));
        }
        tree.0.remove(&at);
        Ok(())
    })?;
    CHANGED.with(Bell::ring);
    Ok(())
}

/// Copies a file or a tree.
#[must_use]
pub fn copy(
    source: &Location,
    target: &Location,
    options: &CopyOptions,
) -> (
    StreamReader<CopyProgress>,
    FutureReader<Result<CopySummary, Error>>,
) {
    let (writer, reader) = pipe();
    let (tell, told) = oneshot::channel();
    let with = json!({ "source": shown(source), "target": shown(target), "exclude": options.exclude, "recursive": options.recursive });
    let (from, to, recursive) = (key(source), key(target), options.recursive);
    executor::spawn(async move {
        let copied = async {
            wait_for("files.copy", with).await?;
            reach(&from)?;
            reach(&to)?;
            let done = world(|world| transfer(&mut world.files.tree, &from, &to, recursive))?;
            CHANGED.with(Bell::ring);
            let (files, bytes) = (done.files, done.bytes);
            let news = CopyProgress {
                files,
                bytes,
                total_files: Some(files),
                total_bytes: Some(bytes),
                current: from.1.clone(),
            };
            writer.push([news]);
            Ok(done)
        }
        .await;
        drop(writer);
        let _ = tell.send(copied);
    });
    (reader, FutureReader::of(told))
}

/// What to leave out is noted, and not looked at: patterns are the host's.
fn transfer(
    tree: &mut Tree,
    from: &Key,
    to: &Key,
    recursive: Option<bool>,
) -> Result<CopySummary, Error> {
    let mut done = CopySummary {
        files: 0,
        directories: 0,
        links: 0,
        bytes: 0,
        left_out: 0,
        was_directory: false,
    };
    let found = tree.stat(from)?;
    let there = tree.stat(to).map(|there| there.kind);
    if there.is_ok_and(|there| there != found.kind) {
        return Err(Error::Conflict(format!("{} is of another kind", to.1)));
    }
    if found.kind != Kind::Directory {
        let bytes = tree.bytes(from).cloned().unwrap_or_default();
        (done.files, done.bytes) = (1, bytes.len() as u64);
        tree.put(to.clone(), bytes, found.mode);
        return Ok(done);
    }
    if recursive == Some(false) {
        return Err(Error::Invalid(format!("{} is a directory", from.1)));
    }
    done.was_directory = true;
    done.directories = 1;
    tree.0.insert(to.clone(), Node::Directory);
    let all: Vec<(String, Node)> = tree
        .below(from)
        .map(|(name, node)| (name.to_owned(), node.clone()))
        .collect();
    for (name, node) in all {
        let at = (to.0.clone(), format!("{}/{name}", to.1));
        match node {
            Node::Directory => {
                done.directories += 1;
                tree.0.insert(at, Node::Directory);
            }
            Node::File { bytes, mode } => {
                done.files += 1;
                done.bytes += bytes.len() as u64;
                tree.put(at, bytes, mode);
            }
        }
    }
    Ok(done)
}

impl Kit {
    /// Puts a file here, with the directories above it. A relative path begins at the working directory.
    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.put_at(&Location::Local(path.into()), bytes.into());
    }

    /// Puts a file on a VM. A relative path begins at `/root`.
    pub fn put_on(&self, vm: &str, path: &str, bytes: impl Into<Vec<u8>>) {
        self.put_at(&Location::Vm((vm.into(), path.into())), bytes.into());
    }

    fn put_at(&self, at: &Location, bytes: Vec<u8>) {
        let at = key(at);
        world(|world| world.files.tree.put(at, bytes, 0o644));
        CHANGED.with(Bell::ring);
        self.settle();
    }

    /// Appends to a file of a VM, which makes it if there is none. Who follows it hears of it.
    pub fn append_on(&self, vm: &str, path: &str, bytes: impl Into<Vec<u8>>) {
        let at = Location::Vm((vm.into(), path.into()));
        let mut all = self.bytes_at(&at).unwrap_or_default();
        all.extend(bytes.into());
        self.put_at(&at, all);
    }

    fn bytes_at(&self, at: &Location) -> Option<Vec<u8>> {
        let at = key(at);
        world(|world| world.files.tree.bytes(&at).cloned())
    }

    /// What a file here holds.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.bytes_at(&Location::Local(path.into()))
    }

    /// What a file of a VM holds.
    #[must_use]
    pub fn file_on(&self, vm: &str, path: &str) -> Option<Vec<u8>> {
        self.bytes_at(&Location::Vm((vm.into(), path.into())))
    }
}
