//! An extension declared in one place: each tool beside the function that runs it, its schema made from the function's own type.
//!
//! ```
//! use pi_vers_sdk::declare::{Declaration, JsonSchema, schemars, tool};
//! use pi_vers_sdk::{ToolCall, ToolError};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Greeting {
//!     /// Who is greeted
//!     name: String,
//!     /// How often (default: once)
//!     times: Option<u32>,
//! }
//!
//! async fn greet(_call: &ToolCall, greeting: Greeting) -> Result<String, ToolError> {
//!     Ok(format!("Hello, {}! ", greeting.name).repeat(greeting.times.unwrap_or(1) as usize))
//! }
//!
//! fn hello() -> Declaration {
//!     Declaration::new("hello", "0.1.0", "Says hello")
//!         .tool(tool("greet", "Greet", "Greets somebody.").read_only().idempotent(), greet)
//! }
//!
//! pi_vers_sdk::extension!(hello);
//! # fn main() {}
//! ```
//!
//! The documentation of a field is what a model reads about it; an `Option` need not be given, and nothing but the fields may be. What a
//! schema cannot say stays in the type: `#[schemars(range(min = 1))]` and the like do both. An extension that needs more than functions,
//! implements [`Extension`](crate::Extension) itself.

use std::rc::Rc;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use schemars::{self, JsonSchema};

use crate::{
    Answer, Command, Completion, Error, Event, ExtensionInfo, Flag, FlagValue, Hints, Reason,
    Shortcut, Tool, ToolCall, ToolError, ToolResult,
};
use crate::{args, background};

type Run = Rc<dyn Fn(ToolCall) -> LocalBoxFuture<'static, Result<ToolResult, ToolError>>>;
type RunCommand = Rc<dyn Fn(String) -> LocalBoxFuture<'static, Result<(), Error>>>;
type Complete = Rc<dyn Fn(String) -> LocalBoxFuture<'static, Vec<Completion>>>;
type Start = Rc<dyn Fn(Reason) -> LocalBoxFuture<'static, Result<(), Error>>>;
type Stop = Rc<dyn Fn() -> LocalBoxFuture<'static, ()>>;
type Handle = Rc<dyn Fn(Event) -> LocalBoxFuture<'static, Answer>>;

/// Arguments of a tool that has none.
#[derive(Debug, serde::Deserialize, JsonSchema)]
pub struct Nothing {}

/// A tool before its function is known; from [`tool`].
#[derive(Debug, Clone)]
pub struct ToolSpec {
    name: String,
    label: String,
    description: String,
    hints: Hints,
    output: Option<Value>,
    only_replaces: bool,
}

/// A tool: its name for the model, its name for people, and what the model reads about it.
#[must_use]
pub fn tool(name: &str, label: &str, description: &str) -> ToolSpec {
    ToolSpec {
        name: name.into(),
        label: label.into(),
        description: description.into(),
        hints: Hints::empty(),
        output: None,
        only_replaces: false,
    }
}

impl ToolSpec {
    fn hint(mut self, hint: Hints) -> Self {
        self.hints |= hint;
        self
    }

    /// It changes nothing.
    #[must_use]
    pub fn read_only(self) -> Self {
        self.hint(Hints::READ_ONLY)
    }

    /// It may destroy something.
    #[must_use]
    pub fn destructive(self) -> Self {
        self.hint(Hints::DESTRUCTIVE)
    }

    /// Twice is the same as once.
    #[must_use]
    pub fn idempotent(self) -> Self {
        self.hint(Hints::IDEMPOTENT)
    }

    /// It reaches beyond this machine.
    #[must_use]
    pub fn open_world(self) -> Self {
        self.hint(Hints::OPEN_WORLD)
    }

    /// It may take minutes. A tool that only waits, then answers before its caller is gone: see [`call::patiently`](crate::call::patiently) and
    /// [`background::outlasting`].
    #[must_use]
    pub fn long_running(self) -> Self {
        self.hint(Hints::LONG_RUNNING)
    }

    /// It makes sense as a task only: a client that knows no tasks is not offered it.
    #[must_use]
    pub fn task_only(self) -> Self {
        self.hint(Hints::TASK_ONLY)
    }

    /// It takes the place of a tool of the harness, and is offered only where there is one of this name.
    #[must_use]
    pub fn only_replaces(mut self) -> Self {
        self.only_replaces = true;
        self
    }

    /// Its results have [`ToolResult::structured`] of this type.
    #[must_use]
    pub fn output<T: JsonSchema>(mut self) -> Self {
        self.output = Some(schema::<T>());
        self
    }
}

/// What an extension offers, and what runs.
#[derive(Clone)]
pub struct Declaration {
    info: ExtensionInfo,
    tools: Vec<(String, Run)>,
    commands: Vec<(String, RunCommand, Option<Complete>)>,
    start: Option<Start>,
    stop: Option<Stop>,
    handle: Option<Handle>,
}

impl std::fmt::Debug for Declaration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Declaration")
            .field("name", &self.info.name)
            .finish_non_exhaustive()
    }
}

impl Declaration {
    /// An extension that offers nothing yet.
    #[must_use]
    pub fn new(name: &str, version: &str, summary: &str) -> Self {
        Self {
            info: ExtensionInfo {
                name: name.into(),
                version: version.into(),
                summary: summary.into(),
                tools: Vec::new(),
                commands: Vec::new(),
                shortcuts: Vec::new(),
                flags: Vec::new(),
                subscriptions: Vec::new(),
                topics: Vec::new(),
            },
            tools: Vec::new(),
            commands: Vec::new(),
            start: None,
            stop: None,
            handle: None,
        }
    }

    /// With this tool. The function gets its arguments as a value of its own type; a text is a result, and so is an error in words.
    #[must_use]
    pub fn tool<A, R, E>(
        mut self,
        spec: ToolSpec,
        run: impl AsyncFn(&ToolCall, A) -> Result<R, E> + 'static,
    ) -> Self
    where
        A: DeserializeOwned + JsonSchema + 'static,
        R: Into<ToolResult>,
        E: Into<ToolError>,
    {
        self.info.tools.push(Tool {
            name: spec.name.clone(),
            label: spec.label,
            description: spec.description,
            parameters: schema::<A>().to_string(),
            output: spec.output.map(|schema| schema.to_string()),
            hints: spec.hints,
            only_replaces: spec.only_replaces,
        });
        let run = Rc::new(run);
        let run = move |call: ToolCall| {
            let run = run.clone();
            async move {
                let arguments: A = arguments(&call.arguments()).map_err(ToolError::Capability)?;
                run(&call, arguments)
                    .await
                    .map(Into::into)
                    .map_err(Into::into)
            }
            .boxed_local()
        };
        self.tools.push((spec.name, Rc::new(run)));
        self
    }

    /// With this slash command; `usage` is what follows its name, for example `[vm-id]`. The function gets the text that followed.
    #[must_use]
    pub fn command(
        mut self,
        name: &str,
        description: &str,
        usage: Option<&str>,
        run: impl AsyncFn(String) -> Result<(), Error> + 'static,
    ) -> Self {
        self.info.commands.push(Command {
            name: name.into(),
            description: description.into(),
            arguments: usage.map(str::to_owned),
        });
        let run = Rc::new(run);
        let run = move |text: String| {
            let run = run.clone();
            async move { run(text).await }.boxed_local()
        };
        self.commands.push((name.into(), Rc::new(run), None));
        self
    }

    /// With completions of the arguments of the command that was declared last.
    #[must_use]
    pub fn completed_by(
        mut self,
        complete: impl AsyncFn(String) -> Vec<Completion> + 'static,
    ) -> Self {
        let complete = Rc::new(complete);
        let complete = move |prefix: String| {
            let complete = complete.clone();
            async move { complete(prefix).await }.boxed_local()
        };
        if let Some((_, _, slot)) = self.commands.last_mut() {
            *slot = Some(Rc::new(complete));
        }
        self
    }

    /// With a key that runs a command.
    #[must_use]
    pub fn shortcut(mut self, key: &str, description: &str, command: &str) -> Self {
        self.info.shortcuts.push(Shortcut {
            key: key.into(),
            description: description.into(),
            command: command.into(),
        });
        self
    }

    /// With a flag of the harness's command line.
    #[must_use]
    pub fn flag(mut self, name: &str, description: &str, default: FlagValue) -> Self {
        self.info.flags.push(Flag {
            name: name.into(),
            description: description.into(),
            default,
        });
        self
    }

    /// Runs when the session starts, before any call. [`background::spawn`] works without it, from there on.
    #[must_use]
    pub fn start(mut self, start: impl AsyncFn(Reason) -> Result<(), Error> + 'static) -> Self {
        let start = Rc::new(start);
        self.start = Some(Rc::new(move |reason| {
            let start = start.clone();
            async move { start(reason).await }.boxed_local()
        }));
        self
    }

    /// Runs when the session ends.
    #[must_use]
    pub fn stop(mut self, stop: impl AsyncFn() + 'static) -> Self {
        let stop = Rc::new(stop);
        self.stop = Some(Rc::new(move || {
            let stop = stop.clone();
            async move { stop().await }.boxed_local()
        }));
        self
    }

    /// Answers events of the harness by these names, and messages on these topics of the bus.
    #[must_use]
    pub fn events(
        mut self,
        names: &[&str],
        topics: &[&str],
        handle: impl AsyncFn(Event) -> Answer + 'static,
    ) -> Self {
        self.info.subscriptions = names.iter().map(|&name| name.to_owned()).collect();
        self.info.topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        let handle = Rc::new(handle);
        self.handle = Some(Rc::new(move |event| {
            let handle = handle.clone();
            async move { handle(event).await }.boxed_local()
        }));
        self
    }

    /// Each tool's name and those of its parameters, separated by spaces: what a test holds on to, because callers know them.
    #[must_use]
    pub fn signatures(&self) -> Vec<String> {
        let signature = |tool: &Tool| {
            let schema: Value = serde_json::from_str(&tool.parameters).unwrap_or_default();
            let names = schema.get("properties").and_then(Value::as_object);
            let names = names.into_iter().flat_map(|names| names.keys().cloned());
            let all: Vec<String> = std::iter::once(tool.name.clone()).chain(names).collect();
            all.join(" ")
        };
        self.info.tools.iter().map(signature).collect()
    }

    /// What the extension offers.
    #[must_use]
    pub fn info(&self) -> &ExtensionInfo {
        &self.info
    }

    /// Runs the tool that is called.
    ///
    /// # Errors
    /// The tool's own, or that there is none of that name.
    pub async fn run(&self, call: ToolCall) -> Result<ToolResult, ToolError> {
        let name = call.tool();
        match self.tools.iter().find(|(known, _)| *known == name) {
            Some((_, run)) => run(call).await,
            None => Err(Error::NotFound(format!("There is no tool {name}.")).into()),
        }
    }

    /// Runs a command.
    ///
    /// # Errors
    /// The command's own, or that there is none of that name.
    pub async fn run_command(&self, name: &str, text: String) -> Result<(), Error> {
        match self.commands.iter().find(|(known, ..)| known == name) {
            Some((_, run, _)) => run(text).await,
            None => Err(Error::NotFound(format!("There is no command {name}."))),
        }
    }

    /// Ways to go on typing a command's arguments.
    pub async fn complete(&self, name: &str, prefix: String) -> Vec<Completion> {
        let found = self.commands.iter().find(|(known, ..)| known == name);
        match found {
            Some((_, _, Some(complete))) => complete(prefix).await,
            _ => Vec::new(),
        }
    }

    #[doc(hidden)]
    pub async fn started(&self, reason: Reason) -> Result<(), Error> {
        background::open();
        match &self.start {
            Some(start) => start(reason).await,
            None => Ok(()),
        }
    }

    #[doc(hidden)]
    pub async fn stopped(&self) {
        if let Some(stop) = &self.stop {
            stop().await;
        }
    }

    #[doc(hidden)]
    pub async fn happened(&self, event: Event) -> Answer {
        match &self.handle {
            Some(handle) => handle(event).await,
            None => Answer::Proceed,
        }
    }
}

/// The JSON Schema of a type, as models read it: without the names of Rust types, and what may be left out is left out rather than null.
#[must_use]
pub fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    plain(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        // The documentation of the type is for who reads the program.
        object.remove("description");
        object
            .entry("properties")
            .or_insert_with(|| Value::Object(serde_json::Map::new()));
        object
            .entry("additionalProperties")
            .or_insert(Value::Bool(false));
    }
    schema
}

fn plain(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            // A property may be called so, too: then its value is a schema.
            if object.get("title").is_some_and(Value::is_string) {
                object.remove("title");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|one| one != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    object.insert("type".into(), one);
                }
            }
            if let Some(Value::Array(words)) = object.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            if let Some(Value::Array(all)) = object.get_mut("anyOf") {
                all.retain(|one| one.get("type").is_none_or(|one| one != "null"));
                if let [Value::Object(one)] = all.as_slice() {
                    let one = one.clone();
                    object.remove("anyOf");
                    for (key, value) in one {
                        object.entry(key).or_insert(value);
                    }
                }
            }
            // A number's width is the program's affair.
            if let Some(format) = object.get("format").and_then(Value::as_str)
                && (format.starts_with("int") || format.starts_with("uint") || format == "double")
            {
                object.remove("format");
            }
            // What is misspelt shall not be lost in silence.
            if object.get("properties").is_some_and(Value::is_object)
                && object.get("type").is_some_and(|kind| kind == "object")
            {
                object
                    .entry("additionalProperties")
                    .or_insert(Value::Bool(false));
            }
            // What a type is, is told where it is used.
            if let Some(Value::Object(items)) = object.get_mut("items")
                && items.get("type").is_some_and(|kind| kind == "object")
            {
                items.remove("description");
            }
            object.values_mut().for_each(plain);
        }
        Value::Array(all) => all.iter_mut().for_each(plain),
        _ => {}
    }
}

/// Arguments as their type. JSON Schema's `integer` admits `5.0`, which models write and serde refuses.
fn arguments<A: DeserializeOwned>(json: &str) -> Result<A, Error> {
    let mut value: Value = args::parse(json)?;
    whole(&mut value);
    serde_json::from_value(value).map_err(args::unfit)
}

fn whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "checked: whole, and exact in an f64"
            )]
            if let Some(float) = number.as_f64()
                && float.fract() == 0.0
                && float.abs() <= 9_007_199_254_740_992.0
            {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(all) => all.iter_mut().for_each(whole),
        Value::Object(all) => all.values_mut().for_each(whole),
        _ => {}
    }
}

impl From<String> for ToolResult {
    fn from(text: String) -> Self {
        crate::outcome::text(text)
    }
}

impl From<&str> for ToolResult {
    fn from(text: &str) -> Self {
        crate::outcome::text(text)
    }
}

/// A capability's error ends the call, and goes on as it is: `?` in a tool's function.
impl From<Error> for ToolError {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Cancelled,
            error => Self::Capability(error),
        }
    }
}

impl From<String> for ToolError {
    fn from(text: String) -> Self {
        crate::outcome::failed(text)
    }
}

impl From<&str> for ToolError {
    fn from(text: &str) -> Self {
        crate::outcome::failed(text)
    }
}

/// Makes a function that returns a [`Declaration`] the component's extension. Once in a crate. One that also publishes resources and prompts
/// names the type that implements [`Publisher`](crate::Publisher): `extension!(declare, MyPublisher)`.
#[macro_export]
macro_rules! extension {
    ($declare:path, $publisher:ident) => {
        $crate::extension!($declare);
        $crate::export_publisher!($publisher);
    };
    ($declare:path) => {
        #[doc(hidden)]
        struct DeclaredExtension;

        impl DeclaredExtension {
            fn get() -> std::rc::Rc<$crate::declare::Declaration> {
                std::thread_local! {
                    static DECLARED: std::rc::Rc<$crate::declare::Declaration> = std::rc::Rc::new($declare());
                }
                DECLARED.with(Clone::clone)
            }
        }

        impl $crate::Extension for DeclaredExtension {
            fn describe() -> $crate::ExtensionInfo {
                Self::get().info().clone()
            }
            async fn run(call: $crate::ToolCall) -> Result<$crate::ToolResult, $crate::ToolError> {
                Self::get().run(call).await
            }
            async fn start(reason: $crate::Reason) -> Result<(), $crate::Error> {
                Self::get().started(reason).await
            }
            async fn stop() {
                Self::get().stopped().await;
            }
            async fn command(name: String, arguments: String) -> Result<(), $crate::Error> {
                Self::get().run_command(&name, arguments).await
            }
            async fn complete(name: String, prefix: String) -> Vec<$crate::Completion> {
                Self::get().complete(&name, prefix).await
            }
            async fn handle(event: $crate::Event) -> $crate::Answer {
                Self::get().happened(event).await
            }
        }

        $crate::export!(DeclaredExtension);
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, dead_code)]
    use super::*;
    use serde_json::json;

    /// For who reads the program.
    #[derive(Debug, PartialEq, serde::Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    struct Args {
        /// Where to
        target_dir: String,
        /// How many
        #[schemars(range(min = 1))]
        count: Option<u32>,
        mode: Option<Mode>,
        /// Which ones
        #[serde(default)]
        only: Vec<String>,
        /// A property of this name is no name of a type
        title: Option<String>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Fast,
        Sure,
    }

    #[test]
    fn a_schema_reads_as_if_somebody_had_written_it() {
        let expected = json!({
            "type": "object",
            "properties": {
                "targetDir": { "description": "Where to", "type": "string" },
                "count": { "description": "How many", "type": "integer", "minimum": 1 },
                "mode": { "type": "string", "enum": ["fast", "sure"] },
                "only": { "description": "Which ones", "type": "array", "items": { "type": "string" }, "default": [] },
                "title": { "description": "A property of this name is no name of a type", "type": "string" },
            },
            "required": ["targetDir"],
            "additionalProperties": false,
        });
        assert_eq!(schema::<Args>(), expected);
        let nothing = json!({ "type": "object", "properties": {}, "additionalProperties": false });
        assert_eq!(schema::<Nothing>(), nothing);
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats_and_others_are_refused_in_words() {
        let args: Args = arguments(r#"{"targetDir":"a","count":5.0}"#).unwrap();
        assert_eq!(args.count, Some(5));
        for wrong in [
            r#"{"targetDir":"a","count":5.5}"#,
            r#"{"count":1}"#,
            "[",
            "7",
        ] {
            match arguments::<Args>(wrong) {
                Err(Error::Invalid(why)) => assert!(why.starts_with("The arguments"), "{why}"),
                other => unreachable!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_declaration_offers_what_was_declared_in_order() {
        let declaration = Declaration::new("x", "1", "X")
            .tool(
                tool("b", "B", "Does b.").read_only().long_running(),
                async |_: &ToolCall, _: Nothing| Ok::<_, ToolError>("done"),
            )
            .tool(
                tool("a", "A", "Does a."),
                async |_: &ToolCall, args: Args| Err::<String, _>(args.target_dir),
            )
            .command("go", "Goes", Some("[where]"), async |_| Ok(()))
            .completed_by(async |_| Vec::new())
            .events(&["tool-call"], &["topic"], async |_| Answer::Proceed);
        let info = declaration.info();
        let names: Vec<&str> = info.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        let hints: Vec<Hints> = info.tools.iter().map(|tool| tool.hints).collect();
        assert_eq!(
            hints,
            [Hints::READ_ONLY | Hints::LONG_RUNNING, Hints::empty()]
        );
        assert_eq!((info.subscriptions.len(), info.topics.len()), (1, 1));
        let complete = futures::FutureExt::now_or_never(declaration.complete("go", "x".into()));
        assert!(complete.is_some());
        let unknown =
            futures::FutureExt::now_or_never(declaration.run_command("stop", String::new()));
        assert!(matches!(unknown, Some(Err(Error::NotFound(_)))));
    }
}
