//! `/livez`, `/readyz` (`?verbose`), `/healthz` (alias of readyz), `/metrics`, `/version`. GET and HEAD only.

use crate::harness::{Reply, World, reminder};

#[tokio::test]
async fn probes_answer_as_the_contract_says() {
    let world = World::start(&[]).await;
    let member = world.member();
    let get = async |path| member.probe("GET", path).await.unwrap();
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
    }
    let version = get("/version").await;
    assert_eq!((version.status, version.body.trim()), (200, env!("CARGO_PKG_VERSION")));
    for path in ["/readyz?verbose", "/healthz?verbose"] {
        let verbose = get(path).await;
        assert_eq!(verbose.status, 200);
        assert!(verbose.body.matches("[+] ").count() >= 3 && !verbose.body.contains("[-] "), "{verbose:?}");
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
            if answer.status == 503 { Ok(answer) } else { Err(format!("{answer:?}")) }
        })
        .await;
    assert!(said.body.contains("[-] nats connected"), "{said:?}");
    assert_eq!(member.probe("GET", "/livez").await.unwrap().status, 200);

    world.restart_nats().await;
    world.eventually("it is ready again", async || member.is_ready().await).await;
}

#[tokio::test]
async fn a_stopping_member_is_alive_and_not_ready() {
    let world = World::start(&[("delivery.timeout", "60s")]).await;
    let member = world.member();
    let app = world.app("app-1", &["alice"]).await;
    app.on_delivery(|_| Reply::silence());
    world.publish("billing", [reminder("1", "alice")]).await;
    let is_asked = async || if app.attempts("1") > 0 { Ok(()) } else { Err("not asked".to_owned()) };
    world.eventually("a delivery is under way", is_asked).await;

    member.signal("TERM");
    let said = world
        .eventually("it is not ready", async || {
            let answer = member.probe("GET", "/readyz?verbose").await?;
            if answer.status == 503 { Ok(answer) } else { Err(format!("{answer:?}")) }
        })
        .await;
    assert!(said.body.contains("[-] not stopping"), "{said:?}");
    assert_eq!(member.probe("GET", "/livez").await.unwrap().status, 200);
}
