//! What a VM shows of the host, and what it can do to it.

use crate::vm::Platform;
use vers_local::internal::Tier;

#[tokio::test]
async fn homes_are_private_and_secrets_are_not_shown() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    assert_eq!(
        c.text("echo $HOME; pwd; id -u; id -un").await,
        "/root\n/root\n0\nroot"
    );
    // Directories for tools on the host's PATH may be there; files are not.
    assert_eq!(c.text("find /root /home -maxdepth 1 -type f").await, "");
    assert_eq!(
        c.text("ls -A /tmp /var/tmp /srv /mnt /media | grep -v '^/' | grep -v '^$' || true")
            .await,
        ""
    );
    assert_eq!(
        c.text("ls /run").await,
        match p.sandboxes.capabilities().tier {
            Tier::Sandbox => "lock",
            Tier::UserSandbox => "host\nlock",
        }
    );
    // Neither the platform's own files nor other VMs'.
    let probe = format!("ls -d {} 2>/dev/null || echo none", p.state.display());
    assert_eq!(c.text(&probe).await, "none");
    // No password hash, no private key, whatever is readable for the guest's root.
    assert_eq!(
        c.text("grep -c '[$]' /etc/shadow 2>/dev/null || true")
            .await
            .trim(),
        match p.sandboxes.capabilities().tier {
            Tier::Sandbox => "0",
            Tier::UserSandbox => "", // not readable at all
        }
    );
    assert_eq!(
        c.text("grep -rl 'PRIVATE KEY' /etc/ssh /etc/ssl 2>/dev/null || true")
            .await,
        ""
    );
    assert_eq!(
        c.text("cat /etc/passwd | head -1 | cut -d: -f1").await,
        "root"
    );
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn a_vm_has_its_name_its_variables_and_loopback() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    assert_eq!(
        c.text("hostname; cat /etc/hostname").await,
        "testvm\ntestvm"
    );
    assert_eq!(c.text("echo \"$VERS_VM_ID\"").await, vm.id.to_string());
    assert_eq!(
        c.text("grep VERS_VM_ID /etc/environment").await,
        format!("VERS_VM_ID=\"{}\"", vm.id)
    );
    assert_eq!(c.text("echo \"$PROJECT\"").await, "a \"quoted\" value");
    assert_eq!(
        c.text("echo \"$LINES\"; grep -c LINES /etc/environment || true")
            .await,
        "a\nb\n0"
    );
    assert_eq!(c.text("test -s /etc/resolv.conf && echo yes").await, "yes");
    assert_eq!(c.text("getent hosts localhost | wc -l").await.trim(), "1");
    assert_eq!(c.text("cat /proc/net/dev | grep -c lo:").await, "1");
    // /etc/environment is read anew for every command.
    c.text("echo 'LATER=\"x y\"' >> /etc/environment").await;
    assert_eq!(c.text("echo \"$LATER\"").await, "x y");
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn devices_and_processes_are_the_vms_own() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    let devices = "echo x >/dev/null && head -c1 /dev/zero | wc -c && head -c4 /dev/urandom | wc -c && test -d /dev/shm && test -e /dev/ptmx && echo a | cat /dev/fd/0";
    assert_eq!(c.text(devices).await, "1\n4\na");
    assert_eq!(
        c.text("cat /proc/1/comm /proc/2/comm").await,
        "vers-init\nvers-agent"
    );
    // The program files of the host's processes are out of reach, and so are the agent's descriptors.
    for path in [
        "/proc/1/exe",
        "/proc/2/exe",
        "/proc/1/root",
        "/proc/2/fd",
        "/proc/2/environ",
        "/proc/2/mem",
    ] {
        let done = c.run(format!("head -c1 {path} || ls {path}/")).await;
        assert_ne!(done.status, Some(0), "{path}: {done:?}");
        assert!(done.out.is_empty(), "{path}");
    }
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn root_inside_is_nobody_outside() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    for attack in [
        "mount -o remount,rw /proc/sys && echo x > /proc/sys/kernel/core_pattern",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger.x",
        "mknod /tmp/disk b 8 0 && head -c1 /tmp/disk",
        "mknod /tmp/mem c 1 1 && head -c1 /tmp/mem",
        "date -s 2001-01-01",
        "dmesg -C",
    ] {
        let done = c.run(attack).await;
        assert_ne!(done.status, Some(0), "{attack}: {done:?}");
    }
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert_ne!(before.trim(), "x");
    p.delete(vm).await;
    p.end().await;
}

#[tokio::test]
async fn a_program_is_built_and_the_system_is_writable_as_far_as_promised() {
    let p = Platform::new().await;
    let vm = p.vm(&[]).await;
    let c = p.connect(&vm).await;
    if c.run("command -v cc").await.status == Some(0) {
        let build = "printf '#include <stdio.h>\\nint main(void){puts(\"built\");return 0;}\\n' > a.c && cc a.c -o a && ./a";
        assert_eq!(c.text(build).await, "built");
    }
    let write = c
        .run("echo x > /usr/local/bin/vers-test && rm /usr/local/bin/vers-test")
        .await;
    match p.sandboxes.capabilities().tier {
        Tier::Sandbox => {
            assert_eq!(write.status, Some(0), "{write:?}");
            // Another user, and a directory of the host's that is renamed.
            let other = "chown 1000:1000 /tmp && su -s /bin/sh nobody -c 'id -u' && mv /usr/share/doc/bash /usr/share/doc/moved && ls -d /usr/share/doc/moved";
            assert_eq!(c.text(other).await, "65534\n/usr/share/doc/moved");
            let nobody_elses = std::path::Path::new("/usr/share/doc/moved").exists();
            assert!(!nobody_elses, "the host's file system was changed");
        }
        Tier::UserSandbox => {
            assert_ne!(write.status, Some(0), "{write:?}");
            // What is not the host's is writable, and files of /etc can be replaced.
            let own = "mkdir /work && echo a > /work/a && rm /etc/passwd && echo 'root:x:0:0:r:/root:/bin/sh' > /etc/passwd && cat /work/a && id -un";
            assert_eq!(c.text(own).await, "a\nroot");
        }
    }
    p.delete(vm).await;
    p.end().await;
}
