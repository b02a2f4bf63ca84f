#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use proptest::prelude::*;

use super::*;

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("stores"), "ext", 1 << 20).unwrap()
}

#[tokio::test]
async fn values_come_back_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for value in [
        "null",
        " { \"b\":1, \"a\" : 1.0 } ",
        "123456789012345678901234567890.10",
        "\"\\u0000é\"",
    ] {
        store.set("k", value).await.unwrap();
        assert_eq!(open(&dir).get("k").await.unwrap().as_deref(), Some(value));
    }
    store.delete("k").await.unwrap();
    store.delete("k").await.unwrap();
    assert_eq!(store.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn what_is_no_json_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let deep = "[".repeat(10_000);
    for value in ["", "{", "nul", "'a'", "1 2", deep.as_str()] {
        assert_eq!(
            store.set("k", value).await.unwrap_err().kind(),
            Kind::Invalid,
            "{value:.20}"
        );
        assert_eq!(
            store.swap("k", None, Some(value)).await.unwrap_err().kind(),
            Kind::Invalid
        );
    }
    assert_eq!(store.keys("").await.unwrap(), [] as [String; 0]);
}

#[tokio::test]
async fn extensions_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "a", "A", "a/b", "../a", "a.json", "_41", ".", "..", "é", "a b",
    ] {
        let store = Store::open(dir.path(), name, 1000).unwrap();
        assert_eq!(store.get("k").await.unwrap(), None, "{name}");
        store.set("k", &format!("{name:?}")).await.unwrap();
    }
    assert_eq!(
        std::fs::read_dir(dir.path().parent().unwrap().join("a.json"))
            .err()
            .unwrap()
            .kind(),
        ErrorKind::NotFound
    );
    for name in [String::new(), "x".repeat(201), "é".repeat(40)] {
        assert_eq!(
            Store::open(dir.path(), &name, 1000).unwrap_err().kind(),
            Kind::Invalid
        );
    }
}

#[tokio::test]
async fn a_space_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "ext", 100).unwrap();
    let value = format!("\"{}\"", "x".repeat(50));
    store.set("a", &value).await.unwrap();
    assert_eq!(
        store.set("b", &value).await.unwrap_err().kind(),
        Kind::Limit
    );
    assert_eq!(
        store
            .swap("b", None, Some(&value))
            .await
            .unwrap_err()
            .kind(),
        Kind::Limit
    );
    assert_eq!(
        store.set(&"k".repeat(1025), "1").await.unwrap_err().kind(),
        Kind::Invalid
    );
    assert_eq!(store.keys("").await.unwrap(), ["a"]);
    let smaller = Store::open(dir.path(), "ext", 10).unwrap();
    smaller.set("a", "\"xxxxxxxxxxxxx\"").await.unwrap();
    smaller.delete("a").await.unwrap();
}

#[tokio::test]
async fn nobody_else_may_look() {
    let dir = tempfile::tempdir().unwrap();
    let spaces = dir.path().join("stores");
    std::fs::create_dir(&spaces).unwrap();
    std::fs::set_permissions(&spaces, Permissions::from_mode(0o755)).unwrap();
    open(&dir).set("k", "1").await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&spaces), 0o700);
    for file in std::fs::read_dir(&spaces).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[tokio::test]
async fn a_swap_compares_values_and_not_texts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    assert!(!store.swap("k", Some("1"), Some("2")).await.unwrap());
    assert!(
        store
            .swap("k", None, Some(r#"{"a":1,"b":[2]}"#))
            .await
            .unwrap()
    );
    assert!(!store.swap("k", None, Some("2")).await.unwrap());
    assert!(
        store
            .swap("k", Some(r#"{ "b":[2], "a":1 }"#), Some("2"))
            .await
            .unwrap()
    );
    assert!(store.swap("k", Some("2"), None).await.unwrap());
    assert_eq!(store.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_crash_before_the_rename_leaves_the_old_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.set("k", "1").await.unwrap();
    // What a crash in the middle of a write leaves.
    std::fs::write(store.0.path("new"), "{\"k\":\"2").unwrap();
    let again = open(&dir);
    assert_eq!(again.get("k").await.unwrap().as_deref(), Some("1"));
    again.set("l", "3").await.unwrap();
    assert_eq!(again.keys("").await.unwrap(), ["k", "l"]);
}

#[tokio::test]
async fn a_damaged_space_is_reported_and_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    std::fs::write(store.0.path("json"), "{\"k\":").unwrap();
    assert!(
        store
            .get("k")
            .await
            .unwrap_err()
            .message()
            .contains("damaged")
    );
    assert_eq!(store.set("k", "1").await.unwrap_err().kind(), Kind::Other);
    assert_eq!(std::fs::read(store.0.path("json")).unwrap(), b"{\"k\":");
}

const COUNTER_DIR: &str = "PI_VERS_TEST_COUNTER_DIR";

async fn count(store: &Store, times: u32) {
    for _ in 0..times {
        loop {
            let old = store.get("n").await.unwrap();
            let new = old.as_deref().map_or(0, |n| n.parse::<u32>().unwrap()) + 1;
            if store
                .swap("n", old.as_deref(), Some(&new.to_string()))
                .await
                .unwrap()
            {
                break;
            }
        }
    }
}

/// The other process of the tests below; does nothing by itself.
#[tokio::test]
async fn other_process() {
    let Some(dir) = std::env::var_os(COUNTER_DIR) else {
        return;
    };
    count(&Store::open(Path::new(&dir), "ext", 1 << 20).unwrap(), 50).await;
}

fn other_process_command(dir: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "store::tests::other_process"])
        .env(COUNTER_DIR, dir);
    command.stdout(std::process::Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_of_two_processes_and_many_tasks_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = other_process_command(dir.path()).spawn().unwrap();
    // One handle shared, one of its own: both kinds of turn.
    let store = Store::open(dir.path(), "ext", 1 << 20).unwrap();
    let second = Store::open(dir.path(), "ext", 1 << 20).unwrap();
    tokio::join!(count(&store, 30), count(&store, 30), count(&second, 30));
    let status = tokio::task::spawn_blocking(move || other.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success());
    assert_eq!(store.get("n").await.unwrap().as_deref(), Some("140"));
}

#[tokio::test]
async fn a_process_killed_at_any_moment_leaves_a_whole_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "ext", 1 << 20).unwrap();
    let mut last = 0;
    for round in 0..15 {
        let mut other = other_process_command(dir.path()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(5 + round * 7)).await;
        other.kill().unwrap();
        other.wait().unwrap();
        let now = store
            .get("n")
            .await
            .unwrap()
            .map_or(0, |n| n.parse::<u32>().unwrap());
        assert!(now >= last, "a count that was durable is lost");
        last = now;
        // The dead one's lock is free.
        count(&store, 1).await;
        last += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_string_is_a_key(entries in prop::collection::btree_map("\\PC{0,20}|[\\x00-\\x1f/._]{0,5}", any::<i64>(), 0..8), prefix in "\\PC{0,1}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        runtime.block_on(async {
            for (key, value) in &entries {
                store.set(key, &value.to_string()).await.unwrap();
            }
            for (key, value) in &entries {
                assert_eq!(store.get(key).await.unwrap(), Some(value.to_string()));
            }
            let keys: Vec<_> = entries.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
            assert_eq!(store.keys(&prefix).await.unwrap(), keys);
        });
    }

    #[test]
    fn no_two_names_share_a_file(a in "\\PC{0,12}", b in "\\PC{0,12}") {
        prop_assert_eq!(a == b, encode(&a) == encode(&b));
        prop_assert!(encode(&a).bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')));
    }
}
