//! A small HTTP server on loopback that says what a test wants, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// An answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// What the header says that it has, if that is something else.
    pub(crate) length: Option<usize>,
    /// Answered only to who brings this token; others get the headers of a 401.
    pub(crate) token: Option<String>,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            ..Self::default()
        }
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self {
            status: 302,
            headers: vec![("location".into(), to.to_owned())],
            ..Self::default()
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    replies: BTreeMap<String, Reply>,
    /// Path with query, and the authorization.
    asked: Vec<(String, Option<String>)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    inner: Arc<Mutex<Inner>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap().to_string(),
            inner: Arc::default(),
        };
        let inner = server.inner.clone();
        let address = server.address.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (inner, address) = (inner.clone(), address.clone());
                // Whoever goes away in the middle is no concern of the server's.
                std::thread::spawn(move || drop(serve(stream, &inner, &address)));
            }
        });
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn put(&self, path: &str, reply: Reply) {
        let mut inner = self.inner.lock().unwrap();
        inner.replies.insert(path.to_owned(), reply);
    }

    pub(crate) fn asked(&self) -> Vec<(String, Option<String>)> {
        self.inner.lock().unwrap().asked.clone()
    }
}

fn serve(mut stream: TcpStream, inner: &Mutex<Inner>, address: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut authorization = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("authorization: ") {
            authorization = Some(value.to_owned());
        }
    }
    let path = target.split('?').next().unwrap_or_default();
    let reply = {
        let mut inner = inner.lock().unwrap();
        inner.asked.push((target.clone(), authorization.clone()));
        inner.replies.get(path).cloned()
    };
    let mut reply = reply.unwrap_or(Reply {
        status: 404,
        ..Reply::default()
    });
    if let Some(token) = &reply.token
        && authorization.as_deref() != Some(&format!("bearer {token}"))
    {
        let challenge =
            format!("Bearer realm=\"http://{address}/token\",service=\"here\",scope=\"ignored\"");
        reply = Reply {
            status: 401,
            headers: vec![("www-authenticate".into(), challenge)],
            ..Reply::default()
        };
    }
    let length = reply.length.unwrap_or(reply.body.len());
    write!(
        stream,
        "HTTP/1.1 {} x\r\ncontent-length: {length}\r\nconnection: close\r\n",
        reply.status
    )?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&reply.body)?;
    stream.flush()
}
