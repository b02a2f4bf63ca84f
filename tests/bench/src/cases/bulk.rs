//! Bulk: a stream in each direction, and a file.

use std::io::{Read as _, Write as _};
use std::path::Path;

use bytes::Bytes;
use rand::RngCore as _;

use super::{Context, plain};
use crate::Outcome;
use crate::bare::Bare;
use crate::original::{End, drain, feed, run};
use crate::ours::{Client, copier};
use crate::report::{Bar, Unit, ratio, table};
use crate::rounds::{self, Method};

const SSH: &str = "`ssh`, a connection each";
const MASTER: &str = "`ssh` over a master";
const SCP: &str = "`scp`";
const SCP_MASTER: &str = "`scp` over a master";
const COMMAND: &str = "ours, a command's stream";
const FILES: &str = "ours, `files`";
const COPY: &str = "ours, copy";
const BARE: &str = "bare channel";

/// What is handed over at once.
const CHUNK: usize = 256 << 10;
/// A chunk's worth of noise, over and over: nothing on the way compresses.
fn noise() -> Bytes {
    let mut chunk = vec![0; CHUNK];
    rand::rng().fill_bytes(&mut chunk);
    chunk.into()
}

fn fill(path: &Path, chunk: &[u8], bytes: u64) -> Outcome<()> {
    let mut file = std::fs::File::create(path)?;
    let mut left = bytes;
    while left > 0 {
        let part = chunk.get(..usize::try_from(left)?).unwrap_or(chunk);
        file.write_all(part)?;
        left -= part.len() as u64;
    }
    Ok(())
}

/// A stream in each direction. The file on the VM is in memory as a rule; the client makes up and drops what passes.
pub(crate) async fn streams(context: &Context) -> Outcome<Vec<Bar>> {
    let places = &context.lab.places;
    let bytes: u64 = if context.quick { 64 << 20 } else { 256 << 20 };
    let rounds = context.rounds(6, 2);
    let (ssh, master) = context.routes(places.near).await?;
    let client = &Client::connect(places, places.near).await?;
    let bare = &Bare::connect(places, places.near).await?;
    let chunk = &noise();
    let (source, sink) = (&places.home.join("source"), &places.home.join("sink"));
    fill(source, chunk, bytes)?;

    let cat = format!("cat {}", plain(source));
    let methods = vec![
        Method::new(SSH, || drain(ssh.ssh(&cat), bytes)),
        Method::new(MASTER, || drain(master.route.ssh(&cat), bytes)),
        Method::new(COMMAND, || client.drain(&cat, bytes)),
        Method::new(FILES, || client.read(source, bytes)),
        Method::new(BARE, || bare.drain(&cat, bytes)),
    ];
    let down = rounds::run(context, "down", rounds, methods).await;
    let title = format!("{} MiB from the VM", bytes >> 20);
    table(&title, Unit::Rate(bytes), &down, &[SSH, BARE]);
    std::fs::remove_file(source)?;

    let take = format!("cat > {}", plain(sink));
    let whole = async |took: Outcome<_>| {
        let size = std::fs::metadata(sink)?.len();
        std::fs::remove_file(sink)?;
        if size == bytes {
            took
        } else {
            Err(format!("{size} of {bytes} bytes arrived").into())
        }
    };
    let whole = &whole;
    let methods = vec![
        Method::new(SSH, || async {
            whole(feed(ssh.ssh(&take), chunk, bytes).await).await
        }),
        Method::new(MASTER, || async {
            whole(feed(master.route.ssh(&take), chunk, bytes).await).await
        }),
        Method::new(COMMAND, || async {
            whole(client.feed(&take, chunk, bytes).await).await
        }),
        Method::new(FILES, || async {
            whole(client.write(sink, chunk, bytes).await).await
        }),
        Method::new(BARE, || async {
            whole(bare.feed(&take, chunk, bytes).await).await
        }),
    ];
    let up = rounds::run(context, "up", rounds, methods).await;
    let title = format!("{} MiB to the VM", bytes >> 20);
    table(&title, Unit::Rate(bytes), &up, &[SSH, BARE]);

    let mut bars = Vec::new();
    for (direction, results) in [("from the VM", &down), ("to the VM", &up)] {
        for ours in [COMMAND, FILES] {
            bars.push(Bar::new(
                &format!("bulk {direction}, {ours}: ≥ 2.2 × `ssh`"),
                ratio(results, ours, SSH),
                |r| r >= 2.2,
            ));
            bars.push(Bar::new(
                &format!("bulk {direction}, {ours}: ≥ 0.9 × a bare channel"),
                ratio(results, ours, BARE),
                |r| r >= 0.9,
            ));
        }
    }
    Ok(bars)
}

/// A large file, disk to disk, compared afterwards byte by byte.
pub(crate) async fn file(context: &Context) -> Outcome<Vec<Bar>> {
    let places = &context.lab.places;
    let bytes: u64 = if context.quick {
        100_000_000
    } else {
        500_000_000
    };
    let rounds = context.rounds(3, 1);
    let (ssh, master) = context.routes(places.near).await?;
    let client = &Client::connect(places, places.near).await?;
    let copier = &copier(client);
    let here = [context.here.join("file"), context.here.join("file-back")];
    let there = [places.home.join("file"), places.home.join("file-there")];
    fill(&here[0], &noise(), bytes)?;
    std::fs::copy(&here[0], &there[0])?;

    for up in [true, false] {
        let (from, to) = if up {
            (&here[0], &there[1])
        } else {
            (&there[0], &here[1])
        };
        let ends = &if up {
            (End::Here(from.clone()), End::There(to.clone()))
        } else {
            (End::There(from.clone()), End::Here(to.clone()))
        };
        let same = |took| {
            let same = same(from, to)?;
            std::fs::remove_file(to)?;
            if same {
                Ok(took)
            } else {
                Err("the copy differs".into())
            }
        };
        let same = &same;
        let mut methods = vec![
            Method::new(SCP, || async {
                same(run(ssh.scp(&ends.0, &ends.1)).await?)
            }),
            Method::new(SCP_MASTER, || async {
                same(run(master.route.scp(&ends.0, &ends.1)).await?)
            }),
            Method::new(FILES, || async {
                same(if up {
                    client.upload(from, to).await?
                } else {
                    client.download(from, to).await?
                })
            }),
        ];
        methods.push(Method::new(COPY, move || async move {
            let begun = std::time::Instant::now();
            if up {
                copier.up(from, to).await?;
            } else {
                copier.down(from, to).await?;
            }
            same(begun.elapsed())
        }));
        let direction = if up { "to" } else { "from" };
        let results = rounds::run(context, "file", rounds, methods).await;
        let title = format!("A file of {} MB {direction} the VM", bytes / 1_000_000);
        table(&title, Unit::Rate(bytes), &results, &[SCP, SCP_MASTER]);
    }
    for file in here.iter().chain(&there) {
        let _ = std::fs::remove_file(file);
    }
    Ok(Vec::new())
}

/// Whether two files hold the same bytes.
fn same(one: &Path, other: &Path) -> Outcome<bool> {
    let (mut one, mut other) = (std::fs::File::open(one)?, std::fs::File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        let right = right.get_mut(..count).unwrap_or_default();
        other.read_exact(right)?;
        if left.get(..count) != Some(&*right) {
            return Ok(false);
        }
    }
}
