//! Tools and prompts that a client asks for: started, gone on with, handed back, or turned into a task.

use std::sync::Arc;
use std::time::Duration;

use pi_vers_host::{CallError, Content, QuestionKind, ToolOutput, visible};
use rmcp::ErrorData;
use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock,
    CreateTaskResult, GetPromptRequestParams, GetPromptResponse, InputRequiredResult, JsonObject,
    MetaObject,
};
use rmcp::service::RequestContext;
use serde_json::Value;

use super::client::{Client, Offers};
use super::content::{block, unknown};
use super::home::Home;
use super::parking::{Made, Parking, Waiting};
use super::question::Answers;
use super::running::{GiveUp, Leg, Running, Step, ToolEnd};
use super::tasks;

/// Where a result keeps what is for user interfaces.
const DETAILS: &str = "pi-vers/details";
/// So many problems of arguments are named.
const MOST_PROBLEMS: usize = 8;
/// A tool that may take long and does not end within this becomes a task, where the client knows tasks.
const TASK_AFTER: Duration = Duration::from_millis(250);
/// What is said of a call that a ticket led to and that is gone.
const GONE: &str = "This call waits no more: its question was answered before, or nobody answered in time. Call it again from the beginning.";

/// What a request came to.
enum Reached<T> {
    Done(T, Option<QuestionKind>),
    Asked(InputRequiredResult),
    Long(Running<T>),
    GivenUp,
}

/// Goes on until the call is done, asks something that only another request can answer, or takes longer than `patience`.
async fn reach<T: Send + 'static>(
    mut running: Running<T>,
    parking: &Arc<Parking<T>>,
    made: &Made,
    leg: &mut Leg<'_>,
) -> Reached<T> {
    loop {
        let (waiting, ask, given) = match running.drive(leg).await {
            Step::Done(done, lacked) => return Reached::Done(done, lacked),
            Step::Long(running) => return Reached::Long(running),
            Step::GivenUp => return Reached::GivenUp,
            Step::Asks(running, ask, given) => (running, ask, given),
        };
        let waiting = Waiting {
            running: waiting,
            ask,
            given,
        };
        match parking.park(waiting, made.clone()) {
            Ok(asked) => return Reached::Asked(asked),
            Err(full) => {
                tracing::warn!("too many calls wait for an answer: this one gets none");
                let _ = full.ask.reply.send(None);
                running = full.running;
            }
        }
    }
}

/// Goes on with a call that was handed back, now that these answers came.
fn resumed<T: Send + 'static>(
    parking: &Arc<Parking<T>>,
    mut waiting: Waiting<T>,
    made: &Made,
    answers: &mut Answers,
) -> Result<Running<T>, Box<InputRequiredResult>> {
    let fresh = waiting.ask.questions.fitting(std::mem::take(answers));
    waiting.given.extend(fresh);
    // Where the extension waits no more there is nothing to ask again.
    if waiting.given.len() < waiting.ask.questions.requests(true).len()
        && !waiting.ask.reply.is_closed()
    {
        return match parking.park(waiting, made.clone()) {
            Ok(asked) => Err(Box::new(asked)),
            Err(full) => {
                let _ = full.ask.reply.send(None);
                Ok(full.running)
            }
        };
    }
    let _ = waiting.ask.reply.send(Some(waiting.given));
    Ok(waiting.running)
}

/// `tools/call`.
pub(crate) async fn tool(
    home: &Arc<Home>,
    request: CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let client = Client::of(context);
    let give_up = GiveUp::of(context, &home.end);
    let house = tokio::select! {
        biased;
        () = give_up.cancelled() => return Ok(said("The call was given up.").into()),
        house = home.house() => house,
    };
    let house = match house {
        Ok(house) => house,
        // The model shall see why.
        Err(why) => return Ok(said(&why.line()).into()),
    };
    let made = Made {
        name: request.name.to_string(),
        arguments: Value::Object(request.arguments.unwrap_or_default()),
    };
    let Some(entry) = house.catalogue.tools.get(&made.name) else {
        return Err(unknown("tool", &made.name));
    };
    if entry.task_only && !client.offers.tasks {
        return Err(lacking(Offers {
            tasks: true,
            ..Offers::default()
        }));
    }
    let mut answers = request.input_responses.unwrap_or_default();
    let running = match &request.request_state {
        None => {
            let arguments = made.arguments.clone();
            Running::tool(home, &house, client.offers, &entry.name, arguments)
        }
        Some(ticket) => match home.calls.take(ticket, &made)? {
            None => return Ok(said(GONE).into()),
            Some(waiting) => match resumed(&home.calls, waiting, &made, &mut answers) {
                Ok(running) => running,
                Err(asked) => return Ok((*asked).into()),
            },
        },
    };
    if entry.task_only
        && let Ok(task) = tasks::begin(home, &running.id)
    {
        return Ok(CreateTaskResult::new(task.run(running, entry.structured)).into());
    }
    let may_take_long = entry.long && client.offers.tasks;
    let mut leg = Leg {
        client: &client,
        give_up: &give_up,
        answers: &mut answers,
        patience: may_take_long.then_some(TASK_AFTER),
    };
    let mut reached = reach(running, &home.calls, &made, &mut leg).await;
    if let Reached::Long(running) = reached {
        reached = match tasks::begin(home, &running.id) {
            Ok(task) => {
                return Ok(CreateTaskResult::new(task.run(running, entry.structured)).into());
            }
            Err(tasks::Full) => {
                leg.patience = None;
                reach(running, &home.calls, &made, &mut leg).await
            }
        };
    }
    match reached {
        Reached::Done(done, lacked) => {
            if let (Err(CallError::Refused { .. }), Some(lacked), true) =
                (&done, lacked, client.modern)
            {
                return Err(lacking(Offers::only(lacked)));
            }
            Ok(result(&done, entry.structured).into())
        }
        Reached::Asked(asked) => Ok(asked.into()),
        Reached::GivenUp | Reached::Long(_) => Ok(said("The call was given up.").into()),
    }
}

/// `prompts/get`.
pub(crate) async fn prompt(
    home: &Arc<Home>,
    request: GetPromptRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<GetPromptResponse, ErrorData> {
    let client = Client::of(context);
    let give_up = GiveUp::of(context, &home.end);
    let given_up = || ErrorData::internal_error("the request was given up", None);
    let house = tokio::select! {
        biased;
        () = give_up.cancelled() => return Err(given_up()),
        house = home.house() => house,
    };
    let house = house.map_err(|why| ErrorData::internal_error(why.line(), None))?;
    let made = Made {
        name: request.name,
        arguments: Value::Object(request.arguments.unwrap_or_default()),
    };
    let mut answers = request.input_responses.unwrap_or_default();
    let running = match &request.request_state {
        None => match house.catalogue.prompts.get(&made.name) {
            Some(prompt) => {
                let arguments = made.arguments.get("arguments").and_then(Value::as_str);
                let arguments = arguments.unwrap_or_default().to_owned();
                Running::command(home, &house, client.offers, &made.name, prompt, arguments)
            }
            None => {
                let arguments = texts(&made.arguments);
                Running::published(home, &house, client.offers, &made.name, arguments)
            }
        },
        Some(ticket) => match home.prompts.take(ticket, &made)? {
            None => return Err(ErrorData::invalid_params(GONE, None)),
            Some(waiting) => match resumed(&home.prompts, waiting, &made, &mut answers) {
                Ok(running) => running,
                Err(asked) => return Ok((*asked).into()),
            },
        },
    };
    let mut leg = Leg {
        client: &client,
        give_up: &give_up,
        answers: &mut answers,
        patience: None,
    };
    match reach(running, &home.prompts, &made, &mut leg).await {
        Reached::Done(done, _) => done.map(Into::into),
        Reached::Asked(asked) => Ok(asked.into()),
        Reached::GivenUp | Reached::Long(_) => Err(given_up()),
    }
}

/// The arguments of a prompt, which are texts.
fn texts(arguments: &Value) -> Vec<(String, String)> {
    let all = arguments.as_object().into_iter().flatten();
    let text = |(name, value): (&String, &Value)| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), text)
    };
    all.map(text).collect()
}

/// The client has to offer what it does not.
fn lacking(offers: Offers) -> ErrorData {
    let mut capabilities = serde_json::json!({});
    if let Some(all) = capabilities.as_object_mut() {
        for (wanted, name) in [
            (offers.form, "elicitation"),
            (offers.sampling, "sampling"),
            (offers.roots, "roots"),
        ] {
            if wanted {
                all.insert(name.into(), serde_json::json!({}));
            }
        }
    }
    let named: ClientCapabilities = if offers.tasks {
        ClientCapabilities::builder().enable_tasks().build()
    } else {
        serde_json::from_value(capabilities).unwrap_or_default()
    };
    ErrorData::missing_required_client_capability(named)
}

/// A tool's result. What it declares to be for programs goes where clients take it instead of the text; what is for user
/// interfaces does not.
pub(crate) fn result(end: &ToolEnd, declared: bool) -> CallToolResult {
    match end {
        Ok(output) => told(output, declared, false),
        Err(why) => failed(why),
    }
}

fn told(output: &ToolOutput, declared: bool, is_error: bool) -> CallToolResult {
    let mut content: Vec<ContentBlock> = output.content.iter().map(block).collect();
    let structured = output.structured.clone().filter(|_| declared && !is_error);
    if content.is_empty()
        && let Some(structured) = &structured
    {
        content.push(ContentBlock::text(structured.to_string()));
    }
    let mut result = if is_error {
        CallToolResult::error(content)
    } else {
        CallToolResult::success(content)
    };
    result.structured_content = structured;
    if let Some(details) = &output.details {
        let mut meta = JsonObject::new();
        meta.insert(DETAILS.into(), details.clone());
        result.meta = Some(MetaObject(meta));
    }
    result
}

/// The result of a tool that has none, for the model to read.
pub(crate) fn said(text: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text)])
}

fn failed(why: &CallError) -> CallToolResult {
    let (text, output) = match why {
        CallError::Failed(output) => return told(output, false, true),
        CallError::Arguments { problems, .. } => {
            let mut text = "The arguments do not fit the tool's schema:".to_owned();
            for problem in problems.iter().take(MOST_PROBLEMS) {
                text.push_str(&format!("\n{problem}"));
            }
            (text, None)
        }
        CallError::TimedOut { output, .. } | CallError::Cancelled { output, .. } => {
            (why.to_string(), Some(output))
        }
        _ => (why.to_string(), None),
    };
    let mut all = output.cloned().unwrap_or_default();
    all.content.push(Content::Text(visible(&text)));
    told(&all, false, true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use pi_vers_host::Problem;
    use serde_json::json;

    fn text(result: &CallToolResult) -> &str {
        &result.content[0].as_text().unwrap().text
    }

    #[test]
    fn details_never_take_the_place_of_the_text() {
        let output = ToolOutput {
            content: vec![Content::text("for the model")],
            details: Some(json!({ "for": "people" })),
            structured: Some(json!({ "for": "programs" })),
        };
        let plain = told(&output, false, false);
        assert!(plain.structured_content.is_none());
        let meta = plain.meta.unwrap().0;
        assert_eq!(meta[DETAILS], json!({ "for": "people" }));
        let declared = told(&output, true, false);
        assert_eq!(
            declared.structured_content,
            Some(json!({ "for": "programs" }))
        );
        assert_eq!(text(&declared), "for the model");
        assert!(told(&output, true, true).structured_content.is_none());
    }

    #[test]
    fn wrong_arguments_are_a_result_with_a_line_for_each() {
        let problem = Problem {
            path: "/vmId".into(),
            message: "is no text".into(),
        };
        let why = CallError::Arguments {
            tool: "t".into(),
            problems: vec![problem; 20],
        };
        let result = failed(&why);
        assert_eq!(result.is_error, Some(true));
        let text = text(&result);
        assert_eq!(text.lines().count(), 1 + MOST_PROBLEMS);
        assert!(text.ends_with("/vmId: is no text"), "{text}");
    }
}
