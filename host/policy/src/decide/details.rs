//! What a human sees of a request: the facts, whole and printable.

use std::path::Path;

use crate::decision;
use crate::request::{Command, Request, SecretUse, Vm};

impl Request<'_> {
    /// The facts, by name: program, arguments, directory, environment names, VM, URL. Every text is whole and safe to print.
    ///
    /// `clean` sees each text before it is quoted or escaped: what looks for values, such as a redactor of secrets, finds them there as
    /// they are.
    pub fn facts(&self, clean: &dyn Fn(&str) -> String) -> Vec<(&'static str, String)> {
        details(self, clean)
    }
}

pub(super) fn details(
    request: &Request<'_>,
    clean: &dyn Fn(&str) -> String,
) -> Vec<(&'static str, String)> {
    let visible = |text: &str| decision::visible(&clean(text));
    let quoted = |text: &str| decision::quoted(&clean(text));
    let path = |path: &Path| visible(&path.to_string_lossy());
    let words = |words: &[String]| {
        words
            .iter()
            .map(|word| quoted(word))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let on = |vm: &Vm<'_>| ("VM", visible(vm.id));
    let pairs = |pairs: &[(String, String)]| {
        pairs
            .iter()
            .map(|(key, value)| quoted(&format!("{key}={value}")))
            .collect::<Vec<_>>()
            .join(" ")
    };
    match *request {
        Request::Log | Request::Timers | Request::OwnHandle | Request::Store => Vec::new(),
        Request::Vms { verb } => vec![("operation", verb.to_string())],
        Request::Vm { verb, vm } => vec![
            ("operation", verb.to_string()),
            on(&vm),
            ("labels", pairs(vm.labels)),
        ],
        Request::VmLabels { vm, labels } => vec![on(&vm), ("new labels", pairs(labels))],
        Request::ShellConnect { vm } => vec![on(&vm)],
        Request::ShellSpawn {
            vm,
            command,
            working_directory,
            env,
        } => vec![
            on(&vm),
            match command {
                Command::Argv(argv) => ("command", words(argv)),
                Command::Shell(script) => ("script", quoted(script)),
            },
            (
                "directory",
                working_directory.map_or_else(|| "home".into(), visible),
            ),
            ("environment", visible(&env.join(" "))),
        ],
        Request::ShellFollow { vm, path } => vec![on(&vm), ("file", visible(path))],
        Request::ForwardPort { vm, remote, local } => {
            vec![
                on(&vm),
                ("port", remote.to_string()),
                (
                    "local port",
                    local.map_or_else(|| "any".into(), |port| port.to_string()),
                ),
            ]
        }
        Request::VmFile { vm, path, access } => vec![
            on(&vm),
            ("file", visible(path)),
            ("access", access.to_string()),
        ],
        Request::Process {
            program,
            args,
            working_directory,
            env,
        } => vec![
            ("program", path(program)),
            ("arguments", words(args)),
            ("directory", path(working_directory)),
            ("environment", visible(&env.join(" "))),
        ],
        Request::LocalFile { path: file, access } => {
            vec![("file", path(file)), ("access", access.to_string())]
        }
        Request::Http { method, url } => {
            vec![("method", visible(method)), ("URL", visible(url.as_str()))]
        }
        Request::HttpAddress {
            method,
            url,
            address,
        } => {
            vec![
                ("method", visible(method)),
                ("URL", visible(url.as_str())),
                ("address", address.to_string()),
            ]
        }
        Request::Variable { name } => vec![("variable", visible(name))],
        Request::Secret { name, to } => vec![
            ("secret", visible(name)),
            match to {
                SecretUse::ChildEnv { program } => ("into the environment of", path(program)),
                SecretUse::VmEnv => ("into the environment of", "a command on a VM".into()),
                SecretUse::HttpHeader { url } => (
                    "into a header for",
                    visible(&url.origin().ascii_serialization()),
                ),
            },
        ],
        Request::Ui { verb } => vec![("operation", verb.to_string())],
        Request::Client { verb } => vec![("operation", verb.to_string())],
        Request::Session { verb } => vec![("operation", verb.to_string())],
        Request::Fleet { verb } => vec![("operation", verb.to_string())],
        Request::Bus { topic } => vec![("topic", visible(topic))],
        Request::Event { name } | Request::ReplaceTool { name } => vec![("name", visible(name))],
    }
}
