//! `/livez`, `/readyz` (`?verbose`), `/healthz` (alias of readyz), `/metrics`, `/version`. GET and
//! HEAD only.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Reply, SOON, World, reminder};

#[tokio::test]
async fn probes_answer_as_the_contract_says() {
    let world = World::start(&[]).await;
    let member = world.member();
    let get = async |path| member.probe("GET", path).await.unwrap();
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = get(path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "ok\n"),
            "{path}"
        );
    }
    let version = get("/version").await;
    assert_eq!(
        (version.status, version.body.trim()),
        (200, env!("CARGO_PKG_VERSION"))
    );
    for path in ["/readyz?verbose", "/healthz?verbose"] {
        let verbose = get(path).await;
        assert_eq!(verbose.status, 200);
        assert!(
            verbose.body.matches("[+] ").count() >= 3 && !verbose.body.contains("[-] "),
            "{verbose:?}"
        );
    }
    assert_eq!(get("/nothing").await.status, 404);
}

#[tokio::test]
async fn only_get_and_head_are_answered() {
    let world = World::start(&[]).await;
    let member = world.member();
    for path in ["/livez", "/readyz", "/healthz", "/metrics", "/version"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = member.probe(method, path).await.unwrap();
            assert_eq!(answer.status, 405, "{method} {path}");
            assert!(answer.head.contains("allow: get, head"), "{answer:?}");
        }
        let head = member.probe("HEAD", path).await.unwrap();
        assert_eq!((head.status, head.body.as_str()), (200, ""), "HEAD {path}");
    }
}

#[tokio::test]
async fn without_nats_it_is_alive_and_not_ready() {
    let world = World::start(&[]).await;
    let member = world.member();
    world.kill_nats().await;
    let said = world
        .eventually("it is not ready", async || {
            let answer = member.probe("GET", "/readyz").await?;
            if answer.status == 503 {
                Ok(answer)
            } else {
                Err(format!("{answer:?}"))
            }
        })
        .await;
    assert!(said.body.contains("[-] nats connected"), "{said:?}");
    assert_eq!(member.probe("GET", "/livez").await.unwrap().status, 200);

    world.restart_nats().await;
    world
        .eventually("it is ready again", async || member.is_ready().await)
        .await;
}

#[tokio::test]
async fn a_stopping_member_is_alive_and_not_ready() {
    let world = World::start(&[("delivery.timeout", "60s")]).await;
    let member = world.member();
    let app = world.app("app-1", &["alice"]).await;
    app.on_delivery(|_| Reply::silence());
    world.publish("billing", [reminder("1", "alice")]).await;
    let is_asked = async || {
        if app.attempts("1") > 0 {
            Ok(())
        } else {
            Err("not asked".to_owned())
        }
    };
    world.eventually("a delivery is under way", is_asked).await;

    member.signal("TERM");
    let said = world
        .eventually("it is not ready", async || {
            let answer = member.probe("GET", "/readyz?verbose").await?;
            if answer.status == 503 {
                Ok(answer)
            } else {
                Err(format!("{answer:?}"))
            }
        })
        .await;
    assert!(said.body.contains("[-] not stopping"), "{said:?}");
    assert_eq!(member.probe("GET", "/livez").await.unwrap().status, 200);
}

#[tokio::test]
async fn idle_connections_keep_no_probe_waiting() {
    let world = World::start(&[]).await;
    let member = world.member();
    let address = member.address().unwrap();
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection
            .write_all(b"GET /livez HTTP/1.1\r\n")
            .await
            .unwrap(); // A head that never ends.
        idle.push(connection);
    }
    let answer = tokio::time::timeout(SOON / 5, member.probe("GET", "/livez"))
        .await
        .expect("a probe waits");
    assert_eq!(answer.unwrap().status, 200);
    let end = tokio::time::timeout(SOON / 5, idle[0].read(&mut [0]))
        .await
        .expect("the oldest is still open");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let mut open = 0;
    for connection in &mut idle {
        let is_open = tokio::time::timeout(
            std::time::Duration::from_millis(1),
            connection.read(&mut [0]),
        )
        .await
        .is_err();
        open += usize::from(is_open);
    }
    assert!(open <= 64, "{open} are open");
}

#[tokio::test]
async fn unfinished_heads_end_in_time() {
    let world = World::start(&[]).await;
    let mut connection = TcpStream::connect(world.member().address().unwrap())
        .await
        .unwrap();
    connection
        .write_all(b"GET /livez HTTP/1.1\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(SOON, connection.read_to_end(&mut answer))
        .await
        .expect("it is still open");
    assert!(
        end.is_err() || !answer.starts_with(b"HTTP/1.1 200"),
        "{answer:?}"
    );
}

/// A page of a stranger's site can have its own name lead to this machine, and would then read the
/// answer.
#[tokio::test]
async fn foreign_names_get_no_figures_on_loopback() {
    let world = World::start(&[]).await;
    let address = world.member().address().unwrap();
    let ask = async |host: &str| {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection
            .write_all(format!("GET /metrics HTTP/1.1\r\n{host}\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    for host in [
        "Host: 127.0.0.1:9411\r\n",
        "Host: localhost\r\n",
        "Host: [::1]:9411\r\n",
    ] {
        assert_eq!(ask(host).await, "200", "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:9411",
        "127.0.0.1.evil.example:9411",
        "localhost.evil.example",
    ] {
        assert_eq!(ask(&format!("Host: {host}\r\n")).await, "421", "{host}");
    }
}
