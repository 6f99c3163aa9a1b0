//! Signed-in users: a cookie names its user's session and its end, and carries a MAC of both (HMAC-SHA-256).
//!
//! Servers that share a key accept each other's cookies. A server remembers the sessions that were signed out before their
//! end, until then or until it stops; others that share its key do not know of them. **Anybody may sign in as anybody:** this
//! is where an application has its own authentication.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;

use super::guard::Visitor;
use crate::token::UserId;

/// The age at which a session ends.
const LASTS: SignedDuration = SignedDuration::from_hours(12);
/// Sessions remembered as signed out, 16 bytes each; beyond it those that end first are forgotten.
const MAX_SIGNED_OUT: usize = 100_000;
/// Bytes of a new key: as many as the hash has.
const KEY_BYTES: usize = 32;
/// The shortest key that a file may have, in bytes.
const LEAST_KEY_BYTES: usize = 16;
const COOKIE: &str = "bellhop_session";

/// The key that cookies are signed with.
#[derive(Clone)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    /// Returns a key from the operating system's randomness.
    ///
    /// # Errors
    /// When there is none.
    pub fn random() -> io::Result<Self> {
        let mut key = vec![0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        Ok(Self(key))
    }

    /// Returns the key of a file of 16 bytes or more, which is made if it is not there.
    ///
    /// # Errors
    /// When the file can neither be read nor made, or is shorter.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                let key = Self::random()?;
                file.write_all(&key.0)?;
                Ok(key)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::read(path)? {
                key if key.len() >= LEAST_KEY_BYTES => Ok(Self(key)),
                _ => {
                    Err(io::Error::other(format!("it has less than {LEAST_KEY_BYTES} bytes; delete it for a new one")))
                }
            },
            Err(error) => Err(error),
        }
    }

    fn mac(&self, user: &UserId, session: Session) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key may have any length");
        mac.update(&session.until.to_be_bytes());
        mac.update(&session.id.to_be_bytes());
        mac.update(user.as_str().as_bytes());
        mac
    }
}

/// A session by its end, in seconds of Unix time, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Session {
    until: i64,
    id: u64,
}

/// All sessions.
pub(super) struct Sessions {
    key: SigningKey,
    signed_out: Mutex<BTreeSet<Session>>,
}

impl Sessions {
    pub(super) fn new(key: SigningKey) -> Self {
        Self { key, signed_out: Mutex::default() }
    }

    /// Returns the value of `Set-Cookie` that signs a user in, for the pages of that user alone: so one browser can have
    /// windows of several users.
    pub(super) fn sign_in(&self, user: &UserId, visitor: Visitor, now: Timestamp) -> String {
        let session = Session { until: (now + LASTS).as_second(), id: fastrand::u64(..) };
        let mac = URL_SAFE_NO_PAD.encode(self.key.mac(user, session).finalize().into_bytes());
        set_cookie(user, visitor, &format!("{}.{:x}.{mac}", session.until, session.id), LASTS.as_secs())
    }

    /// Ends a user's sessions in the header `Cookie`, and returns the value of `Set-Cookie` that deletes the cookie.
    pub(super) fn sign_out(&self, user: &UserId, cookies: &str, visitor: Visitor, now: Timestamp) -> String {
        let ending: Vec<_> = self.good(user, cookies, now).collect();
        let mut signed_out = self.signed_out();
        *signed_out = signed_out.split_off(&Session { until: now.as_second() + 1, id: 0 });
        for session in ending {
            if signed_out.len() == MAX_SIGNED_OUT {
                signed_out.pop_first();
            }
            signed_out.insert(session);
        }
        set_cookie(user, visitor, "", 0)
    }

    /// Returns whether the value of a header `Cookie` has a session of this user.
    pub(super) fn accepts(&self, user: &UserId, cookies: &str, now: Timestamp) -> bool {
        self.good(user, cookies, now).any(|session| !self.signed_out().contains(&session))
    }

    /// Returns the sessions in the cookies that this server signed for the user and that are not too old.
    fn good(&self, user: &UserId, cookies: &str, now: Timestamp) -> impl Iterator<Item = Session> {
        let values = cookies.split(';').filter_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='));
        values.filter_map(move |value| {
            let mut parts = value.splitn(3, '.');
            let until = parts.next()?.parse().ok()?;
            let id = u64::from_str_radix(parts.next()?, 16).ok()?;
            let mac = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
            let session = Session { until, id };
            // In constant time.
            let is_signed = self.key.mac(user, session).verify_slice(&mac).is_ok();
            (is_signed && now.as_second() < until).then_some(session)
        })
    }

    fn signed_out(&self) -> MutexGuard<'_, BTreeSet<Session>> {
        self.signed_out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cookie that no script sees, that no other site can have a browser send, and that stays on TLS where it came by it.
fn set_cookie(user: &UserId, visitor: Visitor, value: &str, seconds: i64) -> String {
    let path = super::web::home(user);
    let secure = if visitor.is_secure { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const VISITOR: Visitor = Visitor { address: std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), is_secure: false };

    fn sessions() -> Sessions {
        Sessions::new(SigningKey::random().unwrap())
    }

    fn cookie(set_cookie: &str) -> &str {
        set_cookie.split(';').next().unwrap()
    }

    #[test]
    fn a_cookie_is_good_for_its_user_and_for_some_time() {
        let (sessions, now) = (sessions(), Timestamp::now());
        let [alice, bob] = ["alice", "bob"].map(|name| name.parse().unwrap());
        let set = sessions.sign_in(&alice, VISITOR, now);
        assert!(set.ends_with("; Path=/as/alice/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{set}");
        let cookies = format!("other=1; {}; bellhop_session=", cookie(&set));
        assert!(sessions.accepts(&alice, &cookies, now));
        assert!(sessions.accepts(&alice, &cookies, now + LASTS - SignedDuration::from_secs(1)));
        assert!(!sessions.accepts(&alice, &cookies, now + LASTS));
        assert!(!sessions.accepts(&bob, &cookies, now));
        assert!(!self::sessions().accepts(&alice, &cookies, now));
    }

    #[test]
    fn cookies_over_tls_stay_on_tls() {
        let visitor = Visitor { is_secure: true, ..VISITOR };
        let set = sessions().sign_in(&"alice".parse().unwrap(), visitor, Timestamp::now());
        assert!(set.ends_with("; HttpOnly; SameSite=Strict; Secure"), "{set}");
    }

    #[test]
    fn signed_out_sessions_end_and_others_stay() {
        let (sessions, now) = (sessions(), Timestamp::now());
        let alice = "alice".parse().unwrap();
        let [here, there] = [(), ()].map(|()| sessions.sign_in(&alice, VISITOR, now));
        let gone = sessions.sign_out(&alice, cookie(&here), VISITOR, now);
        assert!(gone.starts_with("bellhop_session=; ") && gone.contains("Max-Age=0"), "{gone}");
        assert!(!sessions.accepts(&alice, cookie(&here), now));
        assert!(sessions.accepts(&alice, cookie(&there), now));
        sessions.sign_out(&alice, cookie(&there), VISITOR, now + LASTS);
        assert_eq!(sessions.signed_out().len(), 0, "what is over is not remembered");
    }

    #[test]
    fn nothing_else_is_a_good_cookie() {
        let (sessions, now) = (sessions(), Timestamp::now());
        let alice = "alice".parse().unwrap();
        let good = sessions.sign_in(&alice, VISITOR, now);
        let parts: Vec<_> = cookie(&good).trim_start_matches("bellhop_session=").split('.').collect();
        let [until, id, mac] = parts.try_into().unwrap();
        let later = until.parse::<i64>().unwrap() + 1;
        for wrong in [
            "",
            "x",
            "..",
            &format!("{later}.{id}.{mac}"),
            &format!("{until}.1{id}.{mac}"),
            &format!("{until}.{id}."),
            &format!("{until}.{id}.{}", &mac[..20]),
            &format!("{until}.{id}.{}", mac.to_lowercase()),
        ] {
            assert!(!sessions.accepts(&alice, &format!("bellhop_session={wrong}"), now), "{wrong}");
        }
        assert!(!sessions.accepts(&alice, cookie(&sessions.sign_out(&alice, "", VISITOR, now)), now));
    }

    #[test]
    fn servers_may_share_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let [first, second] = [(), ()].map(|()| Sessions::new(SigningKey::of_file(&path).unwrap()));
        let (alice, now) = ("alice".parse().unwrap(), Timestamp::now());
        assert!(second.accepts(&alice, cookie(&first.sign_in(&alice, VISITOR, now)), now));
        fs::write(&path, "short").unwrap();
        assert!(SigningKey::of_file(&path).is_err());
    }
}
