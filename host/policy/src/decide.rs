//! The decision itself: deny by default, one exhaustive `match` over every request.
//!
//! Every layer (the user's file, then the project's) judges by itself; one refusal refuses, and one question asks. So
//! what a project says can only take away: nothing has to be intersected, and nothing can be got wrong in doing so.

use std::net::IpAddr;
use std::path::Path;

use url::Url;

use crate::argv::ArgPattern;
use crate::decision::{Decision, Denial, Fix, Question, brief, quoted, visible};
use crate::policy::Grants;
use crate::request::{
    Access, Command, FleetVerb, Request, SecretUse, SessionVerb, UiVerb, Vm, VmVerb,
};
use crate::rules::{
    Env, Ports, ProcessRule, Rules, Scope, SecretRule, SecretTo, Shell, VmSet, list, mode,
};
use crate::web;

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
    let details = details(request);
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
            Request::Log | Request::Timers | Request::OwnHandle => Ok(()),
            Request::Vms { verb } => self.vms(verb, None),
            Request::Vm {
                verb: VmVerb::Labels,
                ..
            } => {
                Err(Refusal::new("vms.labels", "set labels").because("the host did not say which"))
            }
            Request::Vm { verb, vm } => self.vms(verb, Some(&vm)),
            Request::VmLabels { vm, labels } => self.labels(&vm, labels),
            Request::ShellConnect { vm } => self.shell(&vm, "shell", "connect to").map(drop),
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
            Request::Secret { name, to } => self.secret(name, to),
            Request::Store => match self.store {
                true => Ok(()),
                false => Err(Refusal::new("store", "use the store")
                    .fix("remove `store = false`", "store = true")),
            },
            Request::Ui { verb } => self.ui(verb),
            Request::Session { verb } => self.session(verb),
            Request::Fleet { verb } => self.fleet(verb),
            Request::Bus { topic } => {
                named(self.bus.hold(topic), "bus", "use the bus topic", topic)
            }
            Request::Event { name } => named(
                self.events.hold(name),
                "events",
                "see and answer the event",
                name,
            ),
            Request::ReplaceTool { name } => {
                named(self.replace.hold(name), "replace", "replace the tool", name)
            }
        }
    }

    fn vms(&self, verb: VmVerb, vm: Option<&Vm<'_>>) -> Judgement {
        let capability = format!("vms.{verb}");
        if verb.needs_vm() && vm.is_none() {
            return Err(
                Refusal::new(capability, vm_verb(verb)).because("the host did not say which")
            );
        }
        if !self.vms.contains(&verb) {
            return Err(Refusal::new(capability, vm_verb(verb)).add(&quoted(verb.name()), "vms"));
        }
        match vm {
            Some(vm) if !self.scope.holds(vm) => {
                let id = quoted(vm.id);
                let what = format!("{} outside its scope", vm_verb(verb));
                let rule = format!("vms = {{ verbs = {}, scope = [{id}] }}", list([verb]));
                Err(outside(Refusal::new(capability, what), &self.scope, vm)
                    .fix(format!("add {id} to the scope of vms"), rule))
            }
            _ => Ok(()),
        }
    }

    /// Labels decide who may do what with a VM, so setting them must not be a way to grant oneself a VM.
    fn labels(&self, vm: &Vm<'_>, labels: &[(String, String)]) -> Judgement {
        self.vms(VmVerb::Labels, Some(vm))?;
        let after = Vm { labels, ..*vm };
        let shell = self.shell.as_ref().map(|shell| &shell.scope);
        for scope in shell.into_iter().chain([&self.scope]) {
            if scope.holds(&after) && !scope.holds(vm) {
                let gained = scope.0.iter().find_map(|part| match part {
                    VmSet::Label(key, value)
                        if labels.iter().any(|(k, v)| k == key && v == value) =>
                    {
                        Some(format!("{key}={value}"))
                    }
                    _ => None,
                });
                let what = format!(
                    "set the label {} on VM {}",
                    visible(&gained.unwrap_or_default()),
                    brief(vm.id)
                );
                return Err(Refusal::new("vms.labels", what)
                    .because("that would bring the VM into its own scope"));
            }
        }
        Ok(())
    }

    /// The shell's rules, if they hold for this VM.
    fn shell(&self, vm: &Vm<'_>, capability: &str, what: &str) -> Result<&Shell, Refusal> {
        let refusal = Refusal::new(capability, format!("{what} VM {}", brief(vm.id)));
        let id = quoted(vm.id);
        match &self.shell {
            None => Err(refusal.fix(
                "add a line `shell = …`",
                format!("shell = {{ vms = [{id}], commands = \"any\" }}"),
            )),
            Some(shell) if shell.scope.holds(vm) => Ok(shell),
            Some(shell) => {
                let rule = Shell {
                    scope: Scope(VmSet::parse(vm.id).into_iter().collect()),
                    ..shell.clone()
                };
                Err(outside(refusal, &shell.scope, vm).fix(
                    format!("add {id} to the vms of shell"),
                    format!("shell = {}", rule.toml()),
                ))
            }
        }
    }

    fn command(&self, vm: &Vm<'_>, command: Command<'_>, env: &[&str]) -> Judgement {
        let shell = self.shell(vm, "shell", "run commands on")?;
        let refusal =
            |what: String| Refusal::new("shell", format!("run {what} on VM {}", brief(vm.id)));
        sound_env(env, || refusal("a command".into()))?;
        match (command, &shell.commands) {
            (Command::Argv([]), _) => {
                return Err(refusal("nothing".into()).because("the argument vector is empty"));
            }
            (Command::Argv(argv), _) if has_nul(argv) => {
                return Err(refusal("a command".into()).because("an argument contains a NUL byte"));
            }
            (Command::Shell(script), _) if script.contains('\0') => {
                return Err(refusal("a script".into()).because("it contains a NUL byte"));
            }
            (_, None) => {}
            (Command::Argv(argv), Some(commands))
                if commands.iter().any(|pattern| pattern.matches(argv)) => {}
            (Command::Argv(argv), Some(_)) => {
                let pattern = ArgPattern::exactly(argv);
                let add = format!("add {} to the commands of shell", quoted(&pattern));
                let refusal = refusal(format!("`{}`", brief(&pattern)));
                return Err(refusal.fix(
                    brief(&add),
                    format!(
                        "shell = {{ vms = {}, commands = [{}] }}",
                        list([vm.id]),
                        quoted(&pattern)
                    ),
                ));
            }
            (Command::Shell(_), Some(_)) => {
                let refusal = refusal("shell scripts".into())
                    .because("the text of a script cannot be matched");
                return Err(refusal.fix(
                    "set `commands = \"any\"` in shell",
                    format!("shell = {{ vms = {}, commands = \"any\" }}", list([vm.id])),
                ));
            }
        }
        match shell.env.missing(env) {
            None => Ok(()),
            Some(name) => {
                let refusal = Refusal::new(
                    "shell",
                    format!("set the variable {} on VM {}", brief(name), brief(vm.id)),
                );
                let rule = Shell {
                    env: Env::These([name.to_owned()].into()),
                    ..shell.clone()
                };
                Err(refusal.fix(
                    format!("add {} to the env of shell", quoted(name)),
                    format!("shell = {}", rule.toml()),
                ))
            }
        }
    }

    fn vm_file(&self, vm: &Vm<'_>, path: &str, access: Access) -> Judgement {
        let shell = self.shell(vm, "shell.files", &format!("{access} files of"))?;
        let refusal = || {
            Refusal::new(
                "shell.files",
                format!("{access} {} on VM {}", brief(path), brief(vm.id)),
            )
        };
        if path.contains('\0') {
            return Err(refusal().because("a path may not contain a NUL byte"));
        }
        if shell.files.is_some_and(|granted| granted >= access) {
            return Ok(());
        }
        let rule = Shell {
            files: Some(access),
            ..shell.clone()
        };
        Err(refusal().fix(
            format!("set `files = \"{}\"` in shell", mode(access)),
            format!("shell = {}", rule.toml()),
        ))
    }

    fn port(&self, vm: &Vm<'_>, remote: u16, local: Option<u16>) -> Judgement {
        let shell = self.shell(vm, "shell.ports", &format!("forward port {remote} of"))?;
        let refusal = || {
            Refusal::new(
                "shell.ports",
                format!("forward port {remote} of VM {}", brief(vm.id)),
            )
        };
        if let Some(local @ 1..1024) = local {
            return Err(refusal().because(format!(
                "local port {local} is one of the system's: use 1024 or above"
            )));
        }
        match &shell.ports {
            Ports::Any => Ok(()),
            Ports::These(ports) if ports.contains(&remote) => Ok(()),
            Ports::These(_) => {
                let rule = Shell {
                    ports: Ports::These([remote].into()),
                    ..shell.clone()
                };
                Err(refusal().fix(
                    format!("add {remote} to the ports of shell"),
                    format!("shell = {}", rule.toml()),
                ))
            }
        }
    }

    fn process(
        &self,
        program: &Path,
        args: &[String],
        directory: &Path,
        env: &[&str],
    ) -> Judgement {
        let shown = brief(&program.to_string_lossy());
        let pattern = ArgPattern::exactly(args);
        let refusal = || {
            Refusal::new(
                "process",
                format!(
                    "start `{}`",
                    brief(&format!("{shown} {pattern}").trim_end())
                ),
            )
        };
        if !program.is_absolute() {
            return Err(refusal().because("the program is not an absolute path"));
        }
        if has_nul(args) {
            return Err(refusal().because("an argument contains a NUL byte"));
        }
        sound_env(env, refusal)?;
        // One rule has to hold as a whole: what one allows in its directory, another may not lend its environment.
        let mut nearest = None;
        for rule in self.process.iter().filter(|rule| rule.program == program) {
            match process_rule(rule, args, directory, env) {
                Ok(()) => return Ok(()),
                Err(why) => nearest = nearest.max(Some(why)),
            }
        }
        let rule = format!(
            "{{ program = {}, args = [{}] }}",
            quoted(&program.to_string_lossy()),
            quoted(&pattern)
        );
        Err(match nearest {
            None => refusal()
                .add(&brief(&rule), "process")
                .rule(format!("process = [{rule}]")),
            Some(Near::Arguments) => {
                let add = format!("add {} to the args of {shown} in process", quoted(&pattern));
                refusal()
                    .because("no pattern of its arguments matches")
                    .fix(brief(&add), format!("process = [{rule}]"))
            }
            Some(Near::Directory) => {
                let path = quoted(&directory.to_string_lossy());
                let rule = format!(
                    "process = [{{ program = {}, args = [{}], directories = [{path}] }}]",
                    quoted(&program.to_string_lossy()),
                    quoted(&pattern)
                );
                let why = format!(
                    "not in the directory {}",
                    brief(&directory.to_string_lossy())
                );
                refusal().because(why).fix(
                    format!("add {path} to the directories of {shown} in process"),
                    rule,
                )
            }
            Some(Near::Env(name)) => {
                let rule = format!(
                    "process = [{{ program = {}, args = [{}], env = [{}] }}]",
                    quoted(&program.to_string_lossy()),
                    quoted(&pattern),
                    quoted(&name)
                );
                let why = format!("not with the variable {}", brief(&name));
                refusal().because(why).fix(
                    format!("add {} to the env of {shown} in process", quoted(&name)),
                    rule,
                )
            }
        })
    }

    fn file(&self, path: &Path, access: Access) -> Judgement {
        let text = path.to_string_lossy();
        let refusal = Refusal::new("files", format!("{access} {}", brief(&text)));
        if let Err(error) = crate::paths::absolute(path) {
            return Err(refusal.because(error.to_string()));
        }
        match self.file_root(path, access) {
            Some(_) => Ok(()),
            None => Err(refusal.add(
                &format!(
                    "{{ path = {}, mode = \"{}\" }}",
                    quoted(&text),
                    mode(access)
                ),
                "files",
            )),
        }
    }

    fn http(&self, method: &str, url: &Url) -> Judgement {
        let refusal = Refusal::new(
            "http",
            format!("ask {} {}", brief(method), brief(url.as_str())),
        );
        if let Some(why) = web::refused(url) {
            // The URL may carry a password: it is not repeated.
            return Err(Refusal::new("http", "send this request").because(why));
        }
        if self.http.iter().any(|rule| rule.matches(method, url)) {
            return Ok(());
        }
        let refusal = match web::ambiguous(url.path()) {
            Some(why) => refusal.because(why),
            None => refusal,
        };
        let mut exact = url.clone();
        exact.set_query(None);
        exact.set_fragment(None);
        if url.query().is_some() {
            exact.set_path(&format!(
                "{}/*",
                exact.path().rsplit_once('/').map_or("", |(stem, _)| stem)
            ));
        }
        Err(refusal.add(&quoted(exact.as_str()), "http"))
    }

    fn address(&self, method: &str, url: &Url, address: IpAddr) -> Judgement {
        let Some(kind) = web::special_address(address) else {
            return Ok(());
        };
        if self
            .http
            .iter()
            .any(|rule| rule.matches(method, url) && rule.names(address))
        {
            return Ok(());
        }
        let host = url.host_str().unwrap_or_default();
        let refusal = Refusal::new(
            "http.address",
            format!("reach {} at {address}", brief(host)),
        )
        .because(format!("the address is {kind}"));
        let rule = format!(
            "{{ url = {}, addresses = [\"{address}\"] }}",
            quoted(&format!("{}/*", url.origin().ascii_serialization()))
        );
        Err(refusal.add(&rule, "http"))
    }

    fn secret(&self, name: &str, to: SecretUse<'_>) -> Judgement {
        let matches = |rule: &SecretRule| {
            rule.name == name
                && match (&rule.to, to) {
                    (SecretTo::ChildEnv(None), SecretUse::ChildEnv { .. })
                    | (SecretTo::VmEnv, SecretUse::VmEnv) => true,
                    (SecretTo::ChildEnv(Some(granted)), SecretUse::ChildEnv { program }) => {
                        granted == program
                    }
                    (SecretTo::Http(granted), SecretUse::HttpHeader { url }) => {
                        granted.origin() == url.origin() && url.origin().is_tuple()
                    }
                    (SecretTo::ChildEnv(_) | SecretTo::VmEnv | SecretTo::Http(_), _) => false,
                }
        };
        if self.secrets.iter().any(matches) {
            return Ok(());
        }
        let way = match to {
            SecretUse::ChildEnv { program } => format!("child env {}", program.display()),
            SecretUse::VmEnv => "vm env".into(),
            SecretUse::HttpHeader { url } => format!("http {}", url.origin().ascii_serialization()),
        };
        let refusal = Refusal::new(
            "secrets",
            format!("hand the secret {} to {}", brief(name), brief(&way)),
        );
        Err(refusal.add(&quoted(&format!("{name} -> {way}")), "secrets"))
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
                Err(verb_refused("ui", verb.name(), "show a dialog", &self.ui))
            }
            UiVerb::Input | UiVerb::Edit => Err(verb_refused(
                "ui",
                verb.name(),
                "ask the user for text",
                &self.ui,
            )),
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
            Err(verb_refused("session", verb.name(), what, &self.session))
        }
    }

    fn fleet(&self, verb: FleetVerb) -> Judgement {
        let what = match verb {
            FleetVerb::Available => return Ok(()),
            FleetVerb::Golden => "look up the golden commit",
            FleetVerb::BuildGolden => "build a golden commit",
            FleetVerb::Register => "add members to the fleet",
            FleetVerb::Deregister => "remove members from the fleet",
            FleetVerb::Members => "list the fleet",
        };
        if self.fleet.contains(&verb) {
            Ok(())
        } else {
            Err(verb_refused("fleet", verb.name(), what, &self.fleet))
        }
    }
}

impl Refusal {
    /// The whole rule where the words had to be cut.
    fn rule(mut self, rule: String) -> Self {
        self.fix = self.fix.map(|(text, _)| (text, rule));
        self
    }
}

/// How far a rule for the same program was from allowing it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    Arguments,
    Directory,
    Env(String),
}

fn process_rule(
    rule: &ProcessRule,
    args: &[String],
    directory: &Path,
    env: &[&str],
) -> Result<(), Near> {
    if rule
        .args
        .as_ref()
        .is_some_and(|patterns| !patterns.iter().any(|pattern| pattern.matches(args)))
    {
        return Err(Near::Arguments);
    }
    if !rule
        .directories
        .iter()
        .any(|place| place.covers(directory).is_some())
    {
        return Err(Near::Directory);
    }
    rule.env
        .missing(env)
        .map_or(Ok(()), |name| Err(Near::Env(name.to_owned())))
}

/// A verb of a list with defaults: the rule repeats what holds already, since writing the key replaces them.
fn verb_refused<T: Copy + std::fmt::Display>(
    family: &str,
    verb: &str,
    what: &str,
    held: &std::collections::BTreeSet<T>,
) -> Refusal {
    let all = held
        .iter()
        .map(ToString::to_string)
        .chain([verb.to_owned()]);
    Refusal::new(format!("{family}.{verb}"), what).fix(
        format!("add {} to {family}", quoted(verb)),
        format!("{family} = {}", list(all)),
    )
}

fn named(holds: bool, key: &str, what: &str, name: &str) -> Judgement {
    match holds {
        true => Ok(()),
        false => Err(Refusal::new(key, format!("{what} {}", brief(name))).add(&quoted(name), key)),
    }
}

fn outside(refusal: Refusal, scope: &Scope, vm: &Vm<'_>) -> Refusal {
    refusal.because(format!(
        "granted are {}, not {}",
        scope.text(),
        brief(vm.id)
    ))
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

fn vm_verb(verb: VmVerb) -> &'static str {
    match verb {
        VmVerb::Get => "look at VMs",
        VmVerb::Delete => "delete VMs",
        VmVerb::Branch => "branch VMs",
        VmVerb::Commit => "commit VMs",
        VmVerb::State => "pause or resume VMs",
        VmVerb::Labels => "label VMs",
        VmVerb::Resize => "resize VMs",
        VmVerb::List => "list VMs",
        VmVerb::Resolve => "find VMs",
        VmVerb::Create => "create VMs",
        VmVerb::Restore => "restore VMs",
        VmVerb::Commits => "list commits",
        VmVerb::DeleteCommit => "delete commits",
        VmVerb::Publish => "publish commits",
    }
}

/// The facts of a request, whole and printable.
fn details(request: &Request<'_>) -> Vec<(&'static str, String)> {
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
        Request::Secret { name, to } => vec![
            ("secret", visible(name)),
            match to {
                SecretUse::ChildEnv { program } => ("into the environment of", path(program)),
                SecretUse::VmEnv => ("into the environment of", "a command on a VM".into()),
                SecretUse::HttpHeader { url } => {
                    ("into a header for", url.origin().ascii_serialization())
                }
            },
        ],
        Request::Ui { verb } => vec![("operation", verb.to_string())],
        Request::Session { verb } => vec![("operation", verb.to_string())],
        Request::Fleet { verb } => vec![("operation", verb.to_string())],
        Request::Bus { topic } => vec![("topic", visible(topic))],
        Request::Event { name } | Request::ReplaceTool { name } => vec![("name", visible(name))],
    }
}
