//! Random trees, there and back again.

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::tree::{Scene, assert_same, copy, link, mode, name, noise, set_time, sparse};

#[derive(Debug, Clone)]
enum Node {
    File {
        size: usize,
        mode: u32,
    },
    Sparse {
        at: u64,
        size: u64,
    },
    Link(Vec<u8>),
    Directory {
        mode: u32,
        inside: Vec<(Vec<u8>, (i64, i64), Node)>,
    },
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let tricky = prop_oneof![
        Just(b"-n".to_vec()),
        Just(b"--checkpoint-action=exec=false".to_vec()),
        Just(b"a\nb".to_vec()),
        Just(b"'\"`$(false)\\".to_vec()),
        Just(b"*".to_vec()),
        Just(b"...".to_vec()),
        Just(b"-T".to_vec()),
        Just(b"end".to_vec()),
    ];
    let bytes = prop::collection::vec(1u8..=255, 1..40).prop_map(|mut bytes| {
        bytes
            .iter_mut()
            .filter(|byte| **byte == b'/')
            .for_each(|byte| *byte = b'_');
        // Not to be taken for what the copy itself might forget.
        bytes.insert(0, b'n');
        bytes.rotate_left(1);
        bytes
    });
    prop_oneof![2 => tricky, 5 => bytes]
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        4 => (prop_oneof![Just(0usize), 1usize..2000, Just(512), Just(5_000_000)], 0o400u32..0o1000).prop_map(|(size, mode)| Node::File { size, mode }),
        1 => (0u64..3_000_000, 3_000_000u64..9_000_000).prop_map(|(at, size)| Node::Sparse { at, size }),
        1 => any_name().prop_map(Node::Link),
    ];
    leaf.prop_recursive(3, 20, 6, |inner| {
        let time = (-1_000_000i64..2_000_000_000, 0i64..1_000_000_000);
        (
            0o700u32..0o1000,
            prop::collection::vec((any_name(), time, inner), 0..6),
        )
            .prop_map(|(mode, inside)| Node::Directory { mode, inside })
    })
}

fn make(at: &Path, node: &Node, time: (i64, i64)) {
    match node {
        Node::File { size, mode: bits } => {
            std::fs::write(at, noise(*size, *size as u64)).unwrap();
            mode(at, *bits);
        }
        Node::Sparse { at: offset, size } => {
            sparse(at, *size, &[(*offset, b"here"), (size - 1, b"!")])
        }
        Node::Link(target) => link(name(target), at),
        Node::Directory { mode: bits, inside } => {
            std::fs::create_dir(at).unwrap();
            for (inner, time, node) in inside {
                let inner = at.join(name(inner));
                if std::fs::symlink_metadata(&inner).is_err() {
                    make(&inner, node, *time);
                }
            }
            mode(at, *bits);
        }
    }
    set_time(at, time.0, time.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_tree_comes_back_as_it_went() {
    let scene = Scene::start().await;
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let top = prop::collection::vec(
            (
                any_name(),
                (0i64..2_000_000_000, 0i64..1_000_000_000),
                node(),
            ),
            0..8,
        )
        .prop_map(|inside| Node::Directory {
            mode: 0o755,
            inside,
        });
        let mut runner = TestRunner::new(Config {
            cases: 24,
            failure_persistence: None,
            ..Config::default()
        });
        runner
            .run(&top, |tree| {
                for path in ["tree", "down"] {
                    let _ = std::fs::remove_dir_all(scene.here.join(path));
                }
                let _ = std::fs::remove_dir_all(scene.there.join("up"));
                make(&scene.here.join("tree"), &tree, (1_500_000_000, 7));
                handle.block_on(async {
                    let up = copy(scene.local("tree"), scene.vm("up")).await.unwrap();
                    let down = copy(scene.vm("up"), scene.local("down")).await.unwrap();
                    assert_eq!(up, down);
                });
                assert_same(&scene.here.join("tree"), &scene.there.join("up"));
                assert_same(&scene.here.join("tree"), &scene.here.join("down"));
                scene.assert_clean();
                Ok(())
            })
            .unwrap();
    });
}
