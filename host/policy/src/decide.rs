//! The decision itself: deny by default, one exhaustive `match` over every request.
//!
//! Every layer (the user's file, then the project's) judges by itself; one refusal refuses, and one question asks. So
//! what a project says can only take away: nothing has to be intersected, and nothing can be got wrong in doing so.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use crate::decision::{Decision, Denial, Fix, Question, brief, quoted};
use crate::policy::Grants;
use crate::request::{Access, ClientVerb, Request, SessionVerb, UiVerb, VmVerb};
use crate::rules::{Rules, list};

mod details;
mod grounds;
mod platform;
mod system;

/// The longest question a human can be expected to read.
const READABLE: usize = 4_000;

impl Grants {
    /// Whether this extension may do this. Touches nothing; the same answer every time.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        if self.describing {
            return match request {
                Request::Log => Decision::Allow,
                _ => Decision::Deny(
                    Refusal::new("describe", "do anything but log while it describes itself")
                        .denial(self, None),
                ),
            };
        }
        if self.changed {
            return self.decide_for_other_bytes(request);
        }
        self.decide_by_layers(request)
    }

    /// What the harmless defaults allow, without what belongs to the bytes that had the name before; a denial says how that came.
    fn decide_for_other_bytes(&self, request: &Request<'_>) -> Decision {
        const WHY: &str = "its bytes are not those that its name was granted anything for: look at it with `pi-vers inspect`, and grant it anew";
        let kept = matches!(
            request,
            Request::Store
                | Request::Session {
                    verb: SessionVerb::AppendEntry | SessionVerb::Entries
                }
        );
        if kept {
            let what = "use what was kept for other bytes of its name";
            let refusal = Refusal::new(request.capability(), what).because(WHY);
            return Decision::Deny(refusal.denial(self, None));
        }
        match self.decide_by_layers(request) {
            Decision::Deny(mut denial) => {
                denial.why = Some(match denial.why {
                    Some(why) => format!("{WHY}; {why}"),
                    None => WHY.into(),
                });
                Decision::Deny(denial)
            }
            decision => decision,
        }
    }

    fn decide_by_layers(&self, request: &Request<'_>) -> Decision {
        let mut open = None;
        for rules in &self.layers {
            let Err(refusal) = rules.judge(request) else {
                continue;
            };
            let askable = refusal.fix.is_some() && rules.asks(&refusal.capability);
            let denial = refusal.denial(self, Some(&rules.origin));
            if !askable {
                return Decision::Deny(denial);
            }
            open.get_or_insert(denial);
        }
        match open {
            None => Decision::Allow,
            Some(refused) => question(request, refused),
        }
    }
}

fn question(request: &Request<'_>, mut refused: Denial) -> Decision {
    let details = details::details(request, &str::to_owned);
    if details.iter().map(|(_, value)| value.len()).sum::<usize>() > READABLE {
        refused.why = Some("too long to be shown to the person who would have to allow it".into());
        return Decision::Deny(refused);
    }
    Decision::Ask(Question { refused, details })
}

/// A denial before it knows for whom and by which file.
struct Refusal {
    capability: String,
    what: String,
    why: Option<String>,
    fix: Option<(String, String)>,
}

impl Refusal {
    fn new(capability: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            capability: capability.into(),
            what: what.into(),
            why: None,
            fix: None,
        }
    }

    fn because(self, why: impl Into<String>) -> Self {
        Self {
            why: Some(why.into()),
            ..self
        }
    }

    /// What would allow it: words, and the line of TOML.
    fn fix(self, text: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            fix: Some((text.into(), rule.into())),
            ..self
        }
    }

    /// The fix is one more item of a list.
    fn add(self, item: &str, key: &str) -> Self {
        self.fix(format!("add {item} to {key}"), format!("{key} = [{item}]"))
    }

    fn denial(self, grants: &Grants, origin: Option<&str>) -> Denial {
        let fix = self.fix.zip(origin).map(|((text, rule), origin)| Fix {
            text,
            rule,
            origin: origin.to_owned(),
        });
        Denial {
            extension: grants.name.clone(),
            capability: self.capability,
            what: self.what,
            why: self.why,
            fix,
        }
    }
}

type Judgement = Result<(), Refusal>;

impl Rules {
    /// Whether a human may allow what this file does not: `ask = ["vms"]` holds for `vms.delete` too.
    fn asks(&self, capability: &str) -> bool {
        self.ask.contains(capability)
            || capability
                .split_once('.')
                .is_some_and(|(family, _)| self.ask.contains(family))
    }

    /// The granted place that holds this path, the narrowest if several do.
    pub(crate) fn file_root(&self, path: &Path, access: Access) -> Option<&Path> {
        let roots = self
            .files
            .iter()
            .filter(|rule| rule.access >= access)
            .filter_map(|rule| rule.place.covers(path));
        roots.max_by_key(|root| root.components().count())
    }

    fn judge(&self, request: &Request<'_>) -> Judgement {
        match *request {
            Request::Timers | Request::OwnHandle => Ok(()),
            Request::Log => match self.log {
                true => Ok(()),
                false => Err(Refusal::new("log", "write to the log")
                    .fix("remove `log = false`", "log = true")),
            },
            Request::Vms { verb } => self.vms(verb, None),
            Request::Vm {
                verb: VmVerb::Labels,
                ..
            } => {
                Err(Refusal::new("vms.labels", "set labels").because("the host did not say which"))
            }
            Request::Vm { verb, vm } => self.vms(verb, Some(&vm)),
            Request::VmLabels { vm, labels } => self.labels(&vm, labels),
            Request::ShellConnect { vm } => self.connect(&vm),
            Request::ShellSpawn {
                vm,
                command,
                working_directory: _,
                env,
            } => self.command(&vm, command, env),
            Request::ShellFollow { vm, path } => self.vm_file(&vm, path, Access::Read),
            Request::VmFile { vm, path, access } => self.vm_file(&vm, path, access),
            Request::ForwardPort { vm, remote, local } => self.port(&vm, remote, local),
            Request::Process {
                program,
                args,
                working_directory,
                env,
            } => self.process(program, args, working_directory, env),
            Request::LocalFile { path, access } => self.file(path, access),
            Request::Http { method, url } => self.http(method, url),
            Request::HttpAddress {
                method,
                url,
                address,
            } => self.address(method, url, address),
            Request::Variable { name } => self.variable(name),
            Request::Secret { name, to } => self.secret(name, to),
            Request::Store => match self.store {
                true => Ok(()),
                false => Err(Refusal::new("store", "use the store")
                    .fix("remove `store = false`", "store = true")),
            },
            Request::Ui { verb } => self.ui(verb),
            Request::Client { verb } => self.client(verb),
            Request::Session { verb } => self.session(verb),
            Request::Fleet { verb } => self.fleet(verb),
            Request::Bus { topic } => {
                named(self.bus.hold(topic), "bus", "use the bus topic", topic)
            }
            Request::Event { name } if self.events.hold(name) => Ok(()),
            Request::Event { name } => {
                // The line repeats the defaults, which writing the key would take away.
                let all = self.events.0.iter().map(String::as_str).chain([name]);
                let refusal = Refusal::new(
                    "events",
                    format!("see and answer the event {}", brief(name)),
                );
                Err(refusal.fix(
                    format!("add {} to events", quoted(name)),
                    format!("events = {}", list(all)),
                ))
            }
            Request::ReplaceTool { name } => {
                named(self.replace.hold(name), "replace", "replace the tool", name)
            }
        }
    }

    fn ui(&self, verb: UiVerb) -> Judgement {
        match verb {
            UiVerb::Available | UiVerb::Notify | UiVerb::Status | UiVerb::Widget => Ok(()),
            UiVerb::Select | UiVerb::Confirm | UiVerb::Input | UiVerb::Edit
                if self.ui.contains(&verb) =>
            {
                Ok(())
            }
            UiVerb::Select | UiVerb::Confirm => {
                Err(verb_refused("ui", verb, "show a dialog", &self.ui))
            }
            UiVerb::Input | UiVerb::Edit => {
                Err(verb_refused("ui", verb, "ask the user for text", &self.ui))
            }
        }
    }

    fn client(&self, verb: ClientVerb) -> Judgement {
        let what = match verb {
            ClientVerb::Offers | ClientVerb::ListChanged => return Ok(()),
            ClientVerb::Form => "have the client's user fill in forms",
            ClientVerb::Sampling => "use the client's model",
            ClientVerb::Roots => "ask for the client's directories",
        };
        if self.client.contains(&verb) {
            Ok(())
        } else {
            Err(verb_refused("client", verb, what, &self.client))
        }
    }

    fn session(&self, verb: SessionVerb) -> Judgement {
        let what = match verb {
            SessionVerb::WorkingDirectory | SessionVerb::Id | SessionVerb::Flag => return Ok(()),
            SessionVerb::ActiveTools | SessionVerb::AllTools | SessionVerb::IsIdle => return Ok(()),
            SessionVerb::AppendEntry => "keep entries with the session",
            SessionVerb::Entries => "read its entries of the session",
            SessionVerb::SendMessage => "put messages into the conversation",
            SessionVerb::SendUserMessage => "speak in the user's place",
            SessionVerb::SetActiveTools => "choose the model's tools",
            SessionVerb::RunBuiltIn => "run the harness's own tools",
        };
        if self.session.contains(&verb) {
            Ok(())
        } else {
            Err(verb_refused("session", verb, what, &self.session))
        }
    }
}

/// A verb that is not in its list. The line repeats what holds already, since writing the key replaces the defaults.
fn verb_refused<T: Copy + Ord + Display>(
    family: &str,
    verb: T,
    what: &str,
    held: &BTreeSet<T>,
) -> Refusal {
    let all: BTreeSet<T> = held.iter().copied().chain([verb]).collect();
    let add = format!("add \"{verb}\" to {family}");
    Refusal::new(format!("{family}.{verb}"), what).fix(add, format!("{family} = {}", list(&all)))
}

fn named(holds: bool, key: &str, what: &str, name: &str) -> Judgement {
    match holds {
        true => Ok(()),
        false => Err(Refusal::new(key, format!("{what} {}", brief(name))).add(&quoted(name), key)),
    }
}

fn has_nul(args: &[String]) -> bool {
    args.iter().any(|argument| argument.contains('\0'))
}

/// Names that are no names would smuggle a second variable in.
fn sound_env(names: &[&str], refusal: impl FnOnce() -> Refusal) -> Judgement {
    match names
        .iter()
        .find(|name| name.is_empty() || name.contains(['=', '\0']))
    {
        None => Ok(()),
        Some(_) => Err(refusal()
            .because("the name of an environment variable is empty or contains `=` or NUL")),
    }
}
