//! The SSH server inside.

use crate::client::{Client, DEADLINE, finish};
use crate::vm::{Platform, eventually};
use russh::{ChannelMsg, Pty, Sig};
use russh_sftp::client::SftpSession;
use russh_sftp::protocol::OpenFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vers_local::internal::{Error, Service};

#[tokio::test]
async fn commands_end_as_they_ended() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    let done = c.run("echo out; echo err >&2; exit 7").await;
    assert_eq!(
        (done.out.as_slice(), done.err.as_slice(), done.status),
        (&b"out\n"[..], &b"err\n"[..], Some(7))
    );
    let killed = c.run("kill -9 $$").await;
    assert_eq!(
        (killed.status, killed.signal.as_deref()),
        (None, Some("KILL"))
    );
    // Bytes that are no UTF-8 arrive in the command.
    let odd = c.run(b"printf %s '\xff\xfe' | od -An -tx1".to_vec()).await;
    assert_eq!(odd.text().trim(), "ff fe");
    // Each command leads a session and a process group of its own.
    assert_eq!(
        c.text(
            "set -- $(cut -d' ' -f5,6 /proc/$$/stat); test $1 = $$ && test $2 = $$ && echo leader"
        )
        .await,
        "leader"
    );
    // Any variable is taken.
    let channel = c.0.channel_open_session().await.unwrap();
    channel
        .set_env(true, "ANY_NAME", "any value")
        .await
        .unwrap();
    channel.exec(true, "echo $ANY_NAME").await.unwrap();
    assert_eq!(finish(channel).await.text(), "any value");
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn only_the_vms_key_opens_it() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let other = p.vm(&[]).await;
    let stream = p.sandboxes.dial(&vm.handle, Service::Ssh).await.unwrap();
    assert!(
        Client::connect(stream, p.host_key.public_key(), &other.key)
            .await
            .is_none()
    );
    let c = p.connect(&vm).await;
    tokio::time::timeout(DEADLINE, c.0.send_ping())
        .await
        .unwrap()
        .expect("keepalive");
    assert!(!c.0.is_closed());
    p.delete(vm).await;
    p.delete(other).await;
    p.end().await;
}

#[tokio::test]
async fn large_data_flows_both_ways() {
    const SIZE: usize = 50 << 20;
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    let mut channel = c.start("cat").await;
    let data: Vec<u8> = (0..SIZE as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8)
        .collect();
    let writer = channel.make_writer();
    let send = {
        let data = data.clone();
        async move {
            let mut writer = writer;
            writer.write_all(&data).await.unwrap();
            writer.shutdown().await.unwrap();
        }
    };
    let receive = async {
        let mut got = Vec::with_capacity(SIZE);
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => got.extend_from_slice(&data),
                ChannelMsg::Close => break,
                _ => {}
            }
        }
        got
    };
    let ((), got) = tokio::time::timeout(DEADLINE, async { tokio::join!(send, receive) })
        .await
        .unwrap();
    assert_eq!(got.len(), SIZE);
    assert!(got == data);
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn a_program_that_does_not_read_stalls_nobody_else() {
    const SIZE: usize = 24 << 20;
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    // It reads only when it is told to.
    let slow = c
        .start("until test -e /tmp/go; do sleep 0.02; done; cat | cksum")
        .await;
    let data = vec![7u8; SIZE];
    tokio::time::timeout(DEADLINE, slow.data(&data[..]))
        .await
        .expect("input is taken")
        .unwrap();
    slow.eof().await.unwrap();
    for i in 0..20 {
        assert_eq!(c.text(&format!("echo {i}")).await, i.to_string());
    }
    c.text("touch /tmp/go").await;
    let sum = finish(slow).await.text();
    assert_eq!(
        sum,
        c.text(&format!(
            "head -c {SIZE} /dev/zero | tr '\\0' '\\007' | cksum"
        ))
        .await
    );
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn a_hundred_channels_at_once() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    // All of them run at the same time: each waits for the last one.
    let commands = (0..100).map(|i| {
        let c = &c;
        async move {
            let command = format!("touch /tmp/c{i}; while [ $(ls /tmp | grep -c ^c) -lt 100 ]; do sleep 0.2; done; head -c 100000 /dev/zero; exit {i}");
            let done = c.run(command).await;
            (done.status, done.out.len())
        }
    });
    for (i, done) in futures::future::join_all(commands)
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(done, (Some(u32::try_from(i).unwrap()), 100_000));
    }
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    let mut channel = c
        .start("trap '' INT; sleep 1000 & sleep 1000 & echo ready; wait")
        .await;
    loop {
        match tokio::time::timeout(DEADLINE, channel.wait())
            .await
            .unwrap()
        {
            Some(ChannelMsg::Data { .. }) => break,
            Some(_) => {}
            None => panic!("closed"),
        }
    }
    channel.signal(Sig::INT).await.unwrap();
    assert_eq!(c.text("pgrep -c sleep").await, "2");
    channel.signal(Sig::TERM).await.unwrap();
    let done = finish(channel).await;
    assert_eq!(done.signal.as_deref(), Some("TERM"));
    eventually("the group is gone", || async {
        c.run("pgrep sleep").await.status == Some(1)
    })
    .await;
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn the_status_does_not_wait_for_a_child_in_the_background() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    let mut channel = c
        .start("(until test -e /tmp/go; do sleep 0.02; done; echo late) & exit 3")
        .await;
    let status = async {
        loop {
            match channel.wait().await {
                Some(ChannelMsg::ExitStatus { exit_status }) => break exit_status,
                Some(ChannelMsg::Close) | None => panic!("closed too early"),
                Some(_) => {}
            }
        }
    };
    assert_eq!(tokio::time::timeout(DEADLINE, status).await.unwrap(), 3);
    c.text("touch /tmp/go").await;
    let rest = finish(channel).await;
    assert_eq!(rest.out, b"late\n");
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn commands_run_on_when_their_channel_or_connection_is_gone() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    let channel = c.start("sleep 0.3; echo a > /tmp/closed").await;
    channel.close().await.unwrap();
    let lost = p.connect(&vm).await;
    let channel = lost.start("sleep 0.3; echo b > /tmp/lost").await;
    drop((channel, lost));
    // What was sent before the close is still delivered.
    let told = c.start("cat > /tmp/told").await;
    told.data(&b"all of it"[..]).await.unwrap();
    told.close().await.unwrap();
    for (file, text) in [("closed", "a"), ("lost", "b"), ("told", "all of it")] {
        eventually(file, || async {
            c.run(format!("cat /tmp/{file}")).await.text() == text
        })
        .await;
    }
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn a_terminal_is_a_terminal() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    let mut channel = c.0.channel_open_session().await.unwrap();
    let modes = [(Pty::ECHO, 0), (Pty::VINTR, 3), (Pty::ISIG, 1)];
    channel
        .request_pty(true, "xterm-256color", 100, 40, 0, 0, &modes)
        .await
        .unwrap();
    channel.request_shell(true).await.unwrap();
    let mut seen = String::new();
    let mut expect =
        async |channel: &mut russh::Channel<russh::client::Msg>, send: &str, want: &str| {
            channel.data(send.as_bytes()).await.unwrap();
            let read = async {
                while !seen.contains(want) {
                    match channel.wait().await {
                        Some(ChannelMsg::Data { data }) => {
                            seen.push_str(&String::from_utf8_lossy(&data))
                        }
                        Some(_) => {}
                        None => panic!("closed: {seen}"),
                    }
                }
                seen.clear();
            };
            tokio::time::timeout(DEADLINE, read)
                .await
                .unwrap_or_else(|_| panic!("no {want:?}"));
        };
    expect(
        &mut channel,
        "stty size; echo $TERM-\"term\"; tty; shopt -q login_shell && echo log-\"in\"\n",
        "log-in",
    )
    .await;
    channel.window_change(120, 50, 0, 0).await.unwrap();
    expect(
        &mut channel,
        "until [ \"$(stty size)\" = '50 120' ]; do sleep 0.05; done; echo resi\"zed\"\n",
        "resized",
    )
    .await;
    expect(&mut channel, "echo st\"art\"; sleep 1000\n", "start").await;
    // Interrupts only a program that runs already, and only through the terminal.
    expect(&mut channel, "", "").await;
    eventually("sleep runs", || async {
        c.run("pgrep -x sleep").await.status == Some(0)
    })
    .await;
    channel.data(&b"\x03"[..]).await.unwrap();
    expect(&mut channel, "echo af\"ter\" $?\n", "after 130").await;
    channel.data(&b"exit 5\n"[..]).await.unwrap();
    assert_eq!(finish(channel).await.status, Some(5));
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn ports_are_reached_through_the_platform_and_through_ssh() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    let server = "nohup perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => \"127.0.0.1\", LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die; while ($c = $s->accept) { $l = <$c>; print $c \"got $l\"; close $c }' >/dev/null 2>&1 &";
    c.text(server).await;
    eventually("the server listens", || async {
        p.sandboxes
            .dial(&vm.handle, Service::Port(8080))
            .await
            .is_ok()
    })
    .await;
    let mut stream = p
        .sandboxes
        .dial(&vm.handle, Service::Port(8080))
        .await
        .unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "got hello\n");
    let channel =
        c.0.channel_open_direct_tcpip("localhost", 8080, "127.0.0.1", 1)
            .await
            .unwrap();
    let mut stream = channel.into_stream();
    stream.write_all(b"tunnel\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, "got tunnel\n");
    assert!(
        c.0.channel_open_direct_tcpip("127.0.0.1", 9, "127.0.0.1", 1)
            .await
            .is_err()
    );
    let refused = p.sandboxes.dial(&vm.handle, Service::Port(9)).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn sftp_does_files() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    let channel = c.0.channel_open_session().await.unwrap();
    channel.request_subsystem(true, "sftp").await.unwrap();
    let sftp = SftpSession::new(channel.into_stream()).await.unwrap();
    assert_eq!(sftp.canonicalize(".").await.unwrap(), "/root");
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut file = sftp
        .open_with_flags(
            "big",
            OpenFlags::CREATE | OpenFlags::WRITE | OpenFlags::TRUNCATE,
        )
        .await
        .unwrap();
    file.write_all(&data).await.unwrap();
    file.shutdown().await.unwrap();
    let mut back = Vec::new();
    sftp.open("big")
        .await
        .unwrap()
        .read_to_end(&mut back)
        .await
        .unwrap();
    assert!(back == data);
    assert_eq!(
        sftp.metadata("/root/big").await.unwrap().size,
        Some(3_000_000)
    );
    sftp.create_dir("d").await.unwrap();
    sftp.rename("big", "d/moved").await.unwrap();
    sftp.symlink("moved", "d/link").await.unwrap();
    assert_eq!(c.text("readlink d/link").await, "moved");
    assert_eq!(sftp.read_link("d/link").await.unwrap(), "moved");
    let mut names: Vec<String> = sftp
        .read_dir("d")
        .await
        .unwrap()
        .map(|e| e.file_name())
        .collect();
    names.sort();
    assert!(
        names.ends_with(&["link".to_owned(), "moved".to_owned()]),
        "{names:?}"
    );
    sftp.remove_file("d/link").await.unwrap();
    sftp.remove_file("d/moved").await.unwrap();
    sftp.remove_dir("d").await.unwrap();
    assert!(sftp.metadata("d").await.is_err());
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn a_long_connection_stays_small() {
    const COMMANDS: u64 = 1500;
    /// russh keeps a little of every channel that the server closes first; more than this would be ours.
    const MOST_BYTES_EACH: u64 = 8 * 1024;
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    let resident = async || -> u64 {
        let text = c.text("grep VmRSS: /proc/2/status | tr -dc 0-9").await;
        text.parse::<u64>().unwrap() * 1024
    };
    for _ in 0..50 {
        c.text("true").await;
    }
    let before = resident().await;
    for _ in 0..COMMANDS {
        c.text("true").await;
    }
    let grown = resident().await.saturating_sub(before);
    assert!(
        grown < COMMANDS * MOST_BYTES_EACH,
        "{} bytes a command",
        grown / COMMANDS
    );
    p.delete(vm).await;
    p.end().await;
}
