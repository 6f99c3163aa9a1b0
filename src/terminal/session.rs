//! Who is signed in: a cookie that says as whom and until when, with a keyed hash of that.
//!
//! Nothing needs to be remembered, and servers that share a key accept each other's cookies. **Anybody may sign in as
//! anybody:** this is where an application has its own authentication.

use std::fs::{File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::token::UserId;

/// How long a cookie is good.
const LASTS: SignedDuration = SignedDuration::from_hours(12);
const COOKIE: &str = "bellhop_session";

/// What cookies are signed with.
#[derive(Clone)]
pub struct SigningKey([u8; 16]);

impl SigningKey {
    /// One that nobody knows.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn random() -> io::Result<Self> {
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        Ok(Self(key))
    }

    /// The one of a file of 16 bytes, which is made if it is not there.
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
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut key = [0; 16];
                File::open(path)?.read_exact(&mut key)?;
                Ok(Self(key))
            }
            Err(error) => Err(error),
        }
    }

    /// The value of `Set-Cookie` that signs a user in, for the pages of that user alone: so one browser can have windows of
    /// several users.
    pub(super) fn sign_in(&self, user: &UserId, now: Timestamp) -> String {
        let until = (now + LASTS).as_second();
        set_cookie(user, &format!("{until}.{:032x}", self.sign(user, until)), LASTS.as_secs())
    }

    /// The value of `Set-Cookie` that signs a user out.
    pub(super) fn sign_out(user: &UserId) -> String {
        set_cookie(user, "", 0)
    }

    /// Whether the value of a header `Cookie` says that this user is signed in.
    pub(super) fn accepts(&self, user: &UserId, cookies: &str, now: Timestamp) -> bool {
        let of_session = |cookie: &str| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('=').map(ToOwned::to_owned);
        cookies.split(';').filter_map(of_session).any(|value| {
            let Some((until, signature)) = value.split_once('.') else { return false };
            let (Ok(until), Ok(signature)) = (until.parse(), u128::from_str_radix(signature, 16)) else { return false };
            self.sign(user, until) == signature && now.as_second() < until
        })
    }

    fn sign(&self, user: &UserId, until: i64) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&until.to_be_bytes());
        hasher.write(user.as_str().as_bytes());
        hasher.finish128().as_u128()
    }
}

/// A cookie that no script sees, and that no other site can have a browser send.
fn set_cookie(user: &UserId, value: &str, seconds: i64) -> String {
    let path = super::web::home(user);
    format!("{COOKIE}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(set_cookie: &str) -> &str {
        set_cookie.split(';').next().unwrap()
    }

    #[test]
    fn a_cookie_is_good_for_its_user_and_for_some_time() {
        let (key, now) = (SigningKey::random().unwrap(), Timestamp::now());
        let [alice, bob] = ["alice", "bob"].map(|name| name.parse().unwrap());
        let set = key.sign_in(&alice, now);
        assert!(set.ends_with("; Path=/as/alice/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{set}");
        let cookies = format!("other=1; {}; bellhop_session=", cookie(&set));
        assert!(key.accepts(&alice, &cookies, now));
        assert!(key.accepts(&alice, &cookies, now + LASTS - SignedDuration::from_secs(1)));
        assert!(!key.accepts(&alice, &cookies, now + LASTS));
        assert!(!key.accepts(&bob, &cookies, now));
        assert!(!SigningKey::random().unwrap().accepts(&alice, &cookies, now));
    }

    #[test]
    fn nothing_else_is_a_good_cookie() {
        let (key, now) = (SigningKey::random().unwrap(), Timestamp::now());
        let alice = "alice".parse().unwrap();
        let good = key.sign_in(&alice, now);
        let (until, signature) = cookie(&good).trim_start_matches("bellhop_session=").split_once('.').unwrap();
        let later = until.parse::<i64>().unwrap() + 1;
        for wrong in ["", "x", ".", &format!("{later}.{signature}"), &format!("{until}."), &format!("{until}.0")] {
            assert!(!key.accepts(&alice, &format!("bellhop_session={wrong}"), now), "{wrong}");
        }
        assert!(!key.accepts(&alice, cookie(&SigningKey::sign_out(&alice)), now));
    }

    #[test]
    fn servers_may_share_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let (first, second) = (SigningKey::of_file(&path).unwrap(), SigningKey::of_file(&path).unwrap());
        let (alice, now) = ("alice".parse().unwrap(), Timestamp::now());
        assert!(second.accepts(&alice, cookie(&first.sign_in(&alice, now)), now));
        std::fs::write(&path, "short").unwrap();
        assert!(SigningKey::of_file(&path).is_err());
    }
}
