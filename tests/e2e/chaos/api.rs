//! A REST API that fails on purpose: before it, a proxy that answers in its place.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Fine,
    /// `500 Internal Server Error`, and the request is not heard by anybody.
    Broken,
    /// `429 Too Many Requests`.
    Busy,
    /// No answer at all.
    Silent,
}

/// The proxy.
pub(crate) struct FaultyApi {
    pub(crate) address: SocketAddr,
    mood: watch::Sender<Mood>,
}

impl FaultyApi {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (mood, moods) = watch::channel(Mood::Fine);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, to, moods.clone()));
            }
        });
        Self { address, mood }
    }

    /// From now on; connections that are open are cut, so that the next request meets it.
    pub(crate) fn be(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

async fn serve(mut client: TcpStream, to: SocketAddr, mut moods: watch::Receiver<Mood>) {
    let mood = *moods.borrow_and_update();
    let answer = match mood {
        Mood::Fine => {
            let Ok(mut server) = TcpStream::connect(to).await else {
                return;
            };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                _ = moods.changed() => {}
            }
            return;
        }
        Mood::Silent => {
            let _ = moods.changed().await;
            return;
        }
        Mood::Broken => "500 Internal Server Error",
        Mood::Busy => "429 Too Many Requests\r\nRetry-After: 1",
    };
    let body = r#"{"success":false,"error":"chaos"}"#;
    let mut request = vec![0; 64 * 1024];
    // Its head is enough: whoever sends more sees the connection close.
    let _ = client.read(&mut request).await;
    let answer = format!(
        "HTTP/1.1 {answer}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = client.write_all(answer.as_bytes()).await;
    let _ = client.shutdown().await;
}

/// Shared by those who make trouble and those who watch.
pub(crate) type Shared = Arc<FaultyApi>;
