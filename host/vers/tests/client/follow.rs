//! Following files that grow, are replaced and become shorter.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::lab::{Lab, eventually, marked};
use vers_client::ssh::{Follow, Followed, Position};
use vers_client::{Command, Error, Kind};

/// No step of these tests takes so long, on a busy machine either.
const DEADLINE: Duration = Duration::from_secs(30);

fn append(path: &Path, data: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(data.as_ref()).unwrap();
}

async fn next(follow: &mut Follow) -> Result<Followed, Error> {
    tokio::time::timeout(DEADLINE, follow.next())
        .await
        .expect("nothing came")
        .expect("the follow has ended")
}

fn line(offset: u64, next: u64, text: &str) -> Followed {
    Followed::Line {
        offset,
        next,
        text: text.into(),
        left_out: 0,
    }
}

async fn expect(follow: &mut Follow, all: &[Followed]) {
    for followed in all {
        assert_eq!(&next(follow).await.unwrap(), followed);
    }
}

/// Everything that runs on the lab's VM has this in its environment.
fn of_vm(lab: &Lab) -> String {
    format!("HOME={}", lab.dir.path().join("home").display())
}

#[tokio::test]
async fn lines_arrive_when_they_are_whole() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let path = lab.dir.path().join("it's a \"log\" $(x)\n.txt");
    // It does not exist yet.
    let mut follow = ssh.follow(lab.vm, path.to_str().unwrap(), Position::End);
    tokio::time::sleep(Duration::from_millis(300)).await;
    append(&path, "one\ntw");
    expect(&mut follow, &[line(0, 4, "one")]).await;
    let euro = "\u{20ac}".as_bytes();
    append(&path, [b"o ", &euro[..1]].concat());
    tokio::time::sleep(Duration::from_millis(100)).await;
    append(&path, [&euro[1..], b"\r\n\n\xff!\n"].concat());
    expect(
        &mut follow,
        &[
            line(4, 13, "two \u{20ac}"),
            line(13, 14, ""),
            line(14, 17, "\u{fffd}!"),
        ],
    )
    .await;
    // Others begin where they are told to; without an end is without a line.
    append(&path, "rest");
    let mut other = ssh.follow(lab.vm, path.to_str().unwrap(), Position::Offset(13));
    expect(&mut other, &[line(13, 14, ""), line(14, 17, "\u{fffd}!")]).await;
    let mut end = ssh.follow(lab.vm, path.to_str().unwrap(), Position::End);
    // It has begun when it says something; what it says of is known then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    append(&path, "\nlast\n");
    expect(&mut other, &[line(17, 22, "rest"), line(22, 27, "last")]).await;
    expect(&mut end, &[line(21, 22, ""), line(22, 27, "last")]).await;
    let mut beyond = ssh.follow(lab.vm, path.to_str().unwrap(), Position::Offset(1000));
    expect(&mut beyond, &[Followed::Truncated, line(0, 4, "one")]).await;
}

#[tokio::test]
async fn a_line_without_bound_is_bounded() {
    let lab = Lab::start().await;
    let path = lab.dir.path().join("log");
    let mut follow = lab
        .ssh()
        .follow(lab.vm, path.to_str().unwrap(), Position::Offset(0));
    let long = "\u{20ac}".repeat(3 << 20);
    append(&path, &long);
    append(&path, "\nshort\n");
    let Followed::Line {
        offset,
        next: after,
        text,
        left_out,
    } = next(&mut follow).await.unwrap()
    else {
        panic!("no line")
    };
    assert_eq!((offset, after), (0, (9 << 20) + 1));
    assert!(long.starts_with(&text) && text.len() > (1 << 20) - 4 && text.len() <= 1 << 20);
    assert_eq!(text.len() as u64 + left_out, 9 << 20);
    expect(&mut follow, &[line(after, after + 6, "short")]).await;
}

#[tokio::test]
async fn replaced_and_truncated_files_are_told_of() {
    let lab = Lab::start().await;
    let dir = lab.dir.path();
    let path = dir.join("log");
    append(&path, "a\nunfinished");
    let mut follow = lab
        .ssh()
        .follow(lab.vm, path.to_str().unwrap(), Position::Offset(0));
    expect(&mut follow, &[line(0, 2, "a")]).await;
    // Moved away, and made anew.
    std::fs::rename(&path, dir.join("log.1")).unwrap();
    append(&dir.join("log.1"), " more");
    append(&path, "b\n");
    let replaced = Followed::Replaced;
    expect(
        &mut follow,
        &[
            line(2, 17, "unfinished more"),
            replaced.clone(),
            line(0, 2, "b"),
        ],
    )
    .await;
    // Replaced at one stroke, by something of the same length.
    std::fs::write(dir.join("new"), "c\n").unwrap();
    std::fs::rename(dir.join("new"), &path).unwrap();
    expect(&mut follow, &[replaced.clone(), line(0, 2, "c")]).await;
    // Removed and made again: the same number, another file.
    std::fs::remove_file(&path).unwrap();
    append(&path, "d\ndd\n");
    expect(&mut follow, &[replaced, line(0, 2, "d"), line(2, 5, "dd")]).await;
    // Copied and truncated. A line that was never ended is dropped.
    append(&path, "never ended");
    tokio::time::sleep(Duration::from_millis(200)).await;
    std::fs::write(&path, "e\n").unwrap();
    expect(&mut follow, &[Followed::Truncated, line(0, 2, "e")]).await;
    append(&path, "f\n");
    expect(&mut follow, &[line(2, 4, "f")]).await;
}

#[tokio::test]
async fn what_happens_during_a_cut_is_told_right() {
    let lab = Lab::start().await;
    let dir = lab.dir.path();
    let path = dir.join("log");
    append(&path, "a\nbeginning");
    let mut follow = lab
        .ssh()
        .follow(lab.vm, path.to_str().unwrap(), Position::Offset(0));
    expect(&mut follow, &[line(0, 2, "a")]).await;
    let gone = |lab: &Lab| {
        lab.cut();
        let mark = of_vm(lab);
        async move { eventually("the VM's end is gone", || marked(&mark).is_empty()).await }
    };
    // Nobody can come back before the door is opened again.
    lab.close();
    gone(&lab).await;
    append(&path, ", end\nb\nunfinished");
    std::fs::rename(&path, dir.join("log.1")).unwrap();
    append(&path, "c\n");
    lab.open();
    expect(
        &mut follow,
        &[
            line(2, 17, "beginning, end"),
            line(17, 19, "b"),
            line(19, 29, "unfinished"),
            Followed::Replaced,
            line(0, 2, "c"),
        ],
    )
    .await;
    // Truncated, and grown beyond the place.
    lab.close();
    gone(&lab).await;
    std::fs::write(&path, "other\nand more\n").unwrap();
    lab.open();
    expect(
        &mut follow,
        &[
            Followed::Truncated,
            line(0, 6, "other"),
            line(6, 15, "and more"),
        ],
    )
    .await;
    // Replaced, and the old one is gone: what it held is not known, and that is said.
    lab.close();
    gone(&lab).await;
    std::fs::write(dir.join("new"), "third\n").unwrap();
    std::fs::rename(dir.join("new"), &path).unwrap();
    lab.open();
    let error = next(&mut follow).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Other, "{error}");
    assert!(error.to_string().contains("replaced"), "{error}");
    assert!(follow.next().await.is_none());
}

#[tokio::test]
async fn a_follow_that_nobody_reads_stops_nobody_and_loses_nothing() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let path = lab.dir.path().join("log");
    let text = "x".repeat(999);
    let count = 20_000;
    append(&path, format!("{text}\n").repeat(count));
    let mut follow = ssh.follow(lab.vm, path.to_str().unwrap(), Position::Offset(0));
    expect(&mut follow, &[line(0, 1000, &text)]).await;
    for _ in 0..5 {
        tokio::time::timeout(DEADLINE, async {
            let child = ssh.spawn(lab.vm, Command::argv(["true"])).await.unwrap();
            child.wait().await.unwrap();
        })
        .await
        .expect("a command beside it");
    }
    for number in 1..count as u64 {
        assert_eq!(
            next(&mut follow).await.unwrap(),
            line(number * 1000, (number + 1) * 1000, &text)
        );
    }
}

#[tokio::test]
async fn a_follow_leaves_nothing_behind() {
    let lab = Lab::start().await;
    let path = lab.dir.path().join("log");
    append(&path, "a\n");
    let ssh = lab.ssh();
    ssh.connect(lab.vm, DEADLINE).await.unwrap();
    // What is there in any case: the connection's control shell.
    let ready = ssh.spawn(lab.vm, Command::argv(["true"])).await.unwrap();
    ready.wait().await.unwrap();
    let before = 1;
    eventually("only the control shell runs", || {
        marked(&of_vm(&lab)).len() == before
    })
    .await;
    let mut follow = ssh.follow(lab.vm, path.to_str().unwrap(), Position::Offset(0));
    expect(&mut follow, &[line(0, 2, "a")]).await;
    assert!(marked(&of_vm(&lab)).len() > before);
    drop(follow);
    eventually("its processes are gone", || {
        marked(&of_vm(&lab)).len() == before
    })
    .await;
    // One that has not begun.
    drop(ssh.follow(lab.vm, "/nothing", Position::End));
    // And one of which the connection is taken.
    let mut follow = ssh.follow(lab.vm, path.to_str().unwrap(), Position::Offset(0));
    expect(&mut follow, &[line(0, 2, "a")]).await;
    ssh.disconnect(lab.vm).await;
    assert_eq!(next(&mut follow).await.unwrap_err().kind(), Kind::Cancelled);
    eventually("everything is gone", || marked(&of_vm(&lab)).is_empty()).await;
}

#[tokio::test]
async fn a_follow_that_cannot_go_on_fails() {
    let lab = Lab::start().await;
    let ssh = lab.ssh();
    let mut follow = ssh.follow(lab.vm, "/", Position::End);
    let error = next(&mut follow).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    let mut follow = ssh.follow(lab.vm, "/a\0b", Position::End);
    let error = next(&mut follow).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    let path = lab.dir.path().join("log");
    append(&path, "a\n");
    let mut follow = ssh.follow(lab.vm, path.to_str().unwrap(), Position::Offset(0));
    expect(&mut follow, &[line(0, 2, "a")]).await;
    lab.platform().state = "paused";
    lab.close();
    lab.cut();
    let error = next(&mut follow).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert!(error.to_string().contains("follow") && error.to_string().contains("resume"));
}
