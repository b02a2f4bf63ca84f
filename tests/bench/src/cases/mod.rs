//! The jobs. Each is done by every method in every round.

pub(crate) mod bulk;
pub(crate) mod end;
pub(crate) mod exec;
pub(crate) mod languages;
pub(crate) mod mcp;
pub(crate) mod swarm;
pub(crate) mod tree;

use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::cpu::Meter;
use crate::lab::Lab;
use crate::original::{Master, Node, Route};

/// What all jobs use.
pub(crate) struct Context {
    pub(crate) lab: Lab,
    pub(crate) meter: Meter,
    /// The client's directory.
    pub(crate) here: PathBuf,
    /// The component `vers-vm`.
    pub(crate) wasm: Vec<u8>,
    pub(crate) node: Option<Node>,
    pub(crate) rsync: bool,
    pub(crate) quick: bool,
    /// Parts of the names of methods; empty for all of them.
    pub(crate) methods: Vec<String>,
}

impl Context {
    /// Whether a method is to be measured.
    pub(crate) fn wants(&self, method: &str) -> bool {
        self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|part| method.contains(part.as_str()))
    }

    /// How many rounds: fewer when it has to be quick.
    pub(crate) fn rounds(&self, usual: usize, quick: usize) -> usize {
        if self.quick { quick } else { usual }
    }

    /// `ssh` to the VM at this address, and over a master's connection to it.
    pub(crate) async fn routes(&self, edge: std::net::SocketAddr) -> Outcome<(Route, Master)> {
        let route = Route::new(&self.lab.places, edge);
        let name = format!("m{}", edge.port());
        let master = Master::open(&route, &self.here, &name).await?;
        // The master and its proxy live on.
        self.meter.keep_all();
        Ok((route, master))
    }
}

/// A command's text for a path that has no characters a shell would see.
pub(crate) fn plain(path: &Path) -> String {
    path.display().to_string()
}
