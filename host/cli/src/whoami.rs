//! `pi-vers whoami`: which platform and account calls go to.

use std::sync::Arc;

use serde_json::json;
use vers_client::Api;

use crate::args::Whoami;
use crate::failure::{Code, Failure};
use crate::local::Local;
use crate::terminal::Terminal;
use crate::{dirs, doctor, setup};

/// Asks the platform whose the key is.
pub(crate) async fn whoami(terminal: Arc<Terminal>, options: Whoami) -> Result<Code, Failure> {
    let local = if options.local {
        Some(Local::running(&dirs::local(options.state.as_deref())?).await?)
    } else {
        None
    };
    let settings = local
        .as_ref()
        .map_or_else(setup::settings, Local::settings)?;
    let source = match &local {
        Some(_) => "the local platform's own".to_owned(),
        None => {
            settings.api_key().await?;
            doctor::key_source(&settings)
        }
    };
    let base = settings.base_url().to_string();
    let identity = Api::new(settings)?.whoami().await?;
    if options.json {
        let value = json!({
            "platform": base,
            "key_source": source,
            "user": { "id": identity.user.id, "email": identity.user.email },
            "org": { "id": identity.org.id, "name": identity.org.name },
            "local": options.local,
        });
        terminal.line(value.to_string());
        return Ok(Code::Ok);
    }
    let known = |text: &str| {
        if text.is_empty() {
            "unknown".to_owned()
        } else {
            pi_vers_host::visible(text)
        }
    };
    terminal.line(format!("platform  {base}"));
    terminal.line(format!("key       {source}"));
    terminal.line(format!(
        "user      {} ({})",
        known(&identity.user.email),
        known(&identity.user.id)
    ));
    terminal.line(format!(
        "org       {} ({})",
        known(&identity.org.name),
        known(&identity.org.id)
    ));
    Ok(Code::Ok)
}
