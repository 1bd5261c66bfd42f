//! Where tokens come from, and when they end.

use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::dial::Server;

type Fault = Box<dyn Error + Send + Sync>;

/// A token on its way; none is a guest's.
pub(crate) type Asked = Pin<Box<dyn Future<Output = Result<Option<String>, Fault>> + Send>>;

/// Where tokens come from.
pub(crate) enum Tokens {
    Guest,
    One(String),
    Asked(Box<dyn Fn(bool) -> Asked + Send + Sync>),
    Login { username: String, password: String },
}

impl Tokens {
    pub(crate) fn asked<A, F, E>(ask: A) -> Self
    where
        A: Fn(bool) -> F + Send + Sync + 'static,
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Fault>,
    {
        Self::Asked(Box::new(move |renew| {
            let asked = ask(renew);
            Box::pin(async move { asked.await.map(Some).map_err(Into::into) })
        }))
    }

    /// Whoever is to log in does so at `server`.
    pub(crate) fn at(self, server: &Server) -> Self {
        match self {
            Self::Guest | Self::One(_) | Self::Asked(_) => self,
            Self::Login { username, password } => {
                let account = Arc::new(Account {
                    server: server.clone(),
                    login: json!({"username":username,"password":password}).to_string(),
                    last: Mutex::default(),
                });
                Self::asked(move |renew| account.clone().token(renew))
            }
        }
    }

    /// Whether there may be another one after this.
    pub(crate) fn can_renew(&self) -> bool {
        matches!(self, Self::Asked(_) | Self::Login { .. })
    }

    pub(crate) fn ask(&self, renew: bool) -> Asked {
        match self {
            Self::Guest | Self::Login { .. } => Box::pin(async { Ok(None) }),
            Self::One(token) => {
                let token = token.clone();
                Box::pin(async { Ok(Some(token)) })
            }
            Self::Asked(ask) => ask(renew),
        }
    }
}

/// Somebody who logs in, and the last token that came of it.
struct Account {
    server: Server,
    login: String,
    last: Mutex<Option<String>>,
}

impl Account {
    async fn token(self: Arc<Self>, renew: bool) -> Result<String, Fault> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let last = last.filter(|token| life_left(token).is_none_or(|left| !left.is_zero()));
        let token = match last {
            Some(token) if !renew => return Ok(token),
            Some(token) => match self.post("/auth/refresh", Some(&token), "").await? {
                Ok(token) => token,
                Err(_) => self.logs_in().await?,
            },
            None => self.logs_in().await?,
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(token)
    }

    async fn logs_in(&self) -> Result<String, Fault> {
        let answer = self.post("/auth/login", None, &self.login).await?;
        answer.map_err(|(status, message)| match status {
            // The same words will have no other answer.
            401 | 403 | 422 => crate::Error::Closed { code: "no_token".to_owned(), message }.into(),
            _ => message.into(),
        })
    }

    /// A token, or the status and what the server says in its place.
    async fn post(
        &self,
        path: &str,
        bearer: Option<&str>,
        body: &str,
    ) -> Result<Result<String, (u16, String)>, Fault> {
        let (status, answer) = self.server.post(path, bearer, body).await?;
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        if status == 200 {
            return Ok(Ok(text("access_token").ok_or("an answer without a token")?));
        }
        Ok(Err((status, text("detail").unwrap_or_else(|| format!("{path}: HTTP {status}")))))
    }
}

/// How long a JWT is good from now on; nothing where it does not say.
#[expect(clippy::disallowed_methods, reason = "this is the one place that asks what day it is")]
pub(crate) fn life_left(token: &str) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(expiry_of(token)?.saturating_sub(now))
}

/// When a JWT runs out, since the Unix epoch.
fn expiry_of(token: &str) -> Option<Duration> {
    let claims: Value = serde_json::from_slice(&base64url(token.split('.').nth(1)?)?).ok()?;
    Duration::try_from_secs_f64(claims.get("exp")?.as_f64()?).ok()
}

/// RFC 4648 section 5, without padding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for char in text.bytes() {
        let value = match char {
            b'A'..=b'Z' => char - b'A',
            b'a'..=b'z' => char - b'a' + 26,
            b'0'..=b'9' => char - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server with these answers, one after the other; what it was asked.
    async fn server(answers: Vec<String>) -> (Server, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (Server::parse(&url).unwrap(), asked)
    }

    fn ok(token: &str) -> String {
        format!("HTTP/1.0 200 OK\r\n\r\n{}", json!({"access_token":token}))
    }

    fn refused(status: u16) -> String {
        format!("HTTP/1.0 {status} No\r\n\r\n{}", json!({"detail":"no"}))
    }

    fn alice(server: &Server) -> Tokens {
        Tokens::Login { username: "alice".to_owned(), password: "secret".to_owned() }.at(server)
    }

    #[tokio::test]
    async fn a_login_is_made_once_and_refreshed_as_long_as_that_is_possible() {
        let (server, asked) = server(vec![ok("T1"), ok("T2"), refused(401), ok("T3")]).await;
        let tokens = alice(&server);

        for (renew, expected) in [(false, "T1"), (false, "T1"), (true, "T2"), (true, "T3")] {
            assert_eq!(tokens.ask(renew).await.unwrap().as_deref(), Some(expected));
        }

        let asked = asked.await.unwrap();
        let paths: Vec<_> = asked.iter().map(|ask| ask.split(' ').nth(1).unwrap()).collect();
        assert_eq!(paths, ["/auth/login", "/auth/refresh", "/auth/refresh", "/auth/login"]);
        assert!(asked[0].ends_with(r#"{"password":"secret","username":"alice"}"#));
        assert!(asked[1].contains("Authorization: Bearer T1\r\n"));
    }

    #[tokio::test]
    async fn a_login_that_is_refused_is_the_end_and_one_that_was_too_much_is_not() {
        for (status, is_the_end) in [(401, true), (422, true), (429, false), (503, false)] {
            let (server, _) = server(vec![refused(status)]).await;

            let error = alice(&server).ask(false).await.unwrap_err();

            assert_eq!(error.downcast_ref::<crate::Error>().is_some(), is_the_end, "{status}");
            assert_eq!(error.to_string(), "no");
        }
    }

    /// `printf %s '{"sub":"zoë>?","exp":1704067200.5}' | base64 -w0 | tr +/ -_ | tr -d =`.
    #[test]
    fn a_token_says_when_it_runs_out() {
        let claims = "eyJzdWIiOiJ6b8OrPj8iLCJleHAiOjE3MDQwNjcyMDAuNX0";

        let expiry = expiry_of(&format!("x.{claims}.x"));

        assert_eq!(expiry, Some(Duration::from_millis(1_704_067_200_500)));
        assert!(life_left(&format!("x.{claims}.x")).unwrap().is_zero(), "that was long ago");
    }

    #[test]
    fn what_is_no_token_with_an_end_has_none() {
        for token in
            ["", "x", "x.y", "x.!.x", "x.e30.x", "x.eyJleHAiOi0xfQ.x", "x.eyJleHAiOiJhIn0.x"]
        {
            assert_eq!(expiry_of(token), None, "{token}");
        }
    }
}
