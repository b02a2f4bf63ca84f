//! OpenSSH's own client gets into a VM with what `ssh-config` prints.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use pi_vers_tests::{Scratch, needs};

/// Runs the machine's `ssh` with these arguments and this input, in the test's directories.
async fn ssh(scratch: &Scratch, arguments: &[String], command: &str, input: Vec<u8>) -> Output {
    let mut ssh = std::process::Command::new("ssh");
    for (name, value) in scratch.command().get_envs() {
        match value {
            Some(value) => ssh.env(name, value),
            None => ssh.env_remove(name),
        };
    }
    ssh.args(arguments)
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || {
        let mut child = ssh.spawn().expect("ssh starts");
        let mut stdin = child.stdin.take().expect("piped");
        let feed = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().expect("ssh ends");
        feed.join().expect("fed");
        output
    })
    .await
    .expect("ssh was run")
}

fn option(arguments: &[String], name: &str) -> PathBuf {
    let begin = format!("{name}=");
    let found = arguments.iter().find_map(|word| word.strip_prefix(&begin));
    found.expect("the option is there").trim_matches('"').into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_ssh_gets_into_a_vm_and_refuses_another_host_key() {
    needs("openssh-client");
    let scratch = Scratch::new();
    scratch.up().await;
    let vm = scratch.vm().await;
    let printed = scratch.run(&["ssh-config", "--local", &vm[..13]]).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let arguments: Vec<String> = serde_json::from_str(&printed.stdout).unwrap();
    assert!(
        arguments
            .last()
            .unwrap()
            .starts_with(&format!("root@{vm}.")),
        "{arguments:?}"
    );
    let key = &arguments[arguments.iter().position(|word| word == "-i").unwrap() + 1];
    assert_eq!(
        std::fs::metadata(key).unwrap().permissions().mode() & 0o777,
        0o600
    );

    // Streams, exit code, and bytes both ways up to the end of the input.
    let output = ssh(
        &scratch,
        &arguments,
        "echo out; echo err >&2; exit 7",
        Vec::new(),
    )
    .await;
    assert_eq!(
        (
            output.status.code(),
            output.stdout.as_slice(),
            String::from_utf8_lossy(&output.stderr).as_ref()
        ),
        (Some(7), b"out\n".as_slice(), "err\n")
    );
    let bytes: Vec<u8> = (0_u32..3_000_000)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let output = ssh(&scratch, &arguments, "cat", bytes.clone()).await;
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.stdout == bytes,
        "{} bytes came back",
        output.stdout.len()
    );

    // Another key than the pinned one is refused.
    let hosts = option(&arguments, "UserKnownHostsFile");
    let line = std::fs::read_to_string(&hosts).unwrap();
    let alias = line.split(' ').next().unwrap();
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    std::fs::write(&hosts, format!("{alias} {other}\n")).unwrap();
    let output = ssh(&scratch, &arguments, "true", Vec::new()).await;
    assert_eq!(output.status.code(), Some(255));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("verification failed"),
        "{output:?}"
    );
    // Asked for anew, the right one is there again.
    scratch.run(&["ssh-config", "--local", &vm]).await;
    assert_eq!(
        ssh(&scratch, &arguments, "true", Vec::new())
            .await
            .status
            .code(),
        Some(0)
    );

    // A VM that is not there is said to be none.
    let none = scratch.run(&["ssh-config", "--local", "0000"]).await;
    assert_eq!(none.code, Some(1), "{none:?}");
    scratch.end().await;
}
