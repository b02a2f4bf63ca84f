//! `pi-vers mcp doctor`: would a client that starts `pi-vers mcp` get what it needs?
//!
//! It is started as clients start it, in both eras of the protocol, with a platform of the doctor's own that never answers: so a call can be under way,
//! and neither the account nor the state of any session is touched.

mod configured;
mod deaf;
mod eras;
mod peer;

use std::sync::Arc;

use self::deaf::Deaf;
use self::eras::Era;
use super::options::Doctor;
use crate::doctor::Checks;
use crate::failure::{Code, Failure};
use crate::terminal::Terminal;
use crate::{doctor, setup};

/// Checks it all.
pub(crate) async fn doctor(terminal: Arc<Terminal>, options: Doctor) -> Result<Code, Failure> {
    let mut checks = Checks::new(terminal, options.json);
    let state = tempfile::tempdir()
        .map_err(|why| Failure::internal(format!("cannot make a temporary directory: {why}")))?;
    let deaf = Deaf::start().await?;
    for era in [Era::Older, Era::Newer] {
        eras::check(&mut checks, era, &options.loading, &deaf, state.path()).await;
    }
    configured::check(&mut checks);
    match setup::settings() {
        Ok(settings) if !options.offline => doctor::platform(&mut checks, &settings).await,
        Ok(_) => {}
        Err(why) => checks.add("settings", Err(why)),
    }
    Ok(match checks.worst() {
        Code::Ok => Code::Ok,
        _ => Code::Tool,
    })
}
