//! Bytes that claim to be a component, as far as they are looked at before the compiler: the shape, what is imported and exported, and then
//! the validator, which has to survive whatever the shape lets through.

#![cfg_attr(feature = "engine", no_main)]

/// The host's own files, with what they need around them.
#[allow(dead_code, unreachable_pub, reason = "they are used in the host")]
#[path = "."]
mod extension {
    pub(crate) const LARGEST: usize = 128 << 20;

    #[path = "../../host/runtime/src/extension/anatomy.rs"]
    pub(crate) mod anatomy;
    #[path = "../../host/runtime/src/extension/shape.rs"]
    pub(crate) mod shape;
}

#[allow(dead_code, reason = "what it says is for people")]
mod error {
    #[derive(Debug)]
    pub(crate) enum Error {
        NotAComponent { origin: String, why: String },
        OtherWorld { origin: String, why: String },
    }
}

fn run(data: &[u8]) {
    // Without a header most inputs say nothing.
    let mut wasm = b"\0asm\x0d\0\x01\0".to_vec();
    wasm.extend_from_slice(data);
    for wasm in [data, &wasm] {
        let Ok(anatomy) = extension::anatomy::Anatomy::of("fuzz", wasm) else {
            continue;
        };
        let _ = anatomy.check("fuzz");
        let _ = wasmparser::Validator::new().validate_all(wasm);
    }
}

pi_vers_fuzz::target!(run);
