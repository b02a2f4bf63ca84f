//! Embeds the host: loads one extension, calls one of its tools, shows what it says meanwhile.
//! `cargo run --release -p pi-vers-host --example embed -- my.wasm my_tool '{"key": "value"}'`

use std::sync::Arc;

use pi_vers_host::policy::Policy;
use pi_vers_host::{Headless, Host};

#[tokio::main]
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example speaks to a terminal"
)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (file, tool) = arguments
        .next()
        .zip(arguments.next())
        .ok_or("give a component and a tool")?;
    let json = serde_json::from_str(arguments.next().as_deref().unwrap_or("{}"))?;

    let host = Host::builder().policy(Policy::empty()).build()?;
    let extension = host.load_file(file.as_ref()).await?;
    let session = host.session(Arc::new(Headless::new(".")), vec![extension])?;
    let mut call = session.call(&tool, json);
    let mut updates = call.updates();
    tokio::spawn(async move {
        while updates.changed().await.is_ok() {
            eprintln!("{:?}", updates.borrow_and_update().content);
        }
    });
    println!("{}", call.outcome().await?.text());
    session.end().await;
    Ok(())
}
