//! SSH and ports inside TLS.

use crate::lab::{DEADLINE, Lab};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use vers_local::Endpoint;

async fn connect(endpoint: &Endpoint, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&endpoint.ca_pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(endpoint.ssh_addr).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio::time::timeout(DEADLINE, connector.connect(name, stream))
        .await
        .expect("the handshake must end")
}

/// Up to the line break.
async fn line(stream: &mut TlsStream<TcpStream>) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\n") {
        bytes.push(
            tokio::time::timeout(DEADLINE, stream.read_u8())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_leads_to_the_ssh_server_of_the_vm_and_to_no_other() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let name = format!("{vm}.vm.localhost");
    let mut ssh = connect(&api.endpoint, &name).await.unwrap();
    assert!(line(&mut ssh).await.starts_with("SSH-2.0-"));
    for nowhere in [
        "00000000-0000-4000-8000-000000000000.vm.localhost",
        "x.vm.localhost",
        "localhost",
    ] {
        let refused = connect(&api.endpoint, nowhere).await.unwrap_err();
        // By the server, in the handshake; not by our own look at the certificate.
        assert!(
            refused.to_string().contains("alert"),
            "{nowhere}: {refused}"
        );
    }
    api.set_state(&vm, "Paused").await;
    assert!(connect(&api.endpoint, &name).await.is_err());
    api.set_state(&vm, "Running").await;
    let mut ssh = connect(&api.endpoint, &name).await.unwrap();
    assert!(line(&mut ssh).await.starts_with("SSH-2.0-"));
    // The end of the VM ends its connections.
    api.delete(&vm).await;
    let mut rest = Vec::new();
    let end = tokio::time::timeout(DEADLINE, ssh.read_to_end(&mut rest))
        .await
        .unwrap();
    drop(end);
    assert!(connect(&api.endpoint, &name).await.is_err());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_a_vm_is_reached_and_each_direction_ends_on_its_own() {
    let lab = Lab::new().await;
    let api = &lab.api;
    let vm = api.create().await;
    let server = "import socket\ns=socket.socket()\ns.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\ns.bind(('127.0.0.1',8080))\ns.listen()\nopen('/root/up','w').close()\nwhile True:\n c,_=s.accept()\n d=b''\n while True:\n  x=c.recv(65536)\n  if not x: break\n  d+=x\n c.sendall(d[::-1])\n c.close()\n";
    let start = json!({"command": ["sh", "-c", "nohup python3 -c \"$S\" >/root/log 2>&1 & while ! [ -e /root/up ]; do sleep 0.01; done"], "env": {"S": server}});
    assert_eq!(api.exec(&vm, start).await["exit_code"], 0);
    for n in [1_usize, 1 << 20] {
        let mut stream = connect(&api.endpoint, &format!("8080--{vm}.vm.localhost"))
            .await
            .unwrap();
        let sent: Vec<u8> = (0..n).map(|i| u8::try_from(i % 251).unwrap()).collect();
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        tokio::time::timeout(DEADLINE, stream.read_to_end(&mut got))
            .await
            .unwrap()
            .unwrap();
        assert!(
            got.iter().rev().eq(sent.iter()),
            "{n} bytes went, others came back"
        );
    }
    let mut closed = connect(&api.endpoint, &format!("9--{vm}.vm.localhost"))
        .await
        .unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, closed.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_dropped() {
    let lab = Lab::new().await;
    let mut silent = TcpStream::connect(lab.api.endpoint.ssh_addr).await.unwrap();
    let mut rest = Vec::new();
    // The handshake's own deadline is 10 s.
    tokio::time::timeout(Duration::from_secs(60), silent.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_loopback_is_listened_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = crate::lab::options(dir.path());
    options.api_listen = ([0, 0, 0, 0], 0).into();
    let refused = vers_local::Platform::start(options).await.unwrap_err();
    assert!(refused.to_string().contains("loopback only"), "{refused}");
}
