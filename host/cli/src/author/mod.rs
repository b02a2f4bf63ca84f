//! `pi-vers new`, `build`, `test` and `dev`: what an author of extensions works with.
//!
//! A project is a directory with a `pi-vers.toml` that says how its component is built. Everything else in it belongs to its language.

mod build;
mod dev;
mod manifest;
mod name;
mod new;
mod sdk;
mod templates;
mod test;
mod tree;

use std::path::PathBuf;

use clap::Args;

pub(crate) use build::build;
pub(crate) use dev::{Dev, dev};
pub(crate) use new::new;
pub(crate) use test::{Test, test};

#[derive(Debug, Args)]
pub(crate) struct New {
    /// The extension's name: small letters, digits and hyphens
    pub(crate) name: String,
    /// What it is written in
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    pub(crate) lang: String,
    /// Where to (default: a new directory of the extension's name)
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The project (default: the working directory)
    pub(crate) project: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
