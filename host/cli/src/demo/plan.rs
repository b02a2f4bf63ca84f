//! The demo's plan: which steps there are, and what they work with.

use std::time::Duration;

/// No call of the demo takes this long unless something hangs.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// A step: its name, what it says it does, and the steps it builds upon.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) needs: &'static [&'static str],
}

/// In the order in which they run.
pub(super) const STEPS: [Step; 14] = [
    Step {
        name: "platform",
        title: "Start the Vers platform on this machine",
        needs: &[],
    },
    Step {
        name: "tools",
        title: "Load the extensions, list their tools",
        needs: &["platform"],
    },
    Step {
        name: "create",
        title: "Create a VM (vers_vm_create)",
        needs: &["tools"],
    },
    Step {
        name: "use",
        title: "Let the tools act on it (vers_vm_use)",
        needs: &["create"],
    },
    Step {
        name: "build",
        title: "Build and run a program there, streamed (bash)",
        needs: &["use"],
    },
    Step {
        name: "files",
        title: "Write, edit and read a file (write, edit, read)",
        needs: &["use"],
    },
    Step {
        name: "copy",
        title: "Copy 2,000 files there and back (vers_vm_copy)",
        needs: &["use"],
    },
    Step {
        name: "serve",
        title: "Run a server in the background there (bg_start)",
        needs: &["use"],
    },
    Step {
        name: "commit",
        title: "Snapshot the VM (vers_vm_commit)",
        needs: &["use"],
    },
    Step {
        name: "branch",
        title: "Branch it twice; the branches diverge",
        needs: &["commit"],
    },
    Step {
        name: "restore",
        title: "Restore the snapshot: the old state",
        needs: &["commit"],
    },
    Step {
        name: "cancel",
        title: "Cancel `sleep 1000`: it is gone on the VM",
        needs: &["use"],
    },
    Step {
        name: "pause",
        title: "Pause and resume (vers_vm_state)",
        needs: &["use"],
    },
    Step {
        name: "delete",
        title: "Delete the VMs (vers_vm_delete)",
        needs: &["create"],
    },
];

/// The steps of `--swarm`.
pub(super) const SWARM: [Step; 8] = [
    Step {
        name: "platform",
        title: "Start the Vers platform on this machine",
        needs: &[],
    },
    Step {
        name: "host",
        title: "Load the extensions, listen for a model's users",
        needs: &["platform"],
    },
    Step {
        name: "golden",
        title: "Make a golden image: an agent and a project",
        needs: &["host"],
    },
    Step {
        name: "spawn",
        title: "Spawn the workers, side by side (vers_swarm_spawn)",
        needs: &["golden"],
    },
    Step {
        name: "task",
        title: "Split the tests among them (vers_swarm_task)",
        needs: &["spawn"],
    },
    Step {
        name: "cut",
        title: "Cut all connections while they work",
        needs: &["task"],
    },
    Step {
        name: "wait",
        title: "Wait, and count every line (vers_swarm_wait, _read)",
        needs: &["task"],
    },
    Step {
        name: "teardown",
        title: "Delete the workers (vers_swarm_teardown)",
        needs: &["spawn"],
    },
];

/// The program that is built: in C where there is a compiler, else for the shell.
pub(super) const BUILD: &str = r#"set -e
mkdir -p "$HOME/pi-vers-demo" && cd "$HOME/pi-vers-demo"
if command -v cc >/dev/null 2>&1; then
cat > primes.c <<'END'
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    int want = argc > 1 ? atoi(argv[1]) : 1, found = 0, n = 1;
    while (found < want) {
        int d = 2;
        n++;
        while (d * d <= n && n % d != 0) d++;
        if (d * d > n) found++;
    }
    printf("prime %d is %d\n", want, n);
    return 0;
}
END
cc -O2 -Wall -o primes primes.c
echo "built with $(cc --version | head -n 1)"
else
cat > primes <<'END'
#!/bin/sh
want=$1 found=0 n=1
while [ "$found" -lt "$want" ]; do
    n=$((n + 1)) d=2
    while [ $((d * d)) -le "$n" ] && [ $((n % d)) -ne 0 ]; do d=$((d + 1)); done
    [ $((d * d)) -gt "$n" ] && found=$((found + 1))
done
echo "prime $want is $n"
END
chmod +x primes
echo "no C compiler in this VM: a shell program instead"
fi
for i in 1 2 3 4 5; do ./primes $((i * 100)); sleep 0.2; done"#;

/// A server that tells what it is asked, in what the VM has: `PORT` is where.
pub(super) const SERVER: &str = r#"set -e
mkdir -p "$HOME/pi-vers-demo" && cd "$HOME/pi-vers-demo"
if command -v cc >/dev/null 2>&1; then
cat > server.c <<'END'
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int yes = 1, door = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(door, (struct sockaddr *)&at, sizeof at) || listen(door, 8)) {
        perror("server");
        return 1;
    }
    puts("ready to serve");
    fflush(stdout);
    for (;;) {
        char asked[256];
        int caller = accept(door, NULL, NULL);
        ssize_t n = read(caller, asked, sizeof asked - 1);
        asked[n > 0 ? n : 0] = 0;
        asked[strcspn(asked, "\r\n")] = 0;
        printf("asked: %s\n", asked);
        fflush(stdout);
        dprintf(caller, "you asked: %s\n", asked);
        close(caller);
    }
}
END
cc -O1 -o server server.c
exec ./server "$PORT"
elif command -v perl >/dev/null 2>&1; then
exec perl -MIO::Socket::INET -e '$| = 1; my $door = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => shift, Listen => 8, ReuseAddr => 1) or die "server: $@"; print "ready to serve\n"; while (my $caller = $door->accept) { my $asked = <$caller>; $asked =~ s/[\r\n]+$//; print "asked: $asked\n"; print $caller "you asked: $asked\n"; close $caller; }' "$PORT"
else
exec python3 -u -c 'import socket, sys
door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready to serve")
while True:
    caller = door.accept()[0]
    asked = caller.recv(256).decode().splitlines()[0]
    print("asked: " + asked)
    caller.sendall(("you asked: " + asked + "\n").encode())
    caller.close()' "$PORT"
fi"#;

/// What it has to print.
pub(super) const PRIMES: &str =
    "prime 100 is 541\nprime 200 is 1223\nprime 300 is 1987\nprime 400 is 2741\nprime 500 is 3571";

/// A text that quoting, heredocs and encodings have broken before.
pub(super) const TEXT: &str = "It's a \"test\": $HOME `id` \\n %s ${x} EOF\nÄ ö 漢字 🦀 and a tab\there, trailing blanks  \nred\nEOF\n'last line, without an end";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_build_upon_earlier_ones_only() {
        for steps in [&STEPS[..], &SWARM[..]] {
            for (at, step) in steps.iter().enumerate() {
                for needed in step.needs {
                    assert!(
                        steps.iter().take(at).any(|earlier| earlier.name == *needed),
                        "{} needs {needed}",
                        step.name
                    );
                }
            }
        }
    }
}
