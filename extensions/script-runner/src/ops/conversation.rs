//! The user, the session, other extensions and the client behind the front end.

use pi_vers_sdk::bindings::vers::harness::client::{Listing, Question, QuestionKind};
use pi_vers_sdk::bindings::vers::harness::session::Delivery;
use pi_vers_sdk::bindings::vers::harness::ui::{Dialog, Severity};
use pi_vers_sdk::harness::{bus, client as caller, session as talk, ui};
use pi_vers_sdk::{Error, FlagValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Outcome, Request, convert, unknown};
use crate::scope::Scope;

#[derive(Deserialize)]
struct Ask {
    title: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    options: Vec<String>,
    timeout: Option<u64>,
}

/// A question to the user.
pub(super) async fn dialog(request: &Request) -> Outcome {
    let Ask {
        title,
        text,
        options,
        timeout,
    } = request.read()?;
    let dialog = Dialog { title, timeout };
    Ok(match request.operation.as_str() {
        "ui.select" => ui::select(dialog, options).await?.into(),
        "ui.confirm" => ui::confirm(dialog, text).await?.into(),
        "ui.input" => ui::input(dialog, text).await?.into(),
        "ui.edit" => ui::edit(dialog, text).await?.into(),
        _ => return Err(unknown(request)),
    })
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Said {
    #[serde(default)]
    message: Value,
    #[serde(default)]
    content: Value,
    delivery: Option<String>,
    #[serde(default)]
    trigger_turn: bool,
    kind: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    names: Vec<String>,
}

fn delivery(word: Option<&str>) -> Result<Delivery, Error> {
    match word {
        None | Some("follow-up") => Ok(Delivery::FollowUp),
        Some("steer") => Ok(Delivery::Steer),
        Some("next-turn") => Ok(Delivery::NextTurn),
        Some(other) => Err(Error::Invalid(format!(
            "{other} is none of steer, follow-up and next-turn"
        ))),
    }
}

/// The conversation, as far as it has to be waited for.
pub(super) async fn session(scope: &Scope, request: &Request) -> Outcome {
    let said: Said = request.read()?;
    match request.operation.as_str() {
        "session.sendMessage" => {
            let message = convert::message(said.message)?;
            talk::send_message(
                message,
                delivery(said.delivery.as_deref())?,
                said.trigger_turn,
            )
            .await?;
        }
        "session.sendUserMessage" => {
            let content = convert::content(said.content)?;
            talk::send_user_message(content, delivery(said.delivery.as_deref())?).await?;
        }
        "session.appendEntry" => {
            talk::append_entry(said.kind.unwrap_or_default(), said.data.to_string()).await?;
        }
        "session.entries" => {
            let entries = talk::entries(said.kind).await?;
            return Ok(entries.iter().map(|text| convert::parsed(text)).collect());
        }
        "session.setActiveTools" => talk::set_active_tools(said.names).await?,
        "session.runBuiltIn" => {
            let call = scope.call.as_ref();
            let call = call.ok_or_else(|| Error::Conflict("this is no call of a tool".into()))?;
            return convert::said(talk::run_built_in(call).await);
        }
        _ => return Err(unknown(request)),
    }
    Ok(Value::Null)
}

#[derive(Deserialize)]
struct Questions {
    questions: Vec<SaidQuestion>,
}

#[derive(Deserialize)]
struct SaidQuestion {
    key: String,
    kind: String,
    #[serde(default)]
    parameters: Value,
}

fn question_kind(word: &str) -> Result<QuestionKind, Error> {
    match word {
        "form" => Ok(QuestionKind::Form),
        "sampling" => Ok(QuestionKind::Sampling),
        "roots" => Ok(QuestionKind::Roots),
        other => Err(Error::Invalid(format!(
            "{other} is none of form, sampling and roots"
        ))),
    }
}

/// The client, where it can do more than show dialogs.
pub(super) async fn client(request: &Request) -> Outcome {
    if request.operation != "client.ask" {
        return Err(unknown(request));
    }
    let asked: Questions = request.read()?;
    let questions: Result<Vec<Question>, Error> = asked
        .questions
        .into_iter()
        .map(|question| {
            Ok(Question {
                key: question.key,
                kind: question_kind(&question.kind)?,
                parameters: match question.parameters {
                    Value::Null => "{}".into(),
                    given => given.to_string(),
                },
            })
        })
        .collect();
    let answers = caller::ask(questions?).await?;
    let answers = answers
        .into_iter()
        .map(|(key, answer)| (key, convert::parsed(&answer)));
    Ok(Value::Object(answers.collect()))
}

#[derive(Deserialize, Default)]
struct Now {
    #[serde(default)]
    message: String,
    severity: Option<String>,
    #[serde(default)]
    key: String,
    #[serde(default)]
    line: Value,
    #[serde(default)]
    lines: Value,
    #[serde(default)]
    name: String,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    data: Value,
}

/// What never waits.
pub(super) fn now(request: &Request) -> Outcome {
    let now: Now = request.read()?;
    Ok(match request.operation.as_str() {
        "ui.available" => ui::available().into(),
        "ui.notify" => {
            let severity = match now.severity.as_deref() {
                Some("warning") => Severity::Warning,
                Some("error") => Severity::Error,
                _ => Severity::Info,
            };
            ui::notify(&now.message, severity);
            Value::Null
        }
        "ui.status" => {
            let line = convert::line(now.line)?;
            ui::set_status(&now.key, line.as_deref());
            Value::Null
        }
        "ui.widget" => {
            let lines = convert::lines(now.lines)?;
            ui::set_widget(&now.key, lines.as_deref());
            Value::Null
        }
        "session.workingDirectory" => talk::working_directory().into(),
        "session.id" => talk::id().into(),
        "session.flag" => match talk::flag(&now.name) {
            Some(FlagValue::Boolean(value)) => value.into(),
            Some(FlagValue::Text(value)) => value.into(),
            Some(FlagValue::Number(value)) => json!(value),
            None => Value::Null,
        },
        "session.variable" => talk::variable(&now.name)?.into(),
        "session.hasSecret" => talk::has_secret(&now.name).into(),
        "session.activeTools" => talk::active_tools().into(),
        "session.allTools" => talk::all_tools().into(),
        "session.isIdle" => talk::is_idle().into(),
        "bus.emit" => {
            bus::emit(&now.topic, &now.data.to_string());
            Value::Null
        }
        "client.offers" => caller::offers(question_kind(&now.name)?).into(),
        "client.listChanged" => {
            caller::list_changed(match now.name.as_str() {
                "tools" => Listing::Tools,
                "prompts" => Listing::Prompts,
                "resources" => Listing::Resources,
                other => {
                    return Err(Error::Invalid(format!(
                        "{other} is none of tools, prompts and resources"
                    )));
                }
            });
            Value::Null
        }
        _ => return Err(unknown(request)),
    })
}
