//! The sources of access tokens, and the lifetime of a token.

use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::endpoint::Endpoint;

type TokenError = Box<dyn Error + Send + Sync>;

/// A token that was requested; `None` for a guest.
pub(crate) type TokenRequest =
    Pin<Box<dyn Future<Output = Result<Option<String>, TokenError>> + Send>>;

/// A source of tokens.
pub(crate) enum Tokens {
    Guest,
    Fixed(String),
    Function(Box<dyn Fn(bool) -> TokenRequest + Send + Sync>),
    Login { username: String, password: String },
}

impl Tokens {
    pub(crate) fn from_fn<A, F, E>(request: A) -> Self
    where
        A: Fn(bool) -> F + Send + Sync + 'static,
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<TokenError>,
    {
        Self::Function(Box::new(move |renew| {
            let token = request(renew);
            Box::pin(async move { token.await.map(Some).map_err(Into::into) })
        }))
    }

    /// Makes a login a function that logs in at `endpoint`; other sources do not depend on the server.
    pub(crate) fn at(self, endpoint: &Endpoint) -> Self {
        match self {
            Self::Guest | Self::Fixed(_) | Self::Function(_) => self,
            Self::Login { username, password } => {
                let account = Arc::new(Account {
                    endpoint: endpoint.clone(),
                    login: json!({"username":username,"password":password}).to_string(),
                    last: Mutex::default(),
                });
                Self::from_fn(move |renew| account.clone().token(renew))
            }
        }
    }

    /// Whether the source can provide another token.
    pub(crate) fn can_renew(&self) -> bool {
        matches!(self, Self::Function(_) | Self::Login { .. })
    }

    pub(crate) fn request(&self, renew: bool) -> TokenRequest {
        match self {
            Self::Guest | Self::Login { .. } => Box::pin(async { Ok(None) }),
            Self::Fixed(token) => {
                let token = token.clone();
                Box::pin(async { Ok(Some(token)) })
            }
            Self::Function(request) => request(renew),
        }
    }
}

/// An account, and its latest token.
struct Account {
    endpoint: Endpoint,
    /// The JSON body of the login request.
    login: String,
    last: Mutex<Option<IssuedToken>>,
}

/// A token as the server has issued it.
#[derive(Clone)]
struct IssuedToken {
    token: String,
    /// `None` if its lifetime is not known.
    expires_at: Option<Instant>,
}

impl Account {
    async fn token(self: Arc<Self>, renew: bool) -> Result<String, TokenError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let last = last.filter(|it| it.expires_at.is_none_or(|at| at > Instant::now()));
        let issued = match last {
            Some(last) if !renew => return Ok(last.token),
            Some(last) => match self.post("/auth/refresh", Some(&last.token), "").await? {
                Ok(issued) => issued,
                Err(_) => self.log_in().await?,
            },
            None => self.log_in().await?,
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(issued.clone());
        Ok(issued.token)
    }

    async fn log_in(&self) -> Result<IssuedToken, TokenError> {
        let response = self.post("/auth/login", None, &self.login).await?;
        response.map_err(|(status, message)| match status {
            // The same credentials would be refused again.
            401 | 403 | 422 => {
                crate::events::Error::Closed { code: "no_token".to_owned(), message }.into()
            }
            _ => message.into(),
        })
    }

    /// Returns a token, or the status and the error message of the server.
    async fn post(
        &self,
        path: &str,
        bearer: Option<&str>,
        body: &str,
    ) -> Result<Result<IssuedToken, (u16, String)>, TokenError> {
        let asked_at = Instant::now();
        let (status, response) = self.endpoint.post(path, bearer, body).await?;
        let response: Value = serde_json::from_str(&response).unwrap_or_default();
        let text = |name: &str| response.get(name).and_then(Value::as_str).map(str::to_owned);
        if status == 200 {
            let token = text("access_token").ok_or("the response contains no token")?;
            let stated =
                response.get("expires_in").and_then(Value::as_u64).map(Duration::from_secs);
            let expires_at =
                stated.or(lifetime_of(&token)).and_then(|left| asked_at.checked_add(left));
            return Ok(Ok(IssuedToken { token, expires_at }));
        }
        Ok(Err((status, text("detail").unwrap_or_else(|| format!("{path}: HTTP {status}")))))
    }
}

/// How long a JWT is valid from its issue on; `None` if it does not state both times. The clock of this machine is not
/// used: it may be wrong.
pub(crate) fn lifetime_of(token: &str) -> Option<Duration> {
    let claims: Value = serde_json::from_slice(&base64url(token.split('.').nth(1)?)?).ok()?;
    let time = |name: &str| claims.get(name)?.as_f64();
    Duration::try_from_secs_f64(time("exp")? - time("iat")?).ok()
}

/// RFC 4648 section 5, without padding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut bit_count) = (Vec::new(), 0_u32, 0);
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
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            bytes.push((bits >> bit_count) as u8);
            bits &= (1 << bit_count) - 1;
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

    /// A server with scripted responses; returns the requests.
    async fn serve(responses: Vec<String>) -> (Endpoint, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = tokio::spawn(async move {
            let mut requests = Vec::new();
            for response in responses {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                requests.push(String::from_utf8_lossy(&request[..length]).into_owned());
                stream.write_all(response.as_bytes()).await.unwrap();
            }
            requests
        });
        (Endpoint::parse(&url).unwrap(), requests)
    }

    fn ok(token: &str) -> String {
        format!("HTTP/1.0 200 OK\r\n\r\n{}", json!({"access_token":token}))
    }

    fn refused(status: u16) -> String {
        format!("HTTP/1.0 {status} No\r\n\r\n{}", json!({"detail":"no"}))
    }

    fn alice(endpoint: &Endpoint) -> Tokens {
        Tokens::Login { username: "alice".to_owned(), password: "secret".to_owned() }.at(endpoint)
    }

    #[tokio::test]
    async fn login_happens_once_and_again_only_when_a_refresh_is_refused() {
        let (endpoint, requests) = serve(vec![ok("T1"), ok("T2"), refused(401), ok("T3")]).await;
        let tokens = alice(&endpoint);

        for (renew, expected) in [(false, "T1"), (false, "T1"), (true, "T2"), (true, "T3")] {
            assert_eq!(tokens.request(renew).await.unwrap().as_deref(), Some(expected));
        }

        let requests = requests.await.unwrap();
        let paths: Vec<_> =
            requests.iter().map(|request| request.split(' ').nth(1).unwrap()).collect();
        assert_eq!(paths, ["/auth/login", "/auth/refresh", "/auth/refresh", "/auth/login"]);
        assert!(requests[0].ends_with(r#"{"password":"secret","username":"alice"}"#));
        assert!(requests[1].contains("Authorization: Bearer T1\r\n"));
    }

    #[tokio::test]
    async fn refused_login_is_fatal_and_a_rate_limited_one_is_not() {
        for (status, is_fatal) in [(401, true), (422, true), (429, false), (503, false)] {
            let (endpoint, _) = serve(vec![refused(status)]).await;

            let error = alice(&endpoint).request(false).await.unwrap_err();

            assert_eq!(
                error.downcast_ref::<crate::events::Error>().is_some(),
                is_fatal,
                "{status}"
            );
            assert_eq!(error.to_string(), "no");
        }
    }

    /// Whatever the clocks say: only the time since the receipt counts.
    #[tokio::test]
    async fn a_token_is_used_for_as_long_as_the_server_said() {
        let lasting = |token: &str, seconds: u64| {
            let body = json!({"access_token":token,"expires_in":seconds});
            format!("HTTP/1.0 200 OK\r\n\r\n{body}")
        };
        let (endpoint, _requests) = serve(vec![lasting("T1", 0), lasting("T2", 1000)]).await;
        let tokens = alice(&endpoint);

        for expected in ["T1", "T2", "T2"] {
            assert_eq!(tokens.request(false).await.unwrap().as_deref(), Some(expected));
        }
    }

    /// `printf %s '{"sub":"zoë>?","iat":1000,"exp":2800.5}' | base64 -w0 | tr +/ -_ | tr -d =`.
    #[test]
    fn lifetime_of_a_token_is_read() {
        let claims = "eyJzdWIiOiJ6b8OrPj8iLCJpYXQiOjEwMDAsImV4cCI6MjgwMC41fQ";

        let lifetime = lifetime_of(&format!("x.{claims}.x"));

        assert_eq!(lifetime, Some(Duration::from_millis(1_800_500)));
    }

    #[test]
    fn token_that_does_not_state_both_times_has_no_lifetime() {
        for token in ["", "x", "x.y", "x.!.x", "x.e30.x", "x.eyJleHAiOjF9.x", "x.eyJleHAiOiJhIn0.x"]
        {
            assert_eq!(lifetime_of(token), None, "{token}");
        }
    }
}
