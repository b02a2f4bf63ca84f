//! Reef, the control plane of a fleet of agents, where there is one.
//!
//! A fleet is found by the labels of its VMs, without any registry. Reef is told of its members besides, so that people and other
//! agents see them there, and asked which commit new agents start from. Nothing here may hold up an agent: each request ends within
//! [`LOOK_UP`], building a golden commit within [`BUILD`].
//!
//! Where it is: `VERS_INFRA_URL`, else `VERS_VM_REGISTRY_URL`, else on this very VM (`https://<VERS_VM_ID>.<VM domain>:<PORT or 3000>`). The golden
//! commit alone is also asked for at `http://127.0.0.1:<PORT or 3000>`, where nothing names another place. The bearer token is `VERS_AUTH_TOKEN`,
//! read for each request and never sent in clear text to another machine.
//!
//! Two generations are spoken: `/vm-tree` of today's Reef, and `/registry` of what came before it, which is asked where the first
//! one does not exist.

mod golden;
mod member;
mod reef;
#[cfg(test)]
mod tests;

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

pub use self::golden::{Golden, Source};
pub use self::member::Member;
use self::reef::{Place, Reef};
use crate::VmId;
use crate::config::Settings;
use crate::error::{Error, Kind, Result, shown};

/// How long a request to Reef may take.
pub const LOOK_UP: Duration = Duration::from_secs(5);
/// How long building a golden commit may take.
pub const BUILD: Duration = Duration::from_secs(15 * 60);

/// The client of Reef. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fleet {
    place: Result<Place>,
    reef: Reef,
}

impl Fleet {
    /// Reads where Reef is. Connects nowhere.
    ///
    /// # Errors
    /// When the HTTP client can't be set up. An address that is wrong is told by the first request.
    pub fn new(settings: &Settings) -> Result<Self> {
        Ok(Self {
            place: reef::place(settings),
            reef: Reef::new(settings, LOOK_UP, BUILD)?,
        })
    }

    /// Whether something names a control plane. It may still not answer.
    pub fn available(&self) -> bool {
        matches!(self.place, Ok(Place::Named(_)) | Err(_))
    }

    /// The commit that agents' VMs start from: this one, or that of the environment, or what Reef knows. `ensure` has Reef build
    /// one where there is none, which takes minutes; given up meanwhile, Reef goes on with it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] where nobody knows one, or the kind of what kept Reef from answering.
    pub async fn golden_commit(&self, explicit: Option<&str>, ensure: bool) -> Result<Golden> {
        golden::resolve(&self.reef, &self.place, explicit, ensure).await
    }

    /// Adds or replaces a member. Doing so again now and then says that it is alive.
    ///
    /// # Errors
    /// As Reef or the network has it.
    pub async fn register(&self, member: &Member) -> Result<()> {
        let base = self.named()?;
        let what = format!("register {} with the fleet", shown(&member.name));
        let ask = async |method: Method, path: &str, body: Value| {
            let answer = self.reef.ask(base, &what, method, path, Some(body));
            answer.await.map(drop)
        };
        let parent = self.reef.own_vm();
        let node = member.node(parent);
        match ask(Method::POST, "/vm-tree/vms", node).await {
            Err(why) if absent(&why) => {}
            told => return told,
        }
        let record = member.record(parent);
        match ask(Method::POST, "/registry/vms", record.clone()).await {
            // Somebody was faster: the agent itself, for example.
            Err(why) if why.kind() == Kind::Conflict => {
                let path = format!("/registry/vms/{}", member.vm);
                ask(Method::PATCH, &path, record).await
            }
            told => told,
        }
    }

    /// Removes a member. One that is not there is removed already.
    ///
    /// # Errors
    /// As Reef or the network has it.
    pub async fn deregister(&self, vm: VmId) -> Result<()> {
        let base = self.named()?;
        let what = format!("remove VM {vm} from the fleet");
        // The first generation that has it ends it; Reef says the same of a VM and of a path that it does not know.
        for path in [format!("/vm-tree/vms/{vm}"), format!("/registry/vms/{vm}")] {
            match self
                .reef
                .ask(base, &what, Method::DELETE, &path, None)
                .await
            {
                Err(why) if absent(&why) => {}
                told => return told.map(drop),
            }
        }
        Ok(())
    }

    /// The members that are alive as far as Reef knows, of one role or all. Entries that make no sense are left out.
    ///
    /// # Errors
    /// As Reef or the network has it.
    pub async fn members(&self, role: Option<&str>) -> Result<Vec<Member>> {
        let base = self.named()?;
        let what = "list the fleet";
        let list = async |path| self.reef.ask(base, what, Method::GET, path, None).await;
        let domain = self.reef.vm_domain();
        let members: Vec<Member> = match list("/vm-tree/vms").await {
            Err(why) if absent(&why) => {
                let answer = list("/registry/vms").await?;
                let records = entries(&answer).iter();
                records
                    .filter_map(|it| Member::of_record(it, domain))
                    .collect()
            }
            answer => {
                let answer = answer?;
                let nodes = entries(&answer).iter();
                nodes.filter_map(|it| Member::of_node(it, domain)).collect()
            }
        };
        let wanted = |member: &Member| role.is_none_or(|role| member.role == role);
        Ok(members.into_iter().filter(wanted).collect())
    }

    fn named(&self) -> Result<&url::Url> {
        match &self.place {
            Ok(Place::Named(url)) => Ok(url),
            Ok(Place::Guessed(_)) => Err(Error::unavailable(
                "there is no control plane of a fleet: VERS_INFRA_URL names one",
            )),
            Err(why) => Err(why.clone()),
        }
    }
}

fn absent(error: &Error) -> bool {
    error.status() == Some(404)
}

fn entries(answer: &Value) -> &[Value] {
    let vms = answer.get("vms").and_then(Value::as_array);
    vms.map_or(&[], Vec::as_slice)
}
