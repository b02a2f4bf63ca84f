//! What a client asks for, and what it is told.
//!
//! What is known without extensions is answered at once, before they are loaded and whatever they do. All else waits for its home.

use std::sync::{Arc, OnceLock};

use axum::http::request::Parts;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams,
    CompleteRequestParams, CompleteResult, ContentBlock, CustomRequest, CustomResult, ErrorCode,
    GetPromptRequestParams, GetPromptResponse, GetSkillRequestParams, GetSkillResult,
    GetTaskParams, GetTaskResult, Implementation, InitializeRequestParams, InitializeResult,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListSkillsResult,
    ListToolsResult, LoggingLevel, PaginatedRequestParams, ReadResourceDirectoryRequestParams,
    ReadResourceDirectoryResult, ReadResourceRequestParams, ReadResourceResponse, Reference,
    ResourceUpdatedNotificationParam, ServerCapabilities, ServerConfig, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{NotificationContext, Peer, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::{Offers, is_modern};
use super::desk::{Ear, Hearing, Interest, MOST_URIS, News};
use super::home::Home;
use super::http::Lodging;
use super::{calls, published, words};
use crate::hook;

const INSTRUCTIONS: &str = "\
Vers VMs: whole Linux machines that can be branched, committed, paused and restored with memory and processes.
vers_vms lists them, vers_vm_create makes one, vers_vm_use makes one active. vers_bash, vers_read, vers_edit and vers_write act on \
the active VM and fail without one; your own tools always act on the local machine. vers_vm_copy copies between the two.
Delete VMs that are no longer needed with vers_vm_delete: it can't be undone. A tool that says it is still waiting is to be called again.";

/// Methods that are served in both eras: one of them that came here had wrong parameters.
const SERVED: [&str; 15] = [
    "server/discover",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/directory/read",
    "completion/complete",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
    "skills/list",
    "skills/get",
];
/// Those that only older clients have.
const OLDER: [&str; 5] = [
    "initialize",
    "ping",
    "resources/subscribe",
    "resources/unsubscribe",
    "logging/setLevel",
];
/// Those that only newer clients have.
const NEWER: [&str; 1] = ["subscriptions/listen"];

/// Where the home of a request is found.
#[derive(Clone)]
pub(crate) enum Homes {
    /// There is one, for the process's only client.
    One(Arc<Home>),
    /// Over HTTP.
    Many(Arc<Lodging>),
}

/// See the module. One for each connection of an older client, and over HTTP one for each request of a newer one.
#[derive(Clone)]
pub(crate) struct Server(Arc<Connection>);

struct Connection {
    homes: Homes,
    /// Of an older client over HTTP.
    own: OnceLock<Arc<Home>>,
    /// What an older client hears.
    hearing: OnceLock<Hearing>,
    config: ServerConfig,
    /// Ends what the connection started when it ends itself.
    end: CancellationToken,
    _ends: DropGuard,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(home) = self.own.take() {
            home.retire();
        }
    }
}

impl Server {
    pub(crate) fn new(homes: Homes) -> Self {
        let end = CancellationToken::new();
        Self(Arc::new(Connection {
            homes,
            own: OnceLock::new(),
            hearing: OnceLock::new(),
            config: config(),
            _ends: end.clone().drop_guard(),
            end,
        }))
    }

    /// The home of this request.
    fn home(&self, context: &RequestContext<RoleServer>) -> Result<Arc<Home>, ErrorData> {
        let lodging = match &self.0.homes {
            Homes::One(home) => return Ok(home.clone()),
            Homes::Many(lodging) => lodging,
        };
        if !is_modern(context) {
            return self.own(lodging);
        }
        let path = context.extensions.get::<Parts>();
        lodging.named(path.map_or("", |parts| parts.uri.path()))
    }

    fn own(&self, lodging: &Lodging) -> Result<Arc<Home>, ErrorData> {
        if let Some(home) = self.0.own.get() {
            return Ok(home.clone());
        }
        let opened = lodging.own()?;
        Ok(self.0.own.get_or_init(|| opened).clone())
    }

    /// An older client's ear. `None`: it has no home, or too many listen.
    fn ear(&self) -> Option<Arc<Ear>> {
        if self.0.hearing.get().is_none() {
            let home = match &self.0.homes {
                Homes::One(home) => home.clone(),
                Homes::Many(lodging) => self.own(lodging).ok()?,
            };
            let _ = self.0.hearing.set(home.desk.hear(Interest::default())?);
        }
        Some(self.0.hearing.get()?.ear.clone())
    }
}

fn config() -> ServerConfig {
    let capabilities = ServerCapabilities::builder()
        .enable_tools()
        .enable_tool_list_changed()
        .enable_prompts()
        .enable_prompts_list_changed()
        .enable_resources()
        .enable_resources_subscribe()
        .enable_resources_list_changed()
        .enable_completions()
        .enable_logging()
        .enable_tasks()
        .enable_skills_with_directory_read()
        .build();
    let info = Implementation::new("pi-vers", env!("CARGO_PKG_VERSION"))
        .with_title("Vers")
        .with_description("Vers VMs and the agents on them");
    ServerConfig::new(capabilities)
        .with_server_info(info)
        .with_instructions(INSTRUCTIONS)
}

/// Tells an older client what is new, until it is gone.
async fn tell(ear: Arc<Ear>, peer: Peer<RoleServer>, end: CancellationToken) {
    loop {
        let news = tokio::select! {
            () = end.cancelled() => return,
            news = ear.next() => news,
        };
        let told = match news {
            News::Tools => peer.notify_tool_list_changed().await,
            News::Prompts => peer.notify_prompt_list_changed().await,
            News::Resources => peer.notify_resource_list_changed().await,
            News::Resource(uri) => {
                let params = ResourceUpdatedNotificationParam::new(uri);
                peer.notify_resource_updated(params).await
            }
            News::Log(log) => peer.notify_logging_message(words::message(log)).await,
        };
        if told.is_err() {
            return;
        }
    }
}

/// No list is fresh for any time: what is offered may change at every moment.
macro_rules! fresh {
    ($list:expr) => {
        $list.with_ttl_ms(0).with_cache_scope(CacheScope::Private)
    };
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        self.0.config.clone()
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let site = match &self.0.homes {
            Homes::One(home) => &home.site,
            Homes::Many(lodging) => lodging.site(),
        };
        let house = site.newest()?;
        Some(house.catalogue.tools.get(name)?.listed.clone())
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let agreed = self.negotiate_initialize(&request)?;
        let offers = Offers::of(Some(&request.capabilities));
        context.peer.set_peer_info(request);
        // Whatever version it asked for: it begins as older clients do.
        let home = match &self.0.homes {
            Homes::One(home) => home.clone(),
            Homes::Many(lodging) => self.own(lodging)?,
        };
        home.desk.set_interactive(offers.form);
        Ok(agreed)
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let Some(ear) = self.ear() else { return };
        {
            let mut interest = ear.interest();
            let first = !std::mem::replace(&mut interest.tools, true);
            (interest.prompts, interest.resources) = (true, true);
            interest.level.get_or_insert(LoggingLevel::Info);
            if !first {
                return;
            }
        }
        tokio::spawn(tell(ear, context.peer, self.0.end.clone()));
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        // A newer client says it with each request.
        if is_modern(&context) {
            return Err(unknown_method("logging/setLevel"));
        }
        if let Some(ear) = self.ear() {
            ear.interest().level = Some(request.level);
        }
        Ok(())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let too_many = || ErrorData::invalid_params("there are too many subscriptions", None);
        let ear = self.ear().ok_or_else(too_many)?;
        let mut interest = ear.interest();
        if interest.uris.len() >= MOST_URIS && !interest.uris.contains(&request.uri) {
            return Err(too_many());
        }
        interest.uris.insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if let Some(ear) = self.ear() {
            ear.interest().uris.remove(&request.uri);
        }
        Ok(())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        let mut accepted = requested.clone();
        if let Some(uris) = &mut accepted.resource_subscriptions {
            uris.truncate(MOST_URIS);
        }
        Some(accepted)
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let home = self.home(context.request_context())?;
        let accepted = context.accepted();
        let uris = accepted.resource_subscriptions.iter().flatten();
        let interest = Interest {
            tools: accepted.tools_list_changed == Some(true),
            prompts: accepted.prompts_list_changed == Some(true),
            resources: accepted.resources_list_changed == Some(true),
            uris: uris.cloned().collect(),
            ..Interest::default()
        };
        let hearing = home.desk.hear(interest);
        let hearing =
            hearing.ok_or_else(|| ErrorData::invalid_request("too many listen already", None))?;
        let sink = context.sink();
        loop {
            let news = tokio::select! {
                biased;
                () = context.cancelled() => return Ok(()),
                () = home.end.cancelled() => return Ok(()),
                news = hearing.ear.next() => news,
            };
            let told = match news {
                News::Tools => sink.notify_tool_list_changed().await,
                News::Prompts => sink.notify_prompt_list_changed().await,
                News::Resources => sink.notify_resource_list_changed().await,
                News::Resource(uri) => sink.notify_resource_updated(uri).await,
                News::Log(_) => Ok(()),
            };
            if let Err(why) = told {
                tracing::debug!("a listener is gone: {why}");
                return Ok(());
            }
        }
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut all = published::listing(&*self.home(&context)?).await?.tools;
        if let Ok(route) = serde_json::from_value::<Tool>(hook::listed()) {
            let at = all.partition_point(|tool| tool.name < route.name);
            all.insert(at, route);
        }
        Ok(fresh!(ListToolsResult::with_all_items(all)))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let home = self.home(&context)?;
        // Asked by a hook before every tool of the client: no extension has to be there for it.
        if request.name == hook::TOOL {
            let arguments = Value::Object(request.arguments.unwrap_or_default());
            let answer = hook::route(&home.active, &arguments);
            return Ok(CallToolResult::success(vec![ContentBlock::text(answer)]).into());
        }
        calls::tool(&home, request, &context).await
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let all = published::prompts(&*self.home(&context)?).await?;
        Ok(fresh!(ListPromptsResult::with_all_items(all)))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let home = self.home(&context)?;
        calls::prompt(&home, request, &context).await
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let Reference::Prompt(prompt) = &request.r#ref else {
            return Ok(CompleteResult::default());
        };
        let home = self.home(&context)?;
        let found = published::complete(&home, &prompt.name, request.argument).await?;
        Ok(CompleteResult::new(found))
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let all = published::resources(&*self.home(&context)?).await?;
        Ok(fresh!(ListResourcesResult::with_all_items(all)))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let all = published::templates(&*self.home(&context)?).await?;
        Ok(fresh!(ListResourceTemplatesResult::with_all_items(all)))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let read = published::read(&*self.home(&context)?, request.uri).await?;
        Ok(fresh!(read).into())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let home = self.home(&context)?;
        Ok(GetTaskResult::new(home.tasks.get_task(&request.task_id)?))
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let home = self.home(&context)?;
        home.tasks
            .update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.home(&context)?.tasks.cancel_task(&request.task_id)
    }

    async fn list_skills(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListSkillsResult, ErrorData> {
        Ok(self.home(&context)?.site.skills.list())
    }

    async fn get_skill(
        &self,
        request: GetSkillRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetSkillResult, ErrorData> {
        self.home(&context)?.site.skills.get(&request.uri)
    }

    async fn read_resource_directory(
        &self,
        request: ReadResourceDirectoryRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceDirectoryResult, ErrorData> {
        self.home(&context)?.site.skills.directory(&request.uri)
    }

    /// What no type of the protocol fits.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let method = request.method.as_str();
        let era: &[&str] = if is_modern(&context) { &NEWER } else { &OLDER };
        let name = pi_vers_host::visible(method);
        Err(if SERVED.contains(&method) || era.contains(&method) {
            ErrorData::invalid_params(format!("the parameters of {name} are wrong"), None)
        } else {
            unknown_method(&name)
        })
    }
}

fn unknown_method(name: &str) -> ErrorData {
    let why = format!("there is no method {name}");
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, why, None)
}
