//! Bytes that are no component, or one that nobody would build: a sentence, exit code 7, and soon.

use std::time::{Duration, Instant};

use crate::raider::{Raid, with};
use crate::raw::{
    COMPONENT, MODULE, extension, function, items, module, name, number, section, starting,
};
use serde_json::json;

/// Nothing here takes as long on a machine that does something else besides; what it would take without a bound is hours, or for ever.
const SOON: Duration = Duration::from_secs(100);

fn refused(what: &str, wasm: &[u8], says: &str) {
    let raid = Raid::of(wasm, "raider", "");
    let start = Instant::now();
    let ran = raid.inspect();
    assert_eq!(ran.code, 7, "{what}: {ran:?}");
    assert!(ran.line().contains(says), "{what}: {ran:?}");
    assert!(ran.out.is_empty(), "{what}: {ran:?}");
    assert!(start.elapsed() < SOON, "{what}: {:?}", start.elapsed());
}

#[test]
fn what_is_no_component_is_told_apart() {
    refused("nothing", b"", "does not begin");
    refused("a script", b"#!/bin/sh\nrm -rf ~\n", "does not begin");
    refused("an ELF file", b"\x7fELF\x02\x01\x01", "does not begin");
    refused("a core module", MODULE, "core module");
    refused("half a header", b"\0asm", "damaged");
    refused("a version to come", b"\0asm\xff\0\x01\0", "damaged");
    refused("an empty component", COMPONENT, "exports nothing");
    let endless = [COMPONENT, b"\x07\xff\xff\xff\xff\x0f"].concat();
    refused("a section of 4 GiB", &endless, "damaged");
    // Compiled code is never taken from a file: it would run as the host.
    let compiled = [
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0",
        &[0; 64][..],
    ]
    .concat();
    refused("compiled code", &compiled, "does not begin");
}

#[test]
fn a_truncated_component_is_damaged_wherever_it_was_cut() {
    let whole = with(&json!({}));
    for part in 1..40 {
        let cut = whole.len() * part / 40 + part;
        refused("a part", &whole[..cut.min(whole.len() - 1)], "");
    }
}

#[test]
fn types_inside_of_types_do_not_end_the_host() {
    for depth in [100, 1_000, 100_000] {
        let mut types = vec![1];
        types.extend([0x41, 1, 1].repeat(depth));
        types.extend([0x41, 0]);
        refused("types", &extension(&section(7, &types)), "levels of types");
    }
    let mut nested = COMPONENT.to_vec();
    for _ in 0..20_000 {
        nested = [COMPONENT, &section(4, &nested)].concat();
    }
    refused(
        "components",
        &extension(&section(4, &nested)),
        "levels of components",
    );
}

#[test]
fn more_of_anything_than_there_can_be_is_refused() {
    // A tuple of two of the type before: 2^64 members.
    let mut doubling = number(64);
    for index in 0..64_usize {
        let part = match index.checked_sub(1) {
            None => vec![0x7f],
            Some(before) => number(before),
        };
        doubling.extend([&[0x6f, 2], &part[..], &part].concat());
    }
    refused(
        "a type of types",
        &extension(&section(7, &doubling)),
        "limit",
    );
    let imports: Vec<Vec<u8>> = (0..100_000)
        .map(|index| {
            let name = name(&format!("vers:harness/x{index}@0.1.0"));
            [&[0], &name[..], b"\x05\x00"].concat()
        })
        .collect();
    let imports = [section(7, b"\x01\x42\x00"), section(10, &items(&imports))].concat();
    refused("100,000 imports", &extension(&imports), "");
    let one = function(b"\x00", &b"\x41\x01\x04\x40\x0b".repeat(400_000));
    let large = module(&[one], b"");
    refused("a function of 2 MB", &starting(&large), "a function of");
    let huge = section(0, &[&name("x")[..], &vec![0; 130 << 20]].concat());
    refused("130 MiB", &[COMPONENT, &huge].concat(), "more than");
    // Inside of the bounds, and of no use.
    let types = [number(900_000), vec![0x7f; 900_000]].concat();
    refused("900,000 types", &extension(&section(7, &types)), "describe");
    let padding = section(0, &[&name("x")[..], &vec![0; 64 << 20]].concat());
    refused("64 MiB of nothing", &extension(&padding), "describe");
}

#[test]
fn an_import_that_is_not_offered_is_named() {
    for (import, says) in [
        ("acme:gpu/run@1.0.0", "acme:gpu/run@1.0.0"),
        ("wasi:sockets/instance-network@9.0.0", ""),
        ("vers:platform/keys@0.1.0", ""),
    ] {
        let import = [b"\x01\x00", &name(import)[..], b"\x05\x00"].concat();
        let imports = [section(7, b"\x01\x42\x00"), section(10, &import)].concat();
        let wasm = [COMPONENT, &imports[..]].concat();
        // The instance that is imported is the first: what is exported comes after it.
        let instance = section(5, b"\x01\x01\x00");
        let export = [
            b"\x01\x00",
            &name("vers:harness/description@0.1.0")[..],
            b"\x05\x01\x00",
        ]
        .concat();
        refused(
            "an import",
            &[wasm, instance, section(11, &export)].concat(),
            says,
        );
    }
}
