//! A client of HTTP by hand: it sends the headers that a test wants, and no others.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::Home;
use crate::peer::{DEADLINE, arguments};

/// `pi-vers mcp --http`, and where it listens.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) at: SocketAddr,
}

impl Server {
    pub(crate) fn start(home: &Home, guests: &[&str], more: &[&str]) -> Self {
        let mut command = home.command(arguments(home, guests));
        command.args(["--http", "127.0.0.1:0"]).args(more);
        command.stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut all = String::new();
        loop {
            let mut line = String::new();
            let read = said.read_line(&mut line).unwrap();
            if read == 0 {
                let _ = child.kill();
                panic!("it does not listen: {all}");
            }
            all.push_str(&line);
            let at = line
                .trim_end()
                .strip_prefix("listening on http://")
                .and_then(|rest| rest.strip_suffix("/mcp"));
            if let Some(at) = at {
                // What it says later is for nobody, and must not fill the pipe.
                std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
                let at = at.parse().unwrap();
                return Self { child, at };
            }
        }
    }

    pub(crate) fn ended(&mut self, since: Instant) -> Duration {
        while since.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return since.elapsed();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it did not end");
    }

    /// A request as a client of this era makes it.
    pub(crate) fn post(&self, body: &Value) -> Request {
        let mut request = Request::new(self.at, "POST", "/mcp")
            .header("host", &self.at.to_string())
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(body.to_string());
        let params = &body["params"];
        let version = &params["_meta"]["io.modelcontextprotocol/protocolVersion"];
        if let (Some(version), Some(method)) = (version.as_str(), body["method"].as_str()) {
            request = request
                .header("mcp-protocol-version", version)
                .header("mcp-method", method);
            let name = params["name"].as_str().or(params["uri"].as_str());
            if let Some(name) = name {
                request = request.header("mcp-name", name);
            }
        }
        request
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A session of the older era.
pub(crate) struct Session<'a> {
    server: &'a Server,
    pub(crate) id: String,
    /// `Authorization`, where the server wants one.
    token: Option<String>,
    count: u64,
}

impl<'a> Session<'a> {
    pub(crate) fn open(server: &'a Server) -> Self {
        let reply = server.post(&hello()).send();
        assert_eq!(reply.status, 200, "{reply:?}");
        let id = reply
            .header("mcp-session-id")
            .expect("a session")
            .to_owned();
        let mut session = Self {
            server,
            id,
            token: None,
            count: 0,
        };
        let told = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let reply = session.request(&told).send();
        assert_eq!(reply.status, 202, "{reply:?}");
        session.count = 0;
        session
    }

    pub(crate) fn request(&self, body: &Value) -> Request {
        let mut request = self
            .server
            .post(body)
            .header("mcp-session-id", &self.id)
            .header("mcp-protocol-version", "2025-11-25");
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        request
    }

    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        self.count += 1;
        let id = self.count;
        let reply = self
            .request(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .send();
        assert_eq!(reply.status, 200, "{reply:?}");
        let messages = reply.messages();
        let answer = messages
            .into_iter()
            .find(|message| message.get("method").is_none() && message["id"] == id);
        answer.unwrap_or_else(|| panic!("no answer: {reply:?}"))
    }

    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> String {
        let answer = self.ask("tools/call", crate::peer::call(tool, arguments));
        crate::peer::said(&answer["result"]).to_owned()
    }
}

pub(crate) fn hello() -> Value {
    json!({
        "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "0" },
        },
    })
}

/// A request to be sent.
#[derive(Clone)]
pub(crate) struct Request {
    at: SocketAddr,
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(at: SocketAddr, method: &str, path: &str) -> Self {
        Self {
            at,
            line: format!("{method} {path} HTTP/1.1"),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Sets a header; an empty value takes it away.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(there, _)| there != name);
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it, and returns the connection before anything was read from it.
    pub(crate) fn begin(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let mut head = format!("{}\r\nconnection: close\r\n", self.line);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        stream.write_all(head.as_bytes()).unwrap();
        // A server may refuse before it has read everything.
        let _ = stream.write_all(&self.body);
        stream
    }

    pub(crate) fn send(&self) -> Reply {
        Reply::read(self.begin())
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    fn read(stream: TcpStream) -> Self {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no reply: {line:?}"));
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Self {
            status,
            headers,
            body: String::new(),
        };
        let mut bytes = Vec::new();
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let mut size = String::new();
                stream.read_line(&mut size).unwrap();
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                let mut chunk = vec![0; size + 2];
                stream.read_exact(&mut chunk).unwrap();
                if size == 0 {
                    break;
                }
                bytes.extend_from_slice(&chunk[..size]);
            }
        } else {
            // After a refusal the rest of a request may be answered with a reset.
            let _ = stream.read_to_end(&mut bytes);
        }
        reply.body = String::from_utf8(bytes).unwrap();
        reply
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(there, _)| there == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The messages in it: one as JSON, or a stream of them.
    pub(crate) fn messages(&self) -> Vec<Value> {
        let read = |text: &str| serde_json::from_str(text).unwrap();
        match self.header("content-type") {
            Some(kind) if kind.starts_with("text/event-stream") => self
                .body
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .map(str::trim)
                .filter(|data| !data.is_empty())
                .map(read)
                .collect(),
            _ => vec![read(&self.body)],
        }
    }
}
