//! The server over Streamable HTTP.
//!
//! Whoever reaches the port could do all that the extensions can. So it listens on the loopback interface unless told otherwise; a browser's
//! request is told from a client's by its `Host` and `Origin`; elsewhere than on loopback, and wherever a token is given, a
//! request without that token reaches nothing. Bodies, sessions and homes are bounded.
//!
//! A session of an older client has a home of its own, which ends with it. A newer client has no session: the state it works with is
//! the one that its URL names, `/mcp` or `/mcp/NAME`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use rmcp::ErrorData;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use super::home::Home;
use super::locked;
use super::server::{Homes, Server};
use super::site::Site;
use super::transport::LONGEST;
use crate::failure::{Code, Failure};

/// Most homes at a time: each has an instance of every extension.
const MOST_HOMES: usize = 64;
/// A home that nobody has used for so long may have to make room.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// The longest name of a home.
const LONGEST_NAME: usize = 64;
/// The least length of a token.
const LEAST_TOKEN: usize = 16;

/// A home that a URL names.
struct Used {
    home: Arc<Home>,
    /// When it was asked for last.
    last: Instant,
}

/// Gives up the one that was not used for the longest time, if that is long and nothing goes on in it.
fn make_room(named: &mut HashMap<String, Used>) -> bool {
    let idle = named.iter().filter(|(name, used)| {
        // Requests under way hold their home.
        !name.is_empty()
            && used.last.elapsed() >= IDLE
            && Arc::strong_count(&used.home) == 1
            && used.home.rests()
    });
    let oldest = idle.min_by_key(|(_, used)| used.last);
    let Some(name) = oldest.map(|(name, _)| name.clone()) else {
        return false;
    };
    if let Some(used) = named.remove(&name) {
        tracing::info!("the state {name} is given up: it was not used for long");
        used.home.retire();
    }
    true
}

/// The homes of this process's clients.
pub(crate) struct Lodging {
    site: Arc<Site>,
    named: Mutex<HashMap<String, Used>>,
    /// Those of sessions.
    own: Arc<AtomicUsize>,
}

impl Lodging {
    pub(crate) fn new(site: Arc<Site>) -> Arc<Self> {
        Arc::new(Self {
            site,
            named: Mutex::default(),
            own: Arc::default(),
        })
    }

    pub(crate) fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// A home that nobody else has.
    pub(crate) fn own(&self) -> Result<Arc<Home>, ErrorData> {
        let named = locked(&self.named);
        if named.len() + self.own.load(Ordering::Relaxed) >= MOST_HOMES {
            return Err(full());
        }
        let counted = Counted::one(&self.own);
        Ok(self.site.open(None, Some(counted)))
    }

    /// The home of this path below the endpoint.
    pub(crate) fn named(&self, path: &str) -> Result<Arc<Home>, ErrorData> {
        let name = path.trim_matches('/');
        let fits = name.len() <= LONGEST_NAME
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !fits {
            let why = "a name in the URL has up to 64 letters, digits, - and _";
            return Err(ErrorData::invalid_request(why, None));
        }
        let mut named = locked(&self.named);
        if let Some(used) = named.get_mut(name) {
            used.last = Instant::now();
            return Ok(used.home.clone());
        }
        if named.len() + self.own.load(Ordering::Relaxed) >= MOST_HOMES && !make_room(&mut named) {
            return Err(full());
        }
        // The command line names the session of the plain endpoint.
        let stored = if name.is_empty() {
            self.site.stored()
        } else {
            None
        };
        let home = self.site.open(stored, None);
        let used = Used {
            home: home.clone(),
            last: Instant::now(),
        };
        named.insert(name.to_owned(), used);
        Ok(home)
    }

    /// Ends all of them.
    async fn end(&self) {
        self.site.end.cancel();
        let named = std::mem::take(&mut *locked(&self.named));
        futures::future::join_all(named.values().map(|used| used.home.end())).await;
    }
}

fn full() -> ErrorData {
    ErrorData::internal_error(
        "this server has too many sessions: end one, or try again later",
        None,
    )
}

/// One of something that is counted while it is there.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A bearer token, of which only the digest is kept.
#[derive(Clone)]
pub(crate) struct Token([u8; 32]);

impl Token {
    fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// The one in this file, which nobody else may read.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        use std::os::unix::fs::PermissionsExt as _;
        let wrong = |why: String| {
            Failure::new(
                Code::Usage,
                "usage",
                format!("the token in {} can't be used: {why}", file.display()),
            )
        };
        let meta = std::fs::metadata(file).map_err(|why| wrong(why.to_string()))?;
        if meta.permissions().mode() & 0o077 != 0 {
            let next = format!("chmod 600 {}", file.display());
            return Err(wrong("others may read it".into()).next(next));
        }
        let token = std::fs::read_to_string(file).map_err(|why| wrong(why.to_string()))?;
        let token = token.trim();
        if token.len() < LEAST_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong(format!(
                "it needs at least {LEAST_TOKEN} visible ASCII characters and no spaces"
            ))
            .next("make one with: openssl rand -hex 32"));
        }
        Ok(Self::of(token.as_bytes()))
    }

    /// Says by its time nothing of the token: digests are compared.
    fn fits(&self, header: Option<&header::HeaderValue>) -> bool {
        let given = header.and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        given.is_some_and(|given| Self::of(given.as_bytes()).0 == self.0)
    }
}

/// Who is let in.
#[derive(Clone)]
struct Guard {
    token: Option<Token>,
    hosts: Arc<[String]>,
}

async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter();
    let mut named = hosts.map(|value| value.to_str().unwrap_or_default());
    let authority = request.uri().authority().map(|one| one.as_str());
    // The SDK looks, too, but takes `127.0.0.1:1.example.com` for 127.0.0.1.
    if !named.all(|host| known(host, &guard.hosts))
        || !authority.is_none_or(|host| known(host, &guard.hosts))
    {
        let why = "this server is not known by that name: see --allow-host\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let given = request.headers().get(header::AUTHORIZATION);
    if guard.token.is_none_or(|token| token.fits(given)) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (
        StatusCode::UNAUTHORIZED,
        challenge,
        "a bearer token is needed\n",
    )
        .into_response()
}

/// Whether this is one of the names, with any port or none.
fn known(host: &str, names: &[String]) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, port)) => (name, port),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port_fits = match port.strip_prefix(':') {
        Some(port) => port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    port_fits && names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Where to listen, and who may come.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) token: Option<Token>,
    /// Names by which clients call this machine.
    pub(crate) hosts: Vec<String>,
    /// Origins of web pages that may use it.
    pub(crate) origins: Vec<String>,
}

/// Takes the port. Whoever asked for port 0 hears which it is from what this returns.
pub(crate) async fn listen(door: &Door) -> Result<TcpListener, Failure> {
    let address = door.address;
    if !address.ip().is_loopback() && door.token.is_none() {
        let why = format!("{address} can be reached from other machines, and there is no token");
        return Err(Failure::usage(why).next("give --token-file FILE, or listen on 127.0.0.1"));
    }
    TcpListener::bind(address).await.map_err(|why| {
        Failure::new(
            Code::Usage,
            "usage",
            format!("{address} can't be listened on: {why}"),
        )
        .next("take another port, or port 0 for any")
    })
}

/// Serves until `site.end` fires; returns when every home has ended. The caller has a limit.
pub(crate) async fn serve(
    listener: TcpListener,
    door: Door,
    lodging: Arc<Lodging>,
) -> Result<(), Failure> {
    let end = lodging.site.end.clone();
    let port = listener.local_addr().map_or(0, |address| address.port());
    let names = hosts(&door);
    let who = Guard {
        token: door.token.clone(),
        hosts: names.clone().into(),
    };
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(names)
        .with_allowed_origins(origins(&door, port))
        .enforce_origin_validation()
        .with_max_request_body_bytes(LONGEST)
        .with_cancellation_token(end.clone());
    let homes = Homes::Many(lodging.clone());
    let service = StreamableHttpService::new(
        move || Ok(Server::new(homes.clone())),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    let app = Router::new()
        .nest_service("/mcp", service)
        .fallback(async || (StatusCode::NOT_FOUND, Body::from("the endpoint is /mcp\n")))
        .layer(from_fn_with_state(who, guard));
    // A stream's events are small writes, which would wait for each other.
    let listener = listener.tap_io(|connection| {
        if let Err(why) = connection.set_nodelay(true) {
            tracing::debug!("small writes wait: {why}");
        }
    });
    let serving = axum::serve(listener, app).with_graceful_shutdown({
        let end = end.clone();
        async move { end.cancelled().await }
    });
    let served = tokio::select! {
        biased;
        served = async { serving.await } => served,
        // Streams that a client holds open are not waited for.
        () = async { end.cancelled().await; lodging.end().await } => Ok(()),
    };
    lodging.end().await;
    served.map_err(|why| Failure::internal(format!("the server stopped: {why}")))
}

/// The names under which a request may come: without these a web page could use a name of its own for this machine.
fn hosts(door: &Door) -> Vec<String> {
    let mut hosts = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    match door.address.ip() {
        IpAddr::V4(ip) if !ip.is_unspecified() => hosts.push(ip.to_string()),
        IpAddr::V6(ip) if !ip.is_unspecified() => hosts.push(ip.to_string()),
        _ => {}
    }
    hosts.extend(door.hosts.iter().cloned());
    hosts
}

/// The origins whose pages may use it: those that the user names, and its own, under which it serves no page.
fn origins(door: &Door, port: u16) -> Vec<String> {
    let own = ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("http://{host}:{port}"));
    own.into_iter()
        .chain(door.origins.iter().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_token_opens() {
        let token = Token::of(b"0123456789abcdef");
        let fits = |value: &str| token.fits(Some(&value.parse().unwrap()));
        assert!(fits("Bearer 0123456789abcdef") && fits("bearer 0123456789abcdef"));
        for wrong in [
            "0123456789abcdef",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Basic 0123456789abcdef",
        ] {
            assert!(!fits(wrong), "{wrong}");
        }
        assert!(!token.fits(None));
    }

    #[test]
    fn a_name_that_only_begins_like_ours_is_another_one() {
        let names = [
            "127.0.0.1".to_owned(),
            "localhost".to_owned(),
            "::1".to_owned(),
        ];
        for ours in [
            "127.0.0.1",
            "127.0.0.1:80",
            "LOCALHOST:1",
            "[::1]",
            "[::1]:8931",
        ] {
            assert!(known(ours, &names), "{ours}");
        }
        for other in [
            "",
            "127.0.0.1:",
            "127.0.0.1:80.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "evil.example",
            "[::1].evil.example",
            "localhost:99999",
            "localhost:+1",
            "[::1",
        ] {
            assert!(!known(other, &names), "{other}");
        }
    }

    #[test]
    fn a_token_that_others_may_read_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let mode =
            |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(Token::read(&file).is_err());
        mode(0o600);
        assert!(Token::read(&file).is_ok());
        std::fs::write(&file, "short").unwrap();
        assert!(Token::read(&file).is_err());
    }
}
