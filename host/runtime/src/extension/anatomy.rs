//! What a component imports and exports, read without compiling or running it.
//!
//! wit-component leaves out imports that the guest never calls, so the list of imports is an honest
//! statement of what the code can ask for. It is what `inspect` shows and what a host can judge
//! before anything runs.

use wasmparser::{Encoding, KnownCustom, Parser, Payload, ProducersSectionReader};

use super::LARGEST;
use crate::error::Error;

/// The interface every extension exports.
const DESCRIPTION: &str = "vers:harness/description";

/// The packages of the contract.
const CONTRACT: [&str; 3] = ["vers:harness/", "vers:platform/", "vers:system/"];

/// The imports and exports of a component, by full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anatomy {
    /// For example `vers:platform/vms@0.1.0`.
    pub imports: Vec<String>,
    /// For example `vers:harness/tools@0.1.0`.
    pub exports: Vec<String>,
    /// What it was made with, as its toolchain wrote it down, for example `language Rust` or `processed-by wit-component 0.240.0`: words of
    /// strangers, and no proof of anything.
    pub producers: Vec<String>,
    /// Size of the component in bytes; of a script, its own.
    pub size: usize,
}

/// No more of what a component was made with is kept, in entries and in characters of each.
const MOST_PRODUCERS: (usize, usize) = (32, 120);

impl Anatomy {
    pub(crate) fn of(origin: &str, wasm: &[u8]) -> Result<Self, Error> {
        let not = |why: String| Error::NotAComponent {
            origin: origin.into(),
            why,
        };
        if wasm.len() > LARGEST {
            return Err(not(format!(
                "{} MiB is more than the {} MiB a component may have",
                wasm.len() >> 20,
                LARGEST >> 20
            )));
        }
        if !wasm.starts_with(b"\0asm") {
            return Err(not("it does not begin as WebAssembly does; give the .wasm file that your toolchain built".into()));
        }
        // A core module is told from a component first: it has a sentence of its own.
        if !wasm.starts_with(b"\0asm\x01\0\0\0") {
            super::shape::check(wasm).map_err(|why| not(why.to_string()))?;
        }
        let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0_u32);
        let mut producers = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(|why| not(format!("its bytes are damaged: {why}")))? {
                Payload::Version {
                    encoding: Encoding::Module,
                    ..
                } if depth == 0 => {
                    return Err(not("it is a core module; build it for wasm32-wasip2, or wrap it with `wasm-tools component new`".into()));
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::CustomSection(section) => {
                    if let KnownCustom::Producers(section) = section.as_known() {
                        produced_by(section, &mut producers);
                    }
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        imports.push(
                            import
                                .map_err(|why| not(why.to_string()))?
                                .name
                                .name
                                .to_owned(),
                        );
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        exports.push(
                            export
                                .map_err(|why| not(why.to_string()))?
                                .name
                                .name
                                .to_owned(),
                        );
                    }
                }
                _ => {}
            }
        }
        Ok(Self {
            imports,
            exports,
            producers,
            size: wasm.len(),
        })
    }

    /// Refuses a component of another world with a sentence about it.
    pub(crate) fn check(&self, origin: &str) -> Result<(), Error> {
        let other = |why: String| {
            Err(Error::OtherWorld {
                origin: origin.into(),
                why,
            })
        };
        if self.export(DESCRIPTION).is_none() {
            let has = if self.exports.is_empty() {
                "nothing".into()
            } else {
                self.exports.join(", ")
            };
            return other(format!(
                "it exports {has}, but no {DESCRIPTION}@0.1.x; build it for the world vers:extension/extension"
            ));
        }
        if let Some(strange) = self.imports.iter().find(|name| !known(name)) {
            return other(format!(
                "it imports {strange}, which this host does not offer"
            ));
        }
        Ok(())
    }

    /// The full name of an exported interface of the contract's version track, if it is there.
    pub(crate) fn export(&self, interface: &str) -> Option<&str> {
        self.exports.iter().map(String::as_str).find(|name| {
            name.strip_prefix(interface)
                .and_then(|rest| rest.strip_prefix("@0.1."))
                .is_some_and(|patch| !patch.is_empty())
        })
    }
}

/// Adds what a section says. One that is damaged says nothing: it is for people alone.
fn produced_by(section: ProducersSectionReader<'_>, all: &mut Vec<String>) {
    let (most, longest) = MOST_PRODUCERS;
    for field in section.into_iter().flatten() {
        for value in field.values.into_iter().flatten() {
            let words = [field.name, value.name, value.version];
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            let text: String = words.join(" ").chars().take(longest).collect();
            if all.len() < most && !all.contains(&text) {
                all.push(text);
            }
        }
    }
}

fn known(import: &str) -> bool {
    import.starts_with("wasi:") || CONTRACT.iter().any(|package| import.starts_with(package))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_kind_of_wrong_file_gets_its_own_sentence() {
        for (bytes, sentence) in [
            (&b"#!/bin/sh"[..], "does not begin as WebAssembly"),
            (b"", "does not begin as WebAssembly"),
            (b"\0asm\x01\0\0\0", "core module"),
            (b"\0asm\x0d\0\x01\0\x07\xff", "damaged"),
        ] {
            let why = Anatomy::of("x.wasm", bytes).unwrap_err().to_string();
            assert!(
                why.contains(sentence) && why.starts_with("x.wasm is no WASI component"),
                "{why}"
            );
        }
    }

    #[test]
    fn a_component_of_another_world_is_told_what_it_lacks() {
        let empty = Anatomy::of("x.wasm", b"\0asm\x0d\0\x01\0").unwrap();
        let why = empty.check("x.wasm").unwrap_err().to_string();
        assert!(
            why.contains("exports nothing") && why.contains("vers:harness/description"),
            "{why}"
        );
        let strange = Anatomy {
            imports: vec!["acme:gpu/run@1.0.0".into()],
            exports: vec!["vers:harness/description@0.1.3".into()],
            producers: vec![],
            size: 8,
        };
        assert!(
            strange
                .check("x.wasm")
                .unwrap_err()
                .to_string()
                .contains("acme:gpu/run@1.0.0")
        );
    }

    #[test]
    fn exports_are_found_on_the_version_track_only() {
        let name = |name: &str| Anatomy {
            imports: vec![],
            exports: vec![name.into()],
            producers: vec![],
            size: 0,
        };
        assert!(
            name("vers:harness/tools@0.1.7")
                .export("vers:harness/tools")
                .is_some()
        );
        assert!(
            name("vers:harness/tools@0.2.0")
                .export("vers:harness/tools")
                .is_none()
        );
        assert!(
            name("vers:harness/tools-extra@0.1.0")
                .export("vers:harness/tools")
                .is_none()
        );
    }

    #[test]
    fn what_it_was_made_with_is_told_once_and_bounded() {
        let mut wasm = b"\0asm\x0d\0\x01\0".to_vec();
        let mut section = b"\x09producers\x01\x08language\x01\x04Rust\x00".to_vec();
        wasm.push(0);
        wasm.push(section.len() as u8);
        wasm.append(&mut section.clone());
        wasm.push(0);
        wasm.push(section.len() as u8);
        wasm.append(&mut section);
        let anatomy = Anatomy::of("x", &wasm).unwrap();
        assert_eq!(anatomy.producers, ["language Rust"]);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            let mut wasm = b"\0asm\x0d\0\x01\0".to_vec();
            wasm.extend(bytes);
            let _ = Anatomy::of("x", &wasm);
        }
    }
}
