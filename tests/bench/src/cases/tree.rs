//! Two thousand small files in each direction.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::{Rng as _, RngCore as _};

use super::{Context, plain};
use crate::Outcome;
use crate::original::{End, Route, pipe, run};
use crate::ours::{Client, copier};
use crate::report::{Bar, Unit, ratio, table};
use crate::rounds::{self, Method};

const SCP: &str = "`scp -r`";
const SCP_MASTER: &str = "`scp -r` over a master";
const RSYNC: &str = "`rsync -a`";
const RSYNC_MASTER: &str = "`rsync -a` over a master";
const TAR: &str = "`tar`";
const TAR_MASTER: &str = "`tar` over a master";
const COPY: &str = "ours, copy";

const DIRECTORIES: usize = 50;
const FILES: usize = 40;

fn grow(root: &Path) -> Outcome<()> {
    let mut random = rand::rng();
    for directory in 0..DIRECTORIES {
        let directory = root.join(format!("d{directory:02}"));
        std::fs::create_dir_all(&directory)?;
        for file in 0..FILES {
            let mut content = vec![0; random.random_range(3 << 10..5 << 10)];
            random.fill_bytes(&mut content);
            std::fs::write(directory.join(format!("f{file:02}")), content)?;
        }
    }
    Ok(())
}

fn content(root: &Path) -> Outcome<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let content = std::fs::read(&path)?;
                found.insert(path.strip_prefix(root)?.to_owned(), content);
            }
        }
    }
    Ok(found)
}

fn here(directory: &Path, arguments: &[&str]) -> tokio::process::Command {
    let mut tar = tokio::process::Command::new("tar");
    tar.arg("-C")
        .arg(directory)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped());
    tar
}

async fn tar(route: &Route, up: bool, from: &Path, to: &Path) -> Outcome<Duration> {
    if up {
        let there = format!("mkdir {0} && tar -C {0} -xf -", plain(to));
        pipe(here(from, &["-cf", "-", "."]), route.ssh(&there)).await
    } else {
        std::fs::create_dir(to)?;
        let there = format!("tar -C {} -cf - .", plain(from));
        pipe(route.ssh(&there), here(to, &["-xf", "-"])).await
    }
}

/// See the module.
pub(crate) async fn trees(context: &Context) -> Outcome<Vec<Bar>> {
    let places = &context.lab.places;
    let (ssh, master) = &context.routes(places.near).await?;
    let client = &Client::connect(places, places.near).await?;
    let copier = &copier(client);
    let sources = [context.here.join("tree"), places.home.join("tree")];
    sources.iter().try_for_each(|root| grow(root))?;
    let mut bars = Vec::new();
    for up in [true, false] {
        let (from, to) = &if up {
            (sources[0].clone(), places.home.join("tree-there"))
        } else {
            (sources[1].clone(), context.here.join("tree-back"))
        };
        let ends = &if up {
            (End::Here(from.clone()), End::There(to.clone()))
        } else {
            (End::There(from.clone()), End::Here(to.clone()))
        };
        let wanted = content(from)?;
        let whole = |took: Outcome<Duration>| {
            let found = content(to);
            let _ = std::fs::remove_dir_all(to);
            let took = took?;
            if found? == wanted {
                Ok(took)
            } else {
                Err("the copy differs".into())
            }
        };
        let whole = &whole;
        let mut methods = vec![
            Method::new(SCP, || async {
                whole(run(ssh.scp(&ends.0, &ends.1)).await)
            }),
            Method::new(SCP_MASTER, || async {
                whole(run(master.route.scp(&ends.0, &ends.1)).await)
            }),
            Method::new(TAR, || async { whole(tar(ssh, up, from, to).await) }),
            Method::new(TAR_MASTER, || async {
                whole(tar(&master.route, up, from, to).await)
            })
            .times(3),
        ];
        if context.rsync {
            methods.push(Method::new(RSYNC, || async {
                whole(run(ssh.rsync(&ends.0, &ends.1)).await)
            }));
            methods.push(
                Method::new(RSYNC_MASTER, || async {
                    whole(run(master.route.rsync(&ends.0, &ends.1)).await)
                })
                .times(3),
            );
        }
        methods.push(
            Method::new(COPY, move || async move {
                let begun = Instant::now();
                let copied = if up {
                    copier.up(from, to).await
                } else {
                    copier.down(from, to).await
                };
                let took = begun.elapsed();
                whole(copied.map(|()| took))
            })
            .times(3),
        );
        let results = rounds::run(context, "tree", context.rounds(5, 1), methods).await;
        let direction = if up { "to" } else { "from" };
        let title = format!("2,000 files of 3 to 5 KiB {direction} the VM");
        table(
            &title,
            Unit::Time,
            &results,
            &[SCP, RSYNC_MASTER, TAR_MASTER],
        );
        for (other, bar) in [(SCP, 30.0), (RSYNC_MASTER, 1.0), (TAR_MASTER, 1.0)] {
            bars.push(Bar::new(
                &format!("2,000 files {direction} the VM ≥ {bar} × {other}"),
                ratio(&results, COPY, other),
                |r| r >= bar,
            ));
        }
    }
    for source in &sources {
        let _ = std::fs::remove_dir_all(source);
    }
    Ok(bars)
}
