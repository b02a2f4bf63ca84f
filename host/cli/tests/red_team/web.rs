//! A server on the loopback interface that does what a hostile one would, and remembers what it was sent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// See the module. Threads end with the test's process.
pub(crate) struct Web {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    open: Arc<AtomicUsize>,
}

impl Web {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let web = Self {
            port,
            seen: Arc::default(),
            open: Arc::default(),
        };
        let (seen, open) = (web.seen.clone(), web.open.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (seen, open) = (seen.clone(), open.clone());
                open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let _ = serve(stream, &seen);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        web
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// A rule of `http` for this path here.
    pub(crate) fn rule(&self, path: &str) -> String {
        format!(
            "{{ url = \"{}\", addresses = [\"127.0.0.1\"] }}",
            self.url(path)
        )
    }

    /// The requests that came, each whole.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut request = String::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            request.push_str(&line);
            if line == "\r\n" {
                break;
            }
        }
        seen.lock().unwrap().push(request.clone());
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match path {
            "/silent" => {
                // Until the other side has had enough.
                let mut rest = [0; 64];
                while reader.read(&mut rest)? > 0 {}
                return Ok(());
            }
            "/to" => write!(
                stream,
                "HTTP/1.1 302 Found\r\nlocation: {query}\r\ncontent-length: 0\r\n\r\n"
            )?,
            "/echo" => {
                let echoed: String = request.lines().filter(|line| line.contains("x-")).collect();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nx-echo: {echoed}\r\ncontent-length: {}\r\n\r\n",
                    request.len()
                )?;
                // In pieces, none of which holds a secret.
                for piece in request.as_bytes().chunks(5) {
                    stream.write_all(piece)?;
                    stream.flush()?;
                }
            }
            "/fields" => {
                let fields: String = (0..5_000).map(|n| format!("x-{n}: y\r\n")).collect();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n"
                )?;
            }
            "/endless" => {
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n")?;
                loop {
                    stream.write_all(&[b'x'; 1 << 16])?;
                }
            }
            _ => write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")?,
        }
        stream.flush()?;
    }
}
