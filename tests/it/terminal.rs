//! The web terminal over plain HTTP, with no more rights in NATS than an app server has. `tests/terminal` looks at it as
//! people do.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Member, exchange};
use crate::secured::{Realm, eventually};

/// A terminal and somebody's cookie for it.
struct Desk {
    address: SocketAddr,
    cookie: String,
}

impl Desk {
    async fn of(address: SocketAddr, user: &str) -> Self {
        let mut desk = Self { address, cookie: String::new() };
        let (status, head, _) = desk.ask("POST", "/sign-in", &format!("user={user}")).await;
        assert_eq!(status, 303, "{head}");
        let cookie = head.split("set-cookie: ").nth(1).and_then(|rest| rest.split(';').next());
        desk.cookie = cookie.expect("a cookie").to_owned();
        desk
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let Self { address, cookie } = self;
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\nCookie: {cookie}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let answer = exchange(self.address, &self.request(method, path, body)).await.unwrap();
        (answer.status, answer.head, answer.body)
    }

    async fn window(&self) -> Window {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all(self.request("GET", "/as/alice/events", "").as_bytes()).await.unwrap();
        Window { connection, text: String::new() }
    }
}

/// A connection that brings events.
struct Window {
    connection: TcpStream,
    text: String,
}

impl Window {
    /// Reads until there is an event of this kind. Answers everything from there on.
    async fn event(&mut self, kind: &str) -> &str {
        let wanted = format!("event: {kind}\n");
        let read = async {
            while !self.text.split_once(&wanted).is_some_and(|(_, event)| event.contains("\n\n")) {
                let mut bytes = [0; 4096];
                let count = self.connection.read(&mut bytes).await.unwrap();
                assert!(count > 0, "the connection ended with: {}", self.text);
                self.text += std::str::from_utf8(&bytes[..count]).unwrap();
            }
        };
        let in_time = tokio::time::timeout(std::time::Duration::from_secs(30), read).await;
        assert!(in_time.is_ok(), "no {kind} in time: {}", self.text);
        &self.text
    }
}

#[tokio::test]
async fn a_terminal_needs_no_more_than_an_app_server() {
    let realm = Realm::start().await;
    let set_up = realm.run("operator", &["setup", "--set", "partitions=4"], "").await;
    assert_eq!(set_up.code, Some(0), "{set_up:?}");
    let _member = realm.serve("member-1", &["partitions=4"]).await;
    let arguments = ["terminal", "--nats", realm.server.url(), "--listen", "127.0.0.1:0", "--instance", "app-1"];
    let arguments: Vec<String> = arguments.into_iter().map(Into::into).chain(realm.secrets.settings("app-1")).collect();
    let terminal = Member::spawn("terminal", &[], &arguments, realm.dir.path());
    let address = eventually("the terminal is open", async || {
        let log = terminal.log();
        let address = log.split("http://").nth(1).and_then(|rest| rest.split('/').next()?.parse().ok());
        address.ok_or(log)
    })
    .await;

    let desk = Desk::of(address, "alice").await;
    let mut window = desk.window().await;
    window.event("hello").await;
    let publish = ["publish", "--source", "billing", "--user", "alice", "--content", "Invoice 981 is due"];
    let published = realm.run("operator", &publish, "").await;
    assert_eq!(published.code, Some(0), "{published:?}");

    let text = window.event("reminder").await;
    assert!(text.contains("Invoice 981 is due"), "{text}");
    let number = text.split("id: ").nth(1).and_then(|rest| rest.lines().next()).expect("a number");
    assert_eq!(desk.ask("POST", "/as/alice/seen", number).await.0, 204);
    eventually("the history says that it was delivered", async || {
        let (status, _, body) = desk.ask("GET", "/as/alice/history", "").await;
        if status == 200 && body.contains(r#""outcome":"delivered""#) { Ok(()) } else { Err(body) }
    })
    .await;
}
