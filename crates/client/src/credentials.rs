//! Credentials that are read from their files each time that a connection is made.
//!
//! async-nats reads a credentials file once, so a connection that the server closes when a JWT
//! expires never comes back, although the file has a new JWT. The options of
//! [`Credentials::connect_options`] read the files at each attempt.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_nats::{Auth, AuthError, ConnectOptions};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use nkeys::KeyPair;
use serde::Deserialize;

/// The credentials of a program for NATS. Unset fields are not sent; a server with auth callout may
/// want a JWT and a password.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// A credentials file: the JWT of a user and the seed of its NKEY.
    pub creds: Option<PathBuf>,
    /// A file with the seed of a user's NKEY; passed over where `creds` is set.
    pub nkey: Option<PathBuf>,
    /// A user name.
    pub user: Option<String>,
    /// That user's password.
    pub password: Option<Secret>,
    /// A token.
    pub token: Option<Secret>,
}

/// A secret, or the file that has it.
#[derive(Clone)]
pub enum Secret {
    /// The secret itself.
    Text(String),
    /// A file with the secret on one line.
    File(PathBuf),
}

/// The time of issue and the expiry of a user's JWT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The time of issue, if the JWT names it.
    pub issued: Option<Timestamp>,
    /// The end. The server closes connections that were made with this JWT then.
    pub expires: Timestamp,
}

/// The reason why a credentials file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}, a file of credentials", path.display())]
pub struct Unusable {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

impl Credentials {
    /// Returns options of a connection that reads these credentials at each attempt to connect.
    ///
    /// ```
    /// # use bellhop_client::credentials::Credentials;
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let credentials = Credentials { creds: Some("billing.creds".into()), ..Default::default() };
    /// let nats = credentials.connect_options().connect("tls://nats.example").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect_options(self) -> ConnectOptions {
        let credentials = Arc::new(self);
        ConnectOptions::with_auth_callback(move |nonce| {
            let credentials = credentials.clone();
            async move { credentials.auth(&nonce).await.map_err(AuthError::new) }
        })
    }

    /// Reads the files, and signs the nonce that a server has sent.
    ///
    /// # Errors
    /// When a file cannot be read, or has no credentials.
    pub async fn auth(&self, nonce: &[u8]) -> Result<Auth, Unusable> {
        let mut auth = Auth::new();
        auth.username = self.user.clone();
        auth.password = read_secret(self.password.as_ref()).await?;
        auth.token = read_secret(self.token.as_ref()).await?;
        let Some(path) = self.creds.as_ref().or(self.nkey.as_ref()) else {
            return Ok(auth);
        };
        let text = read(path).await?;
        let unusable = |problem| unusable(path, problem);
        let seed = find_seed(&text)
            .ok_or_else(|| unusable("it has no NKEY seed of a user, a line that begins with SU"))?;
        let pair = KeyPair::from_seed(seed)
            .map_err(|_| unusable("the line that begins with SU is not a valid NKEY seed"))?;
        if self.creds.is_some() {
            let jwt = find_jwt(&text)
                .ok_or_else(|| unusable("it has no JWT, a line that begins with eyJ"))?;
            auth.jwt = Some(jwt.to_owned());
        } else {
            auth.nkey = Some(pair.public_key());
        }
        let signature = pair
            .sign(nonce)
            .map_err(|_| unusable("its seed cannot sign"))?;
        auth.signature = Some(signature);
        Ok(auth)
    }

    /// Returns when the JWT in the credentials file ends, or `None` where there is no JWT or it has
    /// no end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn validity(&self) -> Result<Option<Validity>, Unusable> {
        let Some(path) = &self.creds else {
            return Ok(None);
        };
        Ok(find_jwt(&read(path).await?).and_then(validity))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(***)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

async fn read_secret(secret: Option<&Secret>) -> Result<Option<String>, Unusable> {
    Ok(match secret {
        None => None,
        Some(Secret::Text(text)) => Some(text.clone()),
        // Editors end a file with a line break.
        Some(Secret::File(path)) => Some(read(path).await?.trim_end_matches(['\r', '\n']).into()),
    })
}

async fn read(path: &Path) -> Result<String, Unusable> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|source| Unusable {
        path: path.to_owned(),
        source,
    })
}

fn unusable(path: &Path, problem: &str) -> Unusable {
    Unusable {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, problem),
    }
}

/// Returns the seed of a user's NKEY in a file that may have the lines around it that tools write.
fn find_seed(text: &str) -> Option<&str> {
    find_line(text, "SU")
}

/// Returns the JWT in a credentials file. A JWT is base64 of JSON, so it begins with that of `{"`.
fn find_jwt(text: &str) -> Option<&str> {
    find_line(text, "eyJ")
}

fn find_line<'a>(text: &'a str, begin: &str) -> Option<&'a str> {
    text.lines()
        .map(str::trim)
        .find(|line| line.starts_with(begin))
}

/// Returns when a JWT was issued and ends, if it ends.
fn validity(jwt: &str) -> Option<Validity> {
    #[derive(Deserialize)]
    struct Claims {
        iat: Option<i64>,
        exp: Option<i64>,
    }
    let claims = jwt.split('.').nth(1)?.trim_end_matches('=');
    let Claims { iat, exp } = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let time = |seconds| Timestamp::from_second(seconds).ok();
    // Tools write 0 for a JWT without an end.
    let expires = exp.filter(|end| *end > 0).and_then(time)?;
    Some(Validity {
        issued: iat.and_then(time),
        expires,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let header = part(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
        format!("{header}.{}.{}", part(claims), part("signature"))
    }

    fn creds_file(jwt: &str, seed: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    #[tokio::test]
    async fn each_attempt_reads_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("user.creds");
        let credentials = Credentials {
            creds: Some(path.clone()),
            ..Credentials::default()
        };
        for claims in [r#"{"iat":1,"exp":60}"#, r#"{"iat":50,"exp":120}"#] {
            let (pair, jwt) = (KeyPair::new_user(), jwt(claims));
            std::fs::write(&path, creds_file(&jwt, &pair.seed().unwrap())).unwrap();
            let auth = credentials.auth(b"nonce").await.unwrap();
            assert_eq!(auth.jwt, Some(jwt));
            pair.verify(b"nonce", &auth.signature.unwrap()).unwrap();
        }
        let time = |seconds| Timestamp::from_second(seconds).unwrap();
        let expected = Validity {
            issued: Some(time(50)),
            expires: time(120),
        };
        assert_eq!(credentials.validity().await.unwrap(), Some(expected));
    }

    #[test]
    fn jwt_without_an_end_has_no_validity() {
        for claims in [r#"{"iat":1}"#, r#"{"iat":1,"exp":0}"#, "[]", ""] {
            assert_eq!(validity(&jwt(claims)), None, "{claims}");
        }
        assert_eq!([validity(""), validity("eyJ.%.x")], [None; 2]);
    }

    #[tokio::test]
    async fn secret_is_the_line_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "two words\r\n").unwrap();
        let credentials = Credentials {
            user: Some("app".into()),
            password: Some(Secret::File(path)),
            token: Some(Secret::Text("hidden".into())),
            ..Credentials::default()
        };
        let auth = credentials.auth(b"").await.unwrap();
        assert_eq!(auth.username.as_deref(), Some("app"));
        assert_eq!(auth.password.as_deref(), Some("two words"));
        assert_eq!(auth.token.as_deref(), Some("hidden"));
        assert!(!format!("{credentials:?}").contains("hidden"));
    }

    #[tokio::test]
    async fn seed_is_found_between_other_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("user.nk");
        let pair = KeyPair::new_user();
        let credentials = Credentials {
            nkey: Some(path.clone()),
            ..Credentials::default()
        };
        let lines = format!(
            "-----BEGIN-----\n {} \n-----END-----\n",
            pair.seed().unwrap()
        );
        std::fs::write(&path, lines).unwrap();
        let auth = credentials.auth(b"").await.unwrap();
        assert_eq!(auth.nkey, Some(pair.public_key()));
        std::fs::write(&path, pair.public_key()).unwrap();
        let error = credentials.auth(b"").await.err().unwrap();
        assert!(error.source.to_string().contains("SU"), "{error:?}");
    }
}
