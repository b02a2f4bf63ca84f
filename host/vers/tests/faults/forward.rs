//! Forwarded ports over a network that fails.

use std::time::Duration;

use crate::faults::{Fault, Faults, Plan};
use crate::lab::{Lab, eventually, marked};
use crate::{ALONE, SEED, of_vm, ssh};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(60);

/// Whatever the network does, the local side gets all of the answer or an error, never a part that looks like all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_whole_or_an_error() {
    let _alone = ALONE.lock().await;
    let lab = Lab::start().await;
    let edge = lab.settings(&[]).vm_connect().unwrap();
    let faults = Faults::start(edge, SEED).await.unwrap();
    let ssh = ssh(&lab, &faults);
    // It answers once it has got everything.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).await.is_ok() {
                    let _ = stream.write_all(&all).await;
                }
            });
        }
    });
    let data: Vec<u8> = (0..1usize << 20).map(|i| ((i * i) >> 7) as u8).collect();
    let forward = ssh.forward_port(lab.vm, port, None).await.unwrap();
    let exchange = || async {
        let mut stream = TcpStream::connect(("127.0.0.1", forward.local_port())).await?;
        stream.write_all(&data).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    faults.plan(Plan {
        faults: vec![Fault::Reset, Fault::Close, Fault::Truncate, Fault::Corrupt],
        after: 100_000..4_000_000,
        ..Plan::default()
    });
    faults.cut();
    let (mut whole, mut failed) = (0, 0);
    while whole < 10 || failed < 10 {
        match tokio::time::timeout(DEADLINE, exchange())
            .await
            .expect("it hangs")
        {
            // Before the server has the end, its answer is none; a cut there is not seen by it, and so by nobody else.
            Ok(answer) => {
                assert!(answer == data, "{} of {} bytes", answer.len(), data.len());
                whole += 1;
            }
            Err(_) => failed += 1,
        }
        assert!(whole + failed < 500, "{whole} whole, {failed} failed");
    }
    faults.plan(Plan::default());
    faults.cut();
    // The first one may still meet the old connection.
    let answer = match exchange().await {
        Ok(answer) => answer,
        Err(_) => exchange().await.unwrap(),
    };
    assert!(answer == data);
    let counts = faults.counts();
    eprintln!("{whole} whole, {failed} failed; {counts:?}");
    drop((forward, ssh));
    eventually("nothing is left on the VM", || {
        marked(&of_vm(&lab)).is_empty()
    })
    .await;
}
