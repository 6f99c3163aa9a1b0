//! The demo itself, with a real nats-server.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;

use tokio::time::timeout;

use super::*;

/// What was shown.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Returns the port of the demo's nats-server.
    fn port(&self) -> u16 {
        let text = self.text();
        let (_, rest) = text.split_once("nats://127.0.0.1:").expect(&text);
        rest.split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }
}

fn options(ms: u64) -> Options {
    Options {
        duration: Some(Duration::from_millis(ms)),
        rate: 300,
        look: None,
    }
}

#[tokio::test]
async fn a_short_run_has_a_good_end() {
    let paper = Paper::default();
    let screen = Screen::plain(Box::new(paper.clone()));
    let run = run_on(screen, options(3_000), CancellationToken::new());
    let result = timeout(Duration::from_secs(60), run)
        .await
        .expect("in time");
    let text = paper.text();
    assert!(result.is_ok(), "{result:?}\n{text}");
    for expected in [
        "alice is back",
        "alice has them all, in order",
        "What became of every reminder",
        "Nothing lost",
    ] {
        assert!(text.contains(expected), "no `{expected}` in:\n{text}");
    }
    assert!(TcpStream::connect(("127.0.0.1", paper.port())).is_err());
}

#[tokio::test]
async fn stopped_at_once_it_leaves_nothing_running() {
    let paper = Paper::default();
    let screen = Screen::plain(Box::new(paper.clone()));
    let run = run_on(screen, options(60_000), CancellationToken::new());
    let seen = async {
        while !paper.text().contains("published") {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        result = run => panic!("{result:?}"),
        seen = timeout(Duration::from_secs(30), seen) => seen.expect("in time"),
    }
    assert!(TcpStream::connect(("127.0.0.1", paper.port())).is_err());
}
