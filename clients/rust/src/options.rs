//! Where to go, and as whom.

use std::{error::Error, fmt};

use crate::tokens::Tokens;

/// Where to go, and as whom.
pub struct Options {
    pub(crate) url: String,
    pub(crate) room: String,
    pub(crate) client_id: Option<String>,
    pub(crate) tokens: Tokens,
}

impl Options {
    /// A guest in `room` of the server at `url`: `https://example.com`, with a path where it is behind one.
    pub fn new(url: impl Into<String>, room: impl Into<String>) -> Self {
        Self { url: url.into(), room: room.into(), client_id: None, tokens: Tokens::Guest }
    }

    /// A client id that is unique in the room; the server chooses where it is left out.
    #[must_use]
    pub fn client_id(self, id: impl Into<String>) -> Self {
        Self { client_id: Some(id.into()), ..self }
    }

    /// Comes with this token, and with no other when it ends.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { tokens: Tokens::One(token.into()), ..self }
    }

    /// Asks for a token whenever one is needed: with `true` after one was refused or is about to run out.
    ///
    /// [`Error::Closed`](crate::Error::Closed) in place of one ends a session that needs it to come in;
    /// after any other error it asks again.
    #[must_use]
    pub fn tokens<A, F, E>(self, ask: A) -> Self
    where
        A: Fn(bool) -> F + Send + Sync + 'static,
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self { tokens: Tokens::asked(ask), ..self }
    }

    /// Logs in at `POST /auth/login` of the same server, and goes on with `POST /auth/refresh`. A login
    /// that is refused ends the session.
    #[must_use]
    pub fn login(self, username: impl Into<String>, password: impl Into<String>) -> Self {
        let tokens = Tokens::Login { username: username.into(), password: password.into() };
        Self { tokens, ..self }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, room, client_id, .. } = self;
        let mut told = f.debug_struct("Options");
        told.field("url", url).field("room", room).field("client_id", client_id);
        told.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_holds_no_secret() {
        let options = Options::new("https://example.com", "den").client_id("alice-1");
        for options in [options.login("alice", "s3cret"), Options::new("", "").token("s3cret")] {
            assert!(!format!("{options:?}").contains("s3cret"));
        }
    }
}
