//! The web terminal over plain HTTP, with no more rights in NATS than an app server has.
//! `tests/terminal` looks at it as people do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Member, SOON, World, exchange};
use crate::secured::{Realm, eventually};

/// A terminal and a user's cookie for it.
struct Desk {
    address: SocketAddr,
    cookie: String,
}

impl Desk {
    async fn of(address: SocketAddr, user: &str) -> Self {
        let mut desk = Self {
            address,
            cookie: String::new(),
        };
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection
            .write_all(
                desk.request("POST", "/sign-in", &format!("user={user}"))
                    .as_bytes(),
            )
            .await
            .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let cookie = answer
            .split("set-cookie: ")
            .nth(1)
            .and_then(|rest| rest.split(';').next());
        desk.cookie = cookie
            .unwrap_or_else(|| panic!("no cookie in {answer}"))
            .to_owned();
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
        let answer = exchange(self.address, &self.request(method, path, body))
            .await
            .unwrap();
        (answer.status, answer.head, answer.body)
    }

    async fn window(&self) -> Window {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection
            .write_all(self.request("GET", "/as/alice/events", "").as_bytes())
            .await
            .unwrap();
        Window {
            connection,
            text: String::new(),
        }
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
            while !self
                .text
                .split_once(&wanted)
                .is_some_and(|(_, event)| event.contains("\n\n"))
            {
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
async fn terminal_needs_only_app_server_permissions() {
    let realm = Realm::start().await;
    let set_up = realm
        .run("operator", &["setup", "--set", "partitions=4"], "")
        .await;
    assert_eq!(set_up.code, Some(0), "{set_up:?}");
    let _member = realm.serve("member-1", &["partitions=4"]).await;
    let arguments = [
        "terminal",
        "--nats",
        realm.server.url(),
        "--listen",
        "127.0.0.1:0",
        "--instance",
        "app-1",
    ];
    let arguments: Vec<String> = arguments
        .into_iter()
        .map(Into::into)
        .chain(realm.secrets.settings("app-1"))
        .collect();
    let terminal = Member::spawn("terminal", &[], &arguments, realm.dir.path());
    let address = eventually("the terminal is open", async || {
        let log = terminal.log();
        let address = log
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next()?.parse().ok());
        address.ok_or(log)
    })
    .await;

    let desk = Desk::of(address, "alice").await;
    let mut window = desk.window().await;
    window.event("hello").await;
    let publish = [
        "publish",
        "--source",
        "billing",
        "--user",
        "alice",
        "--content",
        "Invoice 981 is due",
    ];
    let published = realm.run("operator", &publish, "").await;
    assert_eq!(published.code, Some(0), "{published:?}");

    let text = window.event("reminder").await;
    assert!(text.contains("Invoice 981 is due"), "{text}");
    let number = text
        .split("id: ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .expect("a number");
    assert_eq!(desk.ask("POST", "/as/alice/seen", number).await.0, 204);
    eventually("the history says that it was delivered", async || {
        let (status, _, body) = desk.ask("GET", "/as/alice/history", "").await;
        if status == 200 && body.contains(r#""outcome":"delivered""#) {
            Ok(())
        } else {
            Err(body)
        }
    })
    .await;
}

/// A terminal on a plain server, without `bellhop serve`.
async fn alone(world: &World, more: &[&str]) -> (Arc<Member>, SocketAddr) {
    let arguments = ["terminal", "--nats", &world.url, "--listen", "127.0.0.1:0"];
    let arguments: Vec<String> = arguments
        .iter()
        .chain(more)
        .map(|text| (*text).to_owned())
        .collect();
    let terminal = world.launch_with(more.get(1).unwrap_or(&"web-1"), &arguments);
    let is_open = async || {
        let log = terminal.log();
        let address = log
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next()?.parse().ok());
        address.ok_or(log)
    };
    let address = world.eventually("the terminal is open", is_open).await;
    (terminal, address)
}

#[tokio::test]
async fn a_signed_out_cookie_is_refused() {
    let world = World::start(&[]).await;
    let (_terminal, address) = alone(&world, &[]).await;
    let (here, there) = (
        Desk::of(address, "alice").await,
        Desk::of(address, "alice").await,
    );
    assert_eq!(here.ask("GET", "/as/alice/", "").await.0, 200);
    let (status, head, _) = here.ask("POST", "/as/alice/sign-out", "").await;
    assert!(status == 303 && head.contains("max-age=0"), "{head}");
    assert_eq!(
        here.ask("GET", "/as/alice/history", "").await.0,
        401,
        "the same cookie again"
    );
    assert_eq!(
        there.ask("GET", "/as/alice/", "").await.0,
        200,
        "another session of the user"
    );
}

#[tokio::test]
async fn sign_out_closes_windows_of_that_session_alone() {
    let world = World::start(&[]).await;
    let (_terminal, address) = alone(&world, &[]).await;
    let (here, there) = (
        Desk::of(address, "alice").await,
        Desk::of(address, "alice").await,
    );
    let (mut closed, mut open) = (here.window().await, there.window().await);
    closed.event("hello").await;
    open.event("hello").await;
    assert_eq!(here.ask("POST", "/as/alice/sign-out", "").await.0, 303);
    let read = closed.connection.read_to_string(&mut closed.text);
    tokio::time::timeout(SOON, read)
        .await
        .expect("the window is still open")
        .unwrap();
    let mut more = [0; 64];
    let read = open.connection.read(&mut more);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), read)
            .await
            .is_err(),
        "another session's window"
    );
}

#[tokio::test]
async fn only_the_proxy_makes_cookies_secure() {
    let world = World::start(&[]).await;
    let sign_in = async |address: SocketAddr| {
        let request = format!(
            "POST /sign-in HTTP/1.1\r\nHost: {address}\r\nOrigin: https://{address}\r\nX-Forwarded-Proto: https\r\n\
             Content-Length: 10\r\nConnection: close\r\n\r\nuser=alice"
        );
        exchange(address, &request).await.unwrap().head
    };
    let (_direct, direct) = alone(&world, &[]).await;
    let head = sign_in(direct).await;
    assert!(
        head.contains("samesite=strict") && !head.contains("secure"),
        "{head}"
    );
    let (_behind, behind) = alone(&world, &["--instance", "web-2", "--proxy", "127.0.0.1"]).await;
    let head = sign_in(behind).await;
    assert!(head.contains("samesite=strict; secure"), "{head}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_refused() {
    let world = World::start(&[]).await;
    let (_terminal, address) = alone(&world, &[]).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /sign-in HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\nContent-Length: 9\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let answered = tokio::time::timeout(SOON, connection.read_exact(&mut answer)).await;
    answered.expect("it waits for the body").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn one_address_gets_a_share_of_the_users() {
    let world = World::start(&[]).await;
    let (_terminal, address) = alone(&world, &[]).await;
    let mut windows = Vec::new();
    for number in 0..=500 {
        let user = format!("u{number}");
        let desk = Desk::of(address, &user).await;
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection
            .write_all(
                desk.request("GET", &format!("/as/{user}/events"), "")
                    .as_bytes(),
            )
            .await
            .unwrap();
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await.unwrap();
        assert_eq!(
            &answer,
            if number < 500 {
                b"HTTP/1.1 200"
            } else {
                b"HTTP/1.1 503"
            },
            "{user}"
        );
        windows.push(connection);
    }
}
