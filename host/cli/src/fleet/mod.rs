//! `pi-vers fleet`: the VMs of agents, found by their labels, and the end of those that nobody needs any more.
//!
//! `gc` deletes for good, so it does only what it was told to by whoever made the VM: a VM goes when the time in its label
//! `pi-vers.expires` has passed, and for no other reason. The label is read again right before, since a coordinator that is alive moves it on.

mod agent;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use serde_json::json;
use vers_client::{Api, Fleet, Kind, Settings};

use self::agent::{Agent, Expiry, HEADINGS, table};
use crate::args::{self, FleetGc, FleetList};
use crate::failure::{Code, Failure};
use crate::local::Local;
use crate::terminal::{Style, Terminal};
use crate::{dirs, setup};

/// Deletions under way.
const AT_ONCE: usize = 8;

/// `pi-vers fleet …`.
pub(crate) async fn fleet(terminal: Arc<Terminal>, command: args::Fleet) -> Result<Code, Failure> {
    match command {
        args::Fleet::List(options) => list(&terminal, options).await,
        args::Fleet::Gc(options) => gc(&terminal, options).await,
    }
}

async fn settings(place: &args::Platform) -> Result<Settings, Failure> {
    match place.local {
        true => Local::running(&dirs::local(place.state.as_deref())?)
            .await?
            .settings(),
        false => setup::settings(),
    }
}

/// The agents' VMs, the oldest first.
async fn agents(api: &Api) -> Result<Vec<Agent>, Failure> {
    let vms = api.list_vms().await?;
    let mut agents: Vec<Agent> = vms.into_iter().filter_map(Agent::of).collect();
    agents.sort_by_key(|agent| (agent.created(), agent.vm().id));
    Ok(agents)
}

async fn list(terminal: &Terminal, options: FleetList) -> Result<Code, Failure> {
    let agents = agents(&Api::new(settings(&options.platform).await?)?).await?;
    if options.json {
        for agent in &agents {
            terminal.line(agent.json().to_string());
        }
        return Ok(Code::Ok);
    }
    if agents.is_empty() {
        terminal.remark("no VM carries the labels of an agent");
        return Ok(Code::Ok);
    }
    let now = now();
    let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
    rows.extend(agents.iter().map(|agent| agent.row(now)));
    for (at, line) in table(&rows).iter().enumerate() {
        match at {
            0 => terminal.line(terminal.styled(Style::Bold, line)),
            _ => terminal.line(line),
        }
    }
    Ok(Code::Ok)
}

/// What became of one VM.
enum Verdict {
    Kept(String),
    WouldDelete(String),
    Deleted(String),
    Gone,
    Failed(Failure),
}

impl Verdict {
    /// The word for programs, the words for people, and why.
    fn said(&self) -> (&'static str, &'static str, String) {
        match self {
            Self::Kept(why) => ("kept", "kept", why.clone()),
            Self::WouldDelete(why) => ("would-delete", "would delete", why.clone()),
            Self::Deleted(why) => ("deleted", "deleted", why.clone()),
            Self::Gone => ("gone", "gone", "somebody else deleted it meanwhile".into()),
            Self::Failed(why) => ("failed", "failed", why.line()),
        }
    }
}

async fn gc(terminal: &Terminal, options: FleetGc) -> Result<Code, Failure> {
    let settings = settings(&options.platform).await?;
    // The VMs of this machine are no business of a control plane elsewhere.
    let reef = match options.platform.local {
        true => None,
        false => Some(Fleet::new(&settings)?).filter(Fleet::available),
    };
    let api = Api::new(settings)?;
    let agents = agents(&api).await?;
    let judged = agents.into_iter().map(|agent| {
        let (api, reef) = (&api, &reef);
        async move {
            let verdict = judge(api, reef.as_ref(), terminal, &agent, options.dry_run).await;
            (agent, verdict)
        }
    });
    let mut judged = futures::stream::iter(judged).buffered(AT_ONCE);
    let mut worst = Code::Ok;
    let mut any = false;
    while let Some((agent, verdict)) = judged.next().await {
        any = true;
        let (action, words, why) = verdict.said();
        if options.json {
            let mut line = agent.json();
            if let Some(line) = line.as_object_mut() {
                line.insert("action".into(), json!(action));
                line.insert("why".into(), json!(why));
            }
            terminal.line(line.to_string());
        } else {
            let (id, name) = (agent.vm().id, agent.name());
            terminal.line(format!("{words:12}  {id}  {name}: {why}"));
        }
        if let Verdict::Failed(failure) = verdict
            && worst == Code::Ok
        {
            worst = failure.code;
        }
    }
    if !any && !options.json {
        terminal.remark("no VM carries the labels of an agent");
    }
    Ok(worst)
}

/// Why it stays, or none when its time has passed.
fn stays(agent: &Agent) -> Result<String, String> {
    match agent.expiry(now()) {
        Expiry::Never => Ok("it has no label pi-vers.expires".into()),
        expiry @ Expiry::In(_) => Ok(format!("it expires {}", expiry.text())),
        Expiry::Unreadable(_) => Ok(
            "its label pi-vers.expires is no time in seconds since 1970, so nobody knows when it ends".into(),
        ),
        expiry @ Expiry::Since(_) => Err(format!("it expired {}", expiry.text())),
    }
}

async fn judge(
    api: &Api,
    reef: Option<&Fleet>,
    terminal: &Terminal,
    agent: &Agent,
    dry_run: bool,
) -> Verdict {
    let why = match stays(agent) {
        Ok(why) => return Verdict::Kept(why),
        Err(why) if dry_run => return Verdict::WouldDelete(why),
        Err(why) => why,
    };
    let id = agent.vm().id;
    match api.vm(id).await.map(Agent::of) {
        Ok(Some(now)) => {
            if let Ok(why) = stays(&now) {
                return Verdict::Kept(why);
            }
        }
        Ok(None) => return Verdict::Kept("its labels were taken away meanwhile".into()),
        Err(why) if why.kind() == Kind::NotFound => return Verdict::Gone,
        Err(why) => return Verdict::Failed(why.into()),
    }
    match api.delete_vm(id).await {
        Ok(()) => {}
        Err(why) if why.kind() == Kind::NotFound => return Verdict::Gone,
        Err(why) => return Verdict::Failed(why.into()),
    }
    if let Some(reef) = reef
        && let Err(why) = reef.deregister(id).await
    {
        terminal.remark(format!(
            "VM {id} is deleted, and still listed elsewhere: {why}"
        ));
    }
    Verdict::Deleted(why)
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
