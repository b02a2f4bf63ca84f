//! What a guest of somebody else gets of a real VM through the contract alone.

use pi_vers_host::{CallError, Refusal};
use pi_vers_tests::{Bench, DEADLINE, eventually, mark, settings, traces};
use serde_json::json;

use crate::lab::Lab;

/// The shipped extensions with a VM, and a session of the unruly guest on the same platform.
async fn two(grants: &str) -> (Lab, Bench) {
    let lab = Lab::new().await;
    let endpoint = lab.scratch.endpoint().await;
    let unruly = Bench::unruly(settings(&endpoint), &lab.scratch.work(), grants).await;
    (lab, unruly)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_follows_a_file_and_the_follow_ends_with_its_stream() {
    let (lab, unruly) = two("shell = { vms = \"any\", commands = \"any\", files = \"rw\" }").await;
    let name = mark();
    let begin = format!("printf 'one\\nD\u{e4}mmerung\\r\\nthr' >/root/{name}");
    lab.bash(&begin).await;
    let mut call = unruly
        .session
        .call("follow", json!({ "text": lab.vm, "argv": [name], "n": 6 }));
    let mut updates = call.updates();
    let changes = async {
        // Nothing is taken away before it was told.
        for (told, next) in [
            ("D\u{e4}mmerung", format!("printf 'ee\\n' >>/root/{name}")),
            (
                "three",
                format!("mv /root/{name} /root/old; echo other >/root/{name}"),
            ),
            ("other", format!(": >/root/{name}")),
        ] {
            let seen = updates.wait_for(|update| {
                let mut texts = update
                    .content
                    .iter()
                    .filter_map(|content| content.as_text());
                texts.any(|text| text.contains(told))
            });
            tokio::time::timeout(DEADLINE, seen)
                .await
                .unwrap_or_else(|_| panic!("{told} was not told"))
                .expect("the call goes on");
            assert!(!traces::marked(&name).is_empty(), "what looks is not found");
            lab.bash(&next).await;
        }
    };
    let (outcome, ()) = tokio::join!(call.outcome(), changes);
    let text = outcome.expect("a follow").text();
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "0-4 one",
            "4-16 D\u{e4}mmerung",
            "16-22 three",
            "Followed::Replaced",
            "0-6 other",
            "Followed::Truncated",
        ]
    );
    eventually("the follow is gone from the VM", || {
        traces::marked(&name).is_empty()
    })
    .await;
    unruly.session.end().await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_copies_what_it_was_granted_and_is_told_how_far_it_is() {
    let (lab, unruly) = two(
        "shell = { vms = \"any\", commands = [], files = \"rw\" }\nfiles = [{ path = \".\", mode = \"ro\" }]",
    )
    .await;
    let tree = lab.scratch.work().join("tree");
    std::fs::create_dir(&tree).unwrap();
    for number in 0..300 {
        std::fs::write(tree.join(format!("{number}")), vec![7; 10_000]).unwrap();
    }
    let there = format!("{}:/srv/tree", lab.vm);
    let ends = json!({ "argv": ["local:tree", there] });
    let text = unruly.text("copy", ends).await;
    assert!(
        text.contains("backwards 0 last Some((300, 3000000, Some(3000000)))"),
        "{text}"
    );
    assert!(
        text.ends_with("\n300 files 1 directories 3000000 bytes"),
        "{text}"
    );
    assert_eq!(lab.bash("ls /srv/tree | wc -l").await.trim(), "300");
    // It may read here, not write.
    let back = json!({ "argv": [there, "local:back"] });
    let denied = unruly.call("copy", back).await;
    assert!(
        matches!(&denied, Err(CallError::Refused { kind: Refusal::Denied, message }) if message.contains("files")),
        "{denied:?}"
    );
    assert!(!lab.scratch.work().join("back").exists());
    unruly.session.end().await;
    lab.end().await;
}
