//! `pi-vers tools`: what there is to call.

use std::sync::Arc;

use pi_vers_host::{Extension, Tool, visible};
use serde_json::{Value, json};

use crate::args::Tools;
use crate::failure::{Code, Failure};
use crate::setup;
use crate::terminal::{Style, Terminal};

/// Lists the tools, or shows one.
pub(crate) async fn tools(terminal: Arc<Terminal>, options: Tools) -> Result<Code, Failure> {
    let (host, extensions) = setup::load(&options.loading, setup::settings()?).await?;
    let harness = crate::harness::CommandLine::new(
        terminal.clone(),
        None,
        std::collections::BTreeMap::new(),
    )?;
    let session = host.session(Arc::new(harness), extensions)?;
    let offers = session.tools();
    if let Some(name) = &options.tool {
        let Some(offer) = offers.iter().find(|offer| offer.item.name == *name) else {
            // The session knows which name is like it.
            let refused = session.call(name, Value::Null).outcome().await;
            return Err(refused.err().map_or_else(
                || Failure::internal("a tool that is not offered ran"),
                Failure::from,
            ));
        };
        if options.json {
            terminal.line(described(&offer.item, &offer.extension).to_string());
        } else {
            whole(&terminal, &offer.item, &offer.extension);
        }
    } else if options.json {
        let all: Vec<Value> = offers
            .iter()
            .map(|offer| described(&offer.item, &offer.extension))
            .collect();
        terminal.line(Value::from(all).to_string());
    } else {
        for extension in session.extensions() {
            let own: Vec<&Tool> = offers
                .iter()
                .filter(|offer| offer.extension == extension.name())
                .map(|offer| &offer.item)
                .collect();
            list(&terminal, extension, &own);
        }
    }
    session.end().await;
    Ok(Code::Ok)
}

fn list(terminal: &Terminal, extension: &Extension, tools: &[&Tool]) {
    let info = extension.info();
    let title = format!("{} {}", info.name, info.version);
    terminal.line(format!(
        "{}  {}",
        terminal.styled(Style::Bold, &title),
        terminal.styled(Style::Dim, &visible(extension.origin()))
    ));
    let width = tools
        .iter()
        .map(|tool| tool.name.len())
        .max()
        .unwrap_or_default();
    for tool in tools {
        terminal.line(format!(
            "  {:width$}  {}",
            tool.name,
            sentence(&tool.description)
        ));
    }
    let left_out: Vec<&str> = info
        .tools
        .iter()
        .filter(|tool| !tools.iter().any(|own| own.name == tool.name))
        .map(|tool| tool.name.as_str())
        .collect();
    if !left_out.is_empty() {
        terminal.line(format!(
            "  not offered here: {} (`pi-vers inspect` says what the extension may do)",
            left_out.join(", ")
        ));
    }
}

fn whole(terminal: &Terminal, tool: &Tool, extension: &str) {
    terminal.line(format!(
        "{}  {}",
        terminal.styled(Style::Bold, &tool.name),
        terminal.styled(Style::Dim, extension)
    ));
    terminal.line(&tool.description);
    terminal.line(pretty(&tool.parameters));
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).map_or_else(|_| value.to_string(), |text| visible(&text))
}

fn described(tool: &Tool, extension: &str) -> Value {
    let mut value = json!(tool);
    if let Some(object) = value.as_object_mut() {
        object.insert("extension".into(), extension.into());
    }
    value
}

/// The first sentence, on one line.
fn sentence(text: &str) -> String {
    let line = text.replace('\n', " ");
    line.split_inclusive(". ")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_first_sentences() {
        assert_eq!(sentence("Reads a\nfile. And more."), "Reads a file.");
        assert_eq!(sentence("Version 0.1 of it"), "Version 0.1 of it");
        assert_eq!(sentence(""), "");
    }
}
