//! `pi-vers ssh-proxy` and `pi-vers ssh-config`: OpenSSH's own client on the way that the platform has.
//!
//! A VM's SSH server is reached inside TLS, which `ssh` does not speak: a ProxyCommand does it, and verifies the certificate.
//! The host key that this program has pinned is given to `ssh` in a file that holds nothing else, under a name that
//! nothing else has, so that both refuse the same impostor. The VM's key has to be in a file for `ssh`: it lies in a
//! directory of the user's own.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::io::{AsyncWriteExt as _, copy, split, stdin, stdout};
use vers_client::{Api, Settings, Ssh, SshOptions, VmId};

use crate::args::{SshConfig, SshProxy};
use crate::failure::{Code, Failure};
use crate::local::{self, Local};
use crate::terminal::Terminal;
use crate::{dirs, setup};

/// A platform, and the way into its VMs.
pub(crate) struct Platform {
    pub(crate) api: Api,
    pub(crate) ssh: Ssh,
    /// Its directory, if it is this machine's.
    local: Option<PathBuf>,
}

impl Platform {
    /// The one that the options name.
    pub(crate) async fn of(local: bool, state: Option<&Path>) -> Result<Self, Failure> {
        let (settings, local): (Settings, _) = if local {
            let directory = dirs::local(state)?;
            let settings = Local::running(&directory).await?.settings()?;
            (settings, Some(directory))
        } else {
            (setup::settings()?, None)
        };
        let api = Api::new(settings)?;
        let options = SshOptions {
            // The host's.
            known_hosts: Some(dirs::state()?.join("known-hosts.json")),
            ..SshOptions::default()
        };
        let ssh = Ssh::new(api.clone(), options)?;
        Ok(Self { api, ssh, local })
    }
}

/// Copies both ways until the VM's side ends. The end of the input is passed on, and what still comes is written.
pub(crate) async fn proxy(options: SshProxy) -> Result<Code, Failure> {
    let platform = Platform::of(options.local, options.state.as_deref()).await?;
    let (mut from, mut to) = split(platform.ssh.edge(VmId(options.vm)).await?);
    let up = async {
        copy(&mut stdin(), &mut to).await?;
        to.shutdown().await
    };
    let down = async {
        let mut out = stdout();
        copy(&mut from, &mut out).await?;
        out.flush().await
    };
    tokio::pin!(down);
    let copied = tokio::select! {
        done = &mut down => done,
        sent = up => match sent {
            Ok(()) => down.await,
            Err(why) => Err(why),
        },
    };
    match copied {
        Ok(()) => Ok(Code::Ok),
        // `ssh` has gone: it says itself why.
        Err(why) if why.kind() == std::io::ErrorKind::BrokenPipe => Ok(Code::Ok),
        Err(why) => Err(Failure::new(
            Code::Platform,
            "unavailable",
            format!("the connection to VM {} was lost: {why}", options.vm),
        )),
    }
}

/// Writes the files and prints the arguments.
pub(crate) async fn config(terminal: &Terminal, options: SshConfig) -> Result<Code, Failure> {
    let platform = Platform::of(options.local, options.state.as_deref()).await?;
    let vm = platform.api.resolve(&options.vm).await?;
    let arguments = platform.arguments(vm).await?;
    platform.ssh.disconnect(vm).await;
    terminal.line(json!(arguments).to_string());
    Ok(Code::Ok)
}

impl Platform {
    /// Where `ssh` finds what it needs for a VM.
    fn directory(vm: VmId) -> Result<PathBuf, Failure> {
        dirs::private(dirs::state()?.join("ssh").join(vm.to_string()))
    }

    /// Puts the VM's key in its file.
    pub(crate) async fn key_file(&self, vm: VmId) -> Result<PathBuf, Failure> {
        let key = self.api.ssh_key(vm).await?;
        let mut key = key.private_key.expose().to_owned();
        // OpenSSH does not read a key whose last line has no end.
        if !key.ends_with('\n') {
            key.push('\n');
        }
        let file = Self::directory(vm)?.join("key");
        write(&file, &key)?;
        Ok(file)
    }

    /// What `ssh` is given before the command; the files it names are written.
    pub(crate) async fn arguments(&self, vm: VmId) -> Result<Vec<String>, Failure> {
        let key_file = self.key_file(vm).await?;
        let host_key = self.ssh.host_key(vm).await?;
        let alias = format!("vers-{vm}");
        let hosts_file = Self::directory(vm)?.join("known_hosts");
        write(&hosts_file, &format!("{alias} {host_key}\n"))?;
        let program = std::env::current_exe().map_err(|why| {
            Failure::internal(format!("cannot find this program's own file: {why}"))
        })?;
        let mut proxy = format!("{} ssh-proxy {vm}", local::quoted(text(&program)?.as_ref()));
        if let Some(state) = &self.local {
            let state = local::quoted(text(state)?.as_ref());
            proxy = format!("{proxy} --local --state {state}");
        }
        let options = [
            format!("ProxyCommand={}", literal(&proxy)),
            format!("UserKnownHostsFile={}", word(&hosts_file)?),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            format!("HostKeyAlias={alias}"),
            "StrictHostKeyChecking=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
        ];
        let mut arguments: Vec<String> = options
            .into_iter()
            .flat_map(|option| ["-o".to_owned(), option])
            .collect();
        let host = self.api.settings().vm_host(vm);
        arguments.extend([
            "-i".to_owned(),
            literal(text(&key_file)?),
            format!("root@{host}"),
        ]);
        Ok(arguments)
    }
}

/// Puts a file of mode 0600 in place, whole.
fn write(path: &Path, content: &str) -> Result<(), Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::internal(format!("cannot write {}: {why}", path.display()))
    };
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(|why| failed(&why))?;
    file.write_all(content.as_bytes())
        .map_err(|why| failed(&why))?;
    file.persist(path).map_err(|why| failed(&why.error))?;
    Ok(())
}

fn text(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| {
        Failure::internal(format!(
            "{} is no UTF-8, which `ssh` is told in",
            path.display()
        ))
        .next("choose another directory with XDG_STATE_HOME")
    })
}

/// `ssh` takes what follows a `%` for something else.
fn literal(text: &str) -> String {
    text.replace('%', "%%")
}

/// A path as one word of a configuration line.
fn word(path: &Path) -> Result<String, Failure> {
    let text = text(path)?;
    if text.contains(['"', '\\', '\n', '$']) {
        let why = format!("`ssh` cannot be told of the directory {text}");
        return Err(Failure::internal(why).next("choose another with XDG_STATE_HOME"));
    }
    let text = literal(text);
    Ok(if text.contains([' ', '\t', '\'', '#', '=']) {
        format!("\"{text}\"")
    } else {
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_reach_ssh_as_they_are() {
        assert_eq!(word(Path::new("/a/b.c")).unwrap(), "/a/b.c");
        assert_eq!(word(Path::new("/a b/c%d")).unwrap(), "\"/a b/c%%d\"");
        assert!(word(Path::new("/a\"b")).is_err());
        assert!(word(Path::new("/$HOME")).is_err());
    }
}
