//! VMs, their shells, the fleet.
//!
//! A fix names the whole new line, since `vms` and `shell` are one line each: adding a second would be an error.

use super::{Judgement, Refusal, has_nul, sound_env, verb_refused};
use crate::argv::ArgPattern;
use crate::decision::{brief, quoted};
use crate::request::{Access, Command, FleetVerb, Vm, VmVerb};
use crate::rules::{Env, Ports, Rules, Scope, Shell, VmSet, mode};

impl Rules {
    pub(super) fn vms(&self, verb: VmVerb, vm: Option<&Vm<'_>>) -> Judgement {
        let capability = format!("vms.{verb}");
        if verb.needs_vm() && vm.is_none() {
            return Err(
                Refusal::new(capability, vm_verb(verb)).because("the host did not say which")
            );
        }
        let stranger = vm.filter(|vm| !self.scope.holds(vm));
        let line = || {
            let mut wanted = Self {
                vms: self.vms.clone(),
                scope: self.scope.clone(),
                ..Self::new("")
            };
            wanted.vms.insert(verb);
            wanted
                .scope
                .0
                .extend(stranger.and_then(|vm| VmSet::parse(vm.id)));
            wanted.toml().join("\n")
        };
        if !self.vms.contains(&verb) {
            let add = format!("add {} to vms", quoted(verb.name()));
            return Err(Refusal::new(capability, vm_verb(verb)).fix(add, line()));
        }
        let Some(vm) = stranger else { return Ok(()) };
        let what = format!("{} outside its scope", vm_verb(verb));
        let add = format!("add {} to the scope of vms", quoted(vm.id));
        Err(outside(Refusal::new(capability, what), &self.scope, vm).fix(add, line()))
    }

    /// Labels decide who may do what with a VM, so setting them must not be a way to grant oneself a VM.
    pub(super) fn labels(&self, vm: &Vm<'_>, labels: &[(String, String)]) -> Judgement {
        self.vms(VmVerb::Labels, Some(vm))?;
        let after = Vm { labels, ..*vm };
        let shell = self.shell.as_ref().map(|shell| &shell.scope);
        if shell
            .into_iter()
            .chain([&self.scope])
            .any(|scope| scope.holds(&after) && !scope.holds(vm))
        {
            let what = format!("set these labels on VM {}", brief(vm.id));
            return Err(Refusal::new("vms.labels", what)
                .because("that would bring the VM into its own scope"));
        }
        Ok(())
    }

    /// The shell's rules, if they hold for this VM. `change` is what the request needs besides.
    fn shell(
        &self,
        vm: &Vm<'_>,
        refusal: impl FnOnce() -> Refusal,
        change: impl FnOnce(&mut Shell),
    ) -> Result<&Shell, Refusal> {
        match &self.shell {
            Some(shell) if shell.scope.holds(vm) => Ok(shell),
            None => {
                let line = self.shell_line(vm, change);
                Err(refusal().fix(format!("add {}", brief(&line)), line))
            }
            Some(shell) => {
                let add = format!("add {} to the vms of shell", quoted(vm.id));
                Err(outside(refusal(), &shell.scope, vm).fix(add, self.shell_line(vm, change)))
            }
        }
    }

    /// The line `shell = …` as it would have to be: what is there, this VM, and this change.
    fn shell_line(&self, vm: &Vm<'_>, change: impl FnOnce(&mut Shell)) -> String {
        let mut shell = self.shell.clone().unwrap_or_else(Shell::nothing);
        if !shell.scope.holds(vm) {
            shell.scope.0.extend(VmSet::parse(vm.id));
        }
        change(&mut shell);
        format!("shell = {}", shell.toml())
    }

    pub(super) fn connect(&self, vm: &Vm<'_>) -> Judgement {
        self.shell(
            vm,
            || Refusal::new("shell", format!("connect to VM {}", brief(vm.id))),
            |_| {},
        )
        .map(drop)
    }

    pub(super) fn command(&self, vm: &Vm<'_>, command: Command<'_>, env: &[&str]) -> Judgement {
        let exact = match command {
            Command::Argv(argv) => Some(ArgPattern::exactly(argv)),
            Command::Shell(_) => None,
        };
        let allow = |shell: &mut Shell| match &exact {
            Some(pattern) => shell
                .commands
                .iter_mut()
                .for_each(|commands| commands.extend(ArgPattern::parse(pattern))),
            None => shell.commands = None,
        };
        let what = exact.as_ref().map_or_else(
            || "a shell script".to_owned(),
            |pattern| format!("`{}`", brief(pattern)),
        );
        let refusal = || Refusal::new("shell", format!("run {what} on VM {}", brief(vm.id)));
        sound_env(env, refusal)?;
        let broken = match command {
            Command::Argv([]) => Some("the argument vector is empty"),
            Command::Argv(argv) if has_nul(argv) => Some("an argument contains a NUL byte"),
            Command::Shell(script) if script.contains('\0') => {
                Some("the script contains a NUL byte")
            }
            Command::Argv(_) | Command::Shell(_) => None,
        };
        if let Some(why) = broken {
            return Err(refusal().because(why));
        }
        let shell = self.shell(vm, refusal, allow)?;
        match (command, &shell.commands) {
            (_, None) => {}
            (Command::Argv(argv), Some(commands))
                if commands.iter().any(|pattern| pattern.matches(argv)) => {}
            (Command::Argv(_), Some(_)) => {
                let add = format!(
                    "add {} to the commands of shell",
                    quoted(exact.as_deref().unwrap_or_default())
                );
                return Err(refusal().fix(brief(&add), self.shell_line(vm, allow)));
            }
            (Command::Shell(_), Some(_)) => {
                let refusal = refusal().because("the text of a script cannot be matched");
                return Err(refusal.fix(
                    "set commands = \"any\" in shell",
                    self.shell_line(vm, allow),
                ));
            }
        }
        let Some(name) = shell.env.missing(env) else {
            return Ok(());
        };
        let line = self.shell_line(vm, |shell| {
            if let Env::These(names) = &mut shell.env {
                names.extend(env.iter().map(|name| (*name).to_owned()));
            }
        });
        let refusal = Refusal::new(
            "shell",
            format!("set the variable {} on VM {}", brief(name), brief(vm.id)),
        );
        Err(refusal.fix(
            format!("add {} to the env of shell", brief(&quoted(name))),
            line,
        ))
    }

    pub(super) fn vm_file(&self, vm: &Vm<'_>, path: &str, access: Access) -> Judgement {
        let refusal = || {
            Refusal::new(
                "shell.files",
                format!("{access} {} on VM {}", brief(path), brief(vm.id)),
            )
        };
        let allow = |shell: &mut Shell| shell.files = shell.files.max(Some(access));
        if path.contains('\0') {
            return Err(refusal().because("a path may not contain a NUL byte"));
        }
        match self.shell(vm, refusal, allow)?.files {
            Some(granted) if granted >= access => Ok(()),
            _ => Err(refusal().fix(
                format!("set files = \"{}\" in shell", mode(access)),
                self.shell_line(vm, allow),
            )),
        }
    }

    pub(super) fn port(&self, vm: &Vm<'_>, remote: u16, local: Option<u16>) -> Judgement {
        let refusal = || {
            Refusal::new(
                "shell.ports",
                format!("forward port {remote} of VM {}", brief(vm.id)),
            )
        };
        let allow = |shell: &mut Shell| {
            if let Ports::These(ports) = &mut shell.ports {
                ports.insert(remote);
            }
        };
        if let Some(local @ 1..1024) = local {
            return Err(refusal().because(format!(
                "local port {local} is one of the system's: use 1024 or above"
            )));
        }
        match &self.shell(vm, refusal, allow)?.ports {
            Ports::Any => Ok(()),
            Ports::These(ports) if ports.contains(&remote) => Ok(()),
            Ports::These(_) => Err(refusal().fix(
                format!("add {remote} to the ports of shell"),
                self.shell_line(vm, allow),
            )),
        }
    }

    pub(super) fn fleet(&self, verb: FleetVerb) -> Judgement {
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
            Err(verb_refused("fleet", verb, what, &self.fleet))
        }
    }
}

fn outside(refusal: Refusal, scope: &Scope, vm: &Vm<'_>) -> Refusal {
    refusal.because(format!(
        "granted are {}, not {}",
        scope.text(),
        brief(vm.id)
    ))
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
