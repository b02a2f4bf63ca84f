//! This project's client, through its Rust API and through a tool call.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use pi_vers_host::policy::{Digest, Policy};
use pi_vers_host::{Headless, Host, Session};
use pi_vers_system::files::{Access, Root};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vers_client::ssh::WriteOptions;
use vers_client::transfer::{self, Progress, Side};
use vers_client::{Api, Command, Ssh, SshOptions, VmId};

use crate::Outcome;
use crate::lab::Places;

/// How long anything of ours may take to connect.
const PATIENCE: Duration = Duration::from_secs(30);

/// The client, connected.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) ssh: Ssh,
    pub(crate) vm: VmId,
}

impl Client {
    /// A client of its own, with connections of its own.
    pub(crate) async fn connect(places: &Places, edge: SocketAddr) -> Outcome<Self> {
        let api = Api::new(places.settings(edge)?)?;
        let client = Self {
            ssh: Ssh::new(api, SshOptions::default())?,
            vm: VmId(places.vm.parse()?),
        };
        client.ssh.connect(client.vm, PATIENCE).await?;
        Ok(client)
    }

    /// A script, to its end.
    pub(crate) async fn run(&self, script: &str) -> Outcome<Duration> {
        let begun = Instant::now();
        let child = self.ssh.spawn(self.vm, Command::shell(script)).await?;
        let exit = child.wait().await?;
        let took = begun.elapsed();
        if !exit.is_success() {
            return Err(exit.to_string().into());
        }
        Ok(took)
    }

    /// Counts what a script writes.
    pub(crate) async fn drain(&self, script: &str, bytes: u64) -> Outcome<Duration> {
        let begun = Instant::now();
        let mut child = self.ssh.spawn(self.vm, Command::shell(script)).await?;
        let mut output = child.take_stdout().ok_or("no output")?;
        let mut seen = 0;
        while let Some(data) = output.next().await {
            seen += data.len() as u64;
        }
        let exit = child.wait().await?;
        let took = begun.elapsed();
        if !exit.is_success() || seen != bytes {
            return Err(format!("{exit} after {seen} of {bytes} bytes").into());
        }
        Ok(took)
    }

    /// Feeds a script.
    pub(crate) async fn feed(&self, script: &str, chunk: &[u8], bytes: u64) -> Outcome<Duration> {
        let begun = Instant::now();
        let command = Command::shell(script).with_stdin();
        let mut child = self.ssh.spawn(self.vm, command).await?;
        let mut input = child.take_stdin().ok_or("no input")?;
        let mut left = bytes;
        while left > 0 {
            let part = chunk.get(..usize::try_from(left)?).unwrap_or(chunk);
            input.write_all(part).await?;
            left -= part.len() as u64;
        }
        input.shutdown().await?;
        drop(input);
        let exit = child.wait().await?;
        let took = begun.elapsed();
        if !exit.is_success() {
            return Err(exit.to_string().into());
        }
        Ok(took)
    }

    /// Reads a file and counts it.
    pub(crate) async fn read(&self, path: &Path, bytes: u64) -> Outcome<Duration> {
        let begun = Instant::now();
        let path = path.to_str().ok_or("not UTF-8")?;
        let data = self.ssh.files(self.vm).read(path, 0, None);
        let seen = data
            .try_fold(0, async |seen, data| Ok(seen + data.len() as u64))
            .await?;
        let took = begun.elapsed();
        if seen != bytes {
            return Err(format!("{seen} of {bytes} bytes").into());
        }
        Ok(took)
    }

    /// Writes a file.
    pub(crate) async fn write(&self, path: &Path, chunk: &Bytes, bytes: u64) -> Outcome<Duration> {
        let begun = Instant::now();
        let path = path.to_str().ok_or("not UTF-8")?;
        let data = stream::unfold(bytes, |left| async move {
            let part = usize::try_from(left).ok()?.min(chunk.len());
            (part > 0).then(|| (Ok(chunk.slice(..part)), left - part as u64))
        });
        let files = self.ssh.files(self.vm);
        let written = files.write(path, data, WriteOptions::default()).await?;
        let took = begun.elapsed();
        if written != bytes {
            return Err(format!("{written} of {bytes} bytes").into());
        }
        Ok(took)
    }

    /// A file from here to there.
    pub(crate) async fn upload(&self, from: &Path, to: &Path) -> Outcome<Duration> {
        let begun = Instant::now();
        let mut file = tokio::fs::File::open(from).await?;
        file.set_max_buf_size(1 << 20);
        let data = stream::try_unfold(file, async |mut file| {
            let mut buffer = bytes::BytesMut::with_capacity(1 << 20);
            let read = tokio::io::AsyncReadExt::read_buf(&mut file, &mut buffer).await;
            match read {
                Ok(0) => Ok(None),
                Ok(_) => Ok(Some((buffer.freeze(), file))),
                Err(why) => Err(vers_client::Error::new(
                    vers_client::Kind::Other,
                    why.to_string(),
                )),
            }
        });
        let to = to.to_str().ok_or("not UTF-8")?;
        let files = self.ssh.files(self.vm);
        files.write(to, data, WriteOptions::default()).await?;
        Ok(begun.elapsed())
    }

    /// A file from there to here.
    pub(crate) async fn download(&self, from: &Path, to: &Path) -> Outcome<Duration> {
        let begun = Instant::now();
        // Each write of a `tokio::fs::File` goes to another thread: a few large ones.
        let file = tokio::fs::File::create(to).await?;
        let mut file = tokio::io::BufWriter::with_capacity(1 << 20, file);
        let from = from.to_str().ok_or("not UTF-8")?;
        let mut data = std::pin::pin!(self.ssh.files(self.vm).read(from, 0, None));
        while let Some(data) = data.next().await {
            file.write_all(&data?).await?;
        }
        file.flush().await?;
        Ok(begun.elapsed())
    }
}

/// The client's own copying: a file or a directory, whole, to a path that does not exist yet.
pub(crate) struct Copier(Client);

/// The copier of a client.
pub(crate) fn copier(client: &Client) -> Copier {
    Copier(client.clone())
}

impl Copier {
    /// From here to there.
    pub(crate) async fn up(&self, from: &Path, to: &Path) -> Outcome<()> {
        self.copy(here(from, Access::ReadOnly)?, self.there(to)?)
            .await
    }

    /// From there to here.
    pub(crate) async fn down(&self, from: &Path, to: &Path) -> Outcome<()> {
        self.copy(self.there(from)?, here(to, Access::ReadWrite)?)
            .await
    }

    fn there(&self, path: &Path) -> Outcome<Side> {
        Ok(Side::Vm {
            ssh: self.0.ssh.clone(),
            vm: self.0.vm,
            path: path.to_str().ok_or("not UTF-8")?.to_owned(),
        })
    }

    async fn copy(&self, from: Side, to: Side) -> Outcome<()> {
        let (progress, _) = watch::channel(Progress::default());
        let never = CancellationToken::new();
        transfer::copy(from, to, transfer::Options::default(), progress, never).await?;
        Ok(())
    }
}

fn here(path: &Path, access: Access) -> Outcome<Side> {
    let directory = path.parent().ok_or("no directory")?;
    let name = path.file_name().and_then(std::ffi::OsStr::to_str);
    Ok(Side::Local {
        root: Root::open(directory, access)?,
        path: name.ok_or("not UTF-8")?.to_owned(),
    })
}

/// A session of `vers-vm`, with the VM active.
pub(crate) struct Tools {
    pub(crate) session: Session,
}

impl Tools {
    /// Opens it, with its state below `directory`.
    pub(crate) async fn open(
        places: &Places,
        edge: SocketAddr,
        wasm: &[u8],
        directory: &Path,
    ) -> Outcome<Self> {
        let grants = include_str!("../../../host/cli/policy/shipped.toml")
            .split("\n[extension.")
            .find_map(|section| section.strip_prefix("vers-vm]"))
            .ok_or("the shipped grants have no section of vers-vm")?
            .replace("\"@vers-vm\"", &format!("\"{}\"", Digest::of(wasm)));
        let grants = format!("[extension.vers-vm]{grants}");
        let host = Host::builder()
            .cache(directory.join("cache"))
            .state(directory.join("state"))
            .platform(places.settings(edge)?)
            .policy(Policy::parse(&grants, "the shipped grants")?)
            .build()?;
        let extension = host.load("vers-vm", wasm.to_vec()).await?;
        let session = host.session(Arc::new(Headless::new(directory)), vec![extension])?;
        let tools = Self { session };
        let mut using = tools
            .session
            .call("vers_vm_use", json!({ "vmId": places.vm }));
        using.outcome().await?;
        Ok(tools)
    }

    /// The tool `bash`.
    pub(crate) async fn run(&self, script: &str) -> Outcome<Duration> {
        let begun = Instant::now();
        let mut call = self.session.call("bash", json!({ "command": script }));
        call.outcome().await?;
        Ok(begun.elapsed())
    }
}

/// The component `vers-vm`, built if it has to be.
pub(crate) fn component() -> Outcome<Vec<u8>> {
    let extensions = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../extensions"));
    let program = std::env::current_exe()?;
    // <target>/release/<program>; where the build of the binary puts its guests as well.
    let target = match std::env::var_os("PI_VERS_GUESTS_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => program
            .ancestors()
            .nth(2)
            .ok_or("no target directory")?
            .join("guests"),
    };
    let mut build = Process::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--target",
            "wasm32-wasip2",
        ])
        .args(["-p", "vers-vm", "--target-dir"])
        .arg(&target)
        .current_dir(extensions)
        .env_remove("CARGO_TARGET_DIR");
    if !build.status()?.success() {
        return Err("the extension vers-vm does not build".into());
    }
    Ok(std::fs::read(
        target.join("wasm32-wasip2/release/vers_vm.wasm"),
    )?)
}
