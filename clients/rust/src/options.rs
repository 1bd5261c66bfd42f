//! The options of a session.

use std::{error::Error, fmt};

use crate::tokens::Tokens;

/// The server, the room and the credentials of a session.
pub struct Options {
    pub(crate) url: String,
    pub(crate) room: String,
    pub(crate) client_id: Option<String>,
    pub(crate) tokens: Tokens,
}

impl Options {
    /// A guest in `room` on the server at `url`: `https://example.com`, with the path prefix of a reverse proxy if there is one.
    pub fn new(url: impl Into<String>, room: impl Into<String>) -> Self {
        Self { url: url.into(), room: room.into(), client_id: None, tokens: Tokens::Guest }
    }

    /// The client id, unique in the room; the server assigns one if it is left out.
    #[must_use]
    pub fn client_id(self, id: impl Into<String>) -> Self {
        Self { client_id: Some(id.into()), ..self }
    }

    /// Authenticates with this token; there is no other one when it expires.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { tokens: Tokens::Fixed(token.into()), ..self }
    }

    /// Calls `request` whenever a token is needed, with `true` after a token was refused and shortly before one
    /// expires.
    ///
    /// [`Error::Closed`](crate::Error::Closed) from it ends a session that needs the token to join. After any other
    /// error it is called again.
    #[must_use]
    pub fn tokens<A, F, E>(self, request: A) -> Self
    where
        A: Fn(bool) -> F + Send + Sync + 'static,
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self { tokens: Tokens::from_fn(request), ..self }
    }

    /// Logs in at `POST /auth/login` of the same server, and renews the token at `POST /auth/refresh`. A refused
    /// login ends the session.
    #[must_use]
    pub fn login(self, username: impl Into<String>, password: impl Into<String>) -> Self {
        let tokens = Tokens::Login { username: username.into(), password: password.into() };
        Self { tokens, ..self }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, room, client_id, .. } = self;
        let mut output = f.debug_struct("Options");
        output.field("url", url).field("room", room).field("client_id", client_id);
        output.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_contains_no_secret() {
        let options = Options::new("https://example.com", "den").client_id("alice-1");
        for options in [options.login("alice", "s3cret"), Options::new("", "").token("s3cret")] {
            assert!(!format!("{options:?}").contains("s3cret"));
        }
    }
}
