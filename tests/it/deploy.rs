//! The files of `deploy/`: systemd finds its unit in order and well confined, members notify it
//! when they are ready, and every named setting exists.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::harness::{Member, SOON, World, bellhop};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
/// Maximum exposure of the unit, in tenths, by systemd's own measure: 100 is everything, and below
/// 20 it says OK.
const MOST_EXPOSED: &str = "15";

/// Runs `systemd-analyze`.
fn analyze(arguments: &[&str]) -> Output {
    let output = Command::new("systemd-analyze").args(arguments).output();
    output.expect("systemd-analyze runs: apt-get install systemd")
}

/// The unit's first instance, with this build's program and with or without credentials.
fn instance(dir: &Path, has_credentials: bool) -> PathBuf {
    let text = |name: &str| std::fs::read_to_string(format!("{DEPLOY}/systemd/{name}")).unwrap();
    let unit =
        text("bellhop@.service").replace("/usr/local/bin/bellhop", env!("CARGO_BIN_EXE_bellhop"));
    let path = dir.join("bellhop@1.service");
    std::fs::write(&path, unit).unwrap();
    if has_credentials {
        std::fs::create_dir(dir.join("bellhop@1.service.d")).unwrap();
        let credentials = text("bellhop@.service.d/nats.conf");
        std::fs::write(dir.join("bellhop@1.service.d/nats.conf"), credentials).unwrap();
    }
    path
}

#[test]
#[cfg_attr(
    not(has_systemd),
    ignore = "no systemd-analyze here: apt-get install systemd"
)]
fn systemd_verifies_the_unit_and_its_hardening() {
    for has_credentials in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let unit = instance(dir.path(), has_credentials);
        let unit = unit.to_str().unwrap();
        let verified = analyze(&["verify", unit]);
        assert!(
            verified.status.success() && verified.stderr.is_empty(),
            "{verified:?}"
        );
        let security = [
            "security",
            "--offline=true",
            "--threshold",
            MOST_EXPOSED,
            unit,
        ];
        let measured = analyze(&security);
        assert!(
            measured.status.success(),
            "{}",
            String::from_utf8_lossy(&measured.stdout)
        );
    }
}

/// `systemctl restart` waits for the first word, and so does an operator who restarts members one
/// after the other.
#[tokio::test]
async fn systemd_is_notified_of_start_and_stop() {
    let world = World::without_members("", &[]).await;
    let path = world.dir().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let word = || {
        let mut word = [0; 64];
        let length = socket.recv(&mut word).expect("systemd is notified in time");
        String::from_utf8_lossy(&word[..length]).trim().to_owned()
    };
    let behind = [
        "env".to_owned(),
        format!("NOTIFY_SOCKET={}", path.display()),
    ];
    let arguments = ["serve", "--nats", &world.url, "--http", "127.0.0.1:0"].map(ToOwned::to_owned);
    let member = Member::spawn("notifying", &behind, &arguments, world.dir());
    assert_eq!(word(), "READY=1");
    assert_eq!(member.is_ready().await, Ok(()));
    member.signal("TERM");
    assert_eq!(word(), "STOPPING=1");
    assert_eq!(world.ended(&member).await.code(), Some(0));
    socket
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err(), "each is notified once");
}

/// Every file below this one.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    std::fs::read_dir(path)
        .unwrap()
        .flat_map(|entry| files(&entry.unwrap().path()))
        .collect()
}

#[tokio::test]
async fn settings_named_in_deploy_exist() {
    let (mut variables, mut configurations) = (Vec::new(), 0);
    for file in files(Path::new(DEPLOY)) {
        let text = std::fs::read_to_string(&file).unwrap();
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        variables.extend(
            words
                .filter(|word| word.starts_with("BELLHOP_"))
                .map(ToOwned::to_owned),
        );
        if file
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            bellhop(&["check", "--config", file.to_str().unwrap()], &[], b"")
                .await
                .succeeded();
            configurations += 1;
        }
    }
    assert!(
        variables.len() > 4 && configurations > 0,
        "{variables:?}, {configurations} files"
    );
    // Whatever they say: a name that is not a setting is warned of, and a value that is none is
    // refused.
    for variable in variables {
        let ended = bellhop(&["check"], &[(&variable, "")], b"").await;
        assert!(
            !ended.stderr.contains("no setting"),
            "{variable}: {ended:?}"
        );
    }
}
