//! A request in the words of the command line.

use std::path::Path;

use clap::Args;
use pi_vers_host::platform::VmId;
use pi_vers_host::policy::{
    Access, ClientVerb, Command, Decision, FleetVerb, Grants, Ground, Request, SecretUse,
    SessionVerb, UiVerb, Vm, VmVerb, normalise,
};

use crate::failure::Failure;

/// What is known of the VM, or of the program to start.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct About {
    /// A label that the VM has
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// The extension made the VM in the same session
    #[arg(long)]
    pub(crate) own: bool,
    /// A variable that the command is given
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Vec<String>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".into()),
    }
}

/// What the policy says to a request, and why.
pub(super) struct Said {
    pub(super) capability: String,
    pub(super) decision: Decision,
    pub(super) grounds: Vec<Ground>,
}

/// Judges what the words ask for. Paths are as seen from the working directory.
pub(super) fn judge(
    grants: &Grants,
    words: &[String],
    about: &About,
    directory: &Path,
) -> Result<Said, Failure> {
    let Some((capability, rest)) = words.split_first() else {
        return Err(Failure::usage("name a capability, for example vms.list"));
    };
    let said = |request: &Request<'_>| {
        Ok(Said {
            capability: request.capability(),
            decision: grants.decide(request),
            grounds: grants.grounds(request),
        })
    };
    let texts: Vec<&str> = rest.iter().map(String::as_str).collect();
    let env: Vec<&str> = about.env.iter().map(String::as_str).collect();
    let vm = |id: &str| -> Result<String, Failure> { Ok(id.parse::<VmId>()?.to_string()) };
    let of = |text: &str| normalise(directory, text).map_err(|why| Failure::usage(why.to_string()));
    let wrong = |what: &str| {
        Failure::usage(format!("{capability} takes {what}"))
            .next("`pi-vers policy explain --help` lists what can be asked for")
    };
    let (family, verb) = capability.split_once('.').unwrap_or((capability, ""));
    match (family, verb, texts.as_slice()) {
        ("vms", verb, rest) => {
            let verb = VmVerb::parse(verb)
                .ok_or_else(|| unknown_verb("vms", VmVerb::ALL.iter().map(|verb| verb.name())))?;
            match (verb.needs_vm(), rest) {
                (false, []) => said(&Request::Vms { verb }),
                (true, [id]) => {
                    let id = vm(id)?;
                    let vm = about.vm(&id);
                    match verb {
                        VmVerb::Labels => said(&Request::VmLabels { vm, labels: &[] }),
                        verb => said(&Request::Vm { verb, vm }),
                    }
                }
                (false, _) => Err(wrong("nothing else")),
                (true, _) => Err(wrong("one VM's id")),
            }
        }
        ("shell", "", [id]) => {
            let id = vm(id)?;
            said(&Request::ShellConnect { vm: about.vm(&id) })
        }
        ("shell", "", [id, ..]) => {
            let id = vm(id)?;
            said(&Request::ShellSpawn {
                vm: about.vm(&id),
                command: Command::Argv(rest.get(1..).unwrap_or_default()),
                working_directory: None,
                env: &env,
            })
        }
        ("shell", "files", [id, mode, path]) => {
            let (id, access) = (vm(id)?, access(mode)?);
            said(&Request::VmFile {
                vm: about.vm(&id),
                path,
                access,
            })
        }
        ("shell", "ports", [id, port]) => {
            let id = vm(id)?;
            let remote = port.parse().map_err(|_| wrong("a VM's id and a port"))?;
            said(&Request::ForwardPort {
                vm: about.vm(&id),
                remote,
                local: None,
            })
        }
        ("shell", ..) => Err(wrong("a VM's id and more")),
        ("process", "", [program, ..]) => {
            let path: Vec<_> = std::env::var_os("PATH")
                .map(|path| {
                    std::env::split_paths(&path)
                        .filter(|part| part.is_absolute())
                        .collect()
                })
                .unwrap_or_default();
            let program = pi_vers_system::process::resolve_program(program, &path)
                .map_err(|why| Failure::usage(why.to_string()))?;
            said(&Request::Process {
                program: &program,
                args: rest.get(1..).unwrap_or_default(),
                working_directory: directory,
                env: &env,
            })
        }
        ("files", "", [mode, path]) => {
            let (path, access) = (of(path)?, access(mode)?);
            said(&Request::LocalFile {
                path: &path,
                access,
            })
        }
        ("http", "", [.., url]) if texts.len() <= 2 => {
            let method = match texts.as_slice() {
                [method, _] => method,
                _ => "GET",
            };
            let url = url
                .parse()
                .map_err(|why| Failure::usage(format!("the URL is not valid: {why}")))?;
            said(&Request::Http { method, url: &url })
        }
        ("secrets", "", [name, "vm", "env"]) => said(&Request::Secret {
            name,
            to: SecretUse::VmEnv,
        }),
        ("secrets", "", [name, "child", "env", program]) => {
            let program = of(program)?;
            said(&Request::Secret {
                name,
                to: SecretUse::ChildEnv { program: &program },
            })
        }
        ("secrets", "", [name, "http", url]) => {
            let url = url
                .parse()
                .map_err(|why| Failure::usage(format!("the URL is not valid: {why}")))?;
            said(&Request::Secret {
                name,
                to: SecretUse::HttpHeader { url: &url },
            })
        }
        ("environment", "", [name]) => said(&Request::Variable { name }),
        ("bus", "", [topic]) => said(&Request::Bus { topic }),
        ("events", "", [name]) => said(&Request::Event { name }),
        ("replace", "", [name]) => said(&Request::ReplaceTool { name }),
        ("store", "", []) => said(&Request::Store),
        ("log", "", []) => said(&Request::Log),
        ("ui", verb, []) => {
            let verb = UiVerb::parse(verb)
                .ok_or_else(|| unknown_verb("ui", UiVerb::ALL.iter().map(|verb| verb.name())))?;
            said(&Request::Ui { verb })
        }
        ("client", verb, []) => {
            let verb = ClientVerb::parse(verb).ok_or_else(|| {
                unknown_verb("client", ClientVerb::ALL.iter().map(|verb| verb.name()))
            })?;
            said(&Request::Client { verb })
        }
        ("session", verb, []) => {
            let verb = SessionVerb::parse(verb).ok_or_else(|| {
                unknown_verb("session", SessionVerb::ALL.iter().map(|verb| verb.name()))
            })?;
            said(&Request::Session { verb })
        }
        ("fleet", verb, []) => {
            let verb = FleetVerb::parse(verb).ok_or_else(|| {
                unknown_verb("fleet", FleetVerb::ALL.iter().map(|verb| verb.name()))
            })?;
            said(&Request::Fleet { verb })
        }
        _ => Err(wrong("other words, or is no capability")),
    }
}

impl About {
    fn vm<'a>(&'a self, id: &'a str) -> Vm<'a> {
        Vm {
            id,
            labels: &self.label,
            own: self.own,
        }
    }
}

fn access(word: &str) -> Result<Access, Failure> {
    match word {
        "ro" | "read" => Ok(Access::Read),
        "rw" | "write" => Ok(Access::Write),
        _ => Err(Failure::usage("say ro or rw before the path")),
    }
}

fn unknown_verb(family: &str, verbs: impl Iterator<Item = &'static str>) -> Failure {
    let all: Vec<String> = verbs.map(|verb| format!("{family}.{verb}")).collect();
    Failure::usage(format!("there is {}", all.join(", ")))
}
