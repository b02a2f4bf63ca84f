//! Loading compiled code: the one place of this crate with `unsafe`.
//!
//! The threat: wasmtime trusts compiled code as the linker trusts an object file. Whoever can choose
//! the bytes runs code in the host. So files are opened only from a directory that belongs to this
//! user and to nobody else, which the cache has checked, and never from a path a caller names.

#![allow(unsafe_code)]

use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads a file that the cache wrote for this very engine. wasmtime refuses other versions, other
/// settings and other CPU features by itself.
pub(super) fn load(engine: &Engine, file: &Path) -> wasmtime::Result<Component> {
    // SAFETY: `Cache` is the only caller. It made the directory with mode 0700, verified owner and mode
    // when it opened it, and only ever renames into it what `precompile_component` of this engine
    // returned. An attacker who can write there already runs as this user.
    unsafe { Component::deserialize_file(engine, file) }
}
