//! The keys of the issuer of tokens: in a file, or fetched as the server fetches them.

use super::Diagnostic;
use crate::{
    auth::issuer_keys::{IssuerKeys, MAX_CANDIDATES},
    config::StartupSettings,
    state,
};

/// What to do where `JWT_PUBLIC_KEY_FILE` has no keys that can be used.
pub(super) const KEY_FILE_FIX: &str =
    "name a readable file that holds public keys, in PEM or as a JWK set";

/// The keys, if there is an issuer and it has keys, and what is to be said about them.
pub(super) async fn load(startup: &StartupSettings) -> (Option<IssuerKeys>, Option<Diagnostic>) {
    const SUBJECT: &str = "issuer";
    let tokens = &startup.tokens;
    let loaded = if let Some(path) = &tokens.public_key_file {
        state::read_key_file(path).map_err(|error| (error, KEY_FILE_FIX))
    } else if let Some(source) = tokens.key_source.clone() {
        let own_tls = startup.listen.tls.is_some();
        let client = state::issuer_client(source, tokens.allows_private, own_tls).await;
        let keys = state::fetch_keys(&client).await;
        keys.map_err(|error| {
            (
                error.to_string(),
                "check JWT_ISSUER and JWT_JWKS_URL, and that this machine reaches them",
            )
        })
    } else {
        return (None, None);
    };
    match loaded {
        Ok(keys) => {
            let count = keys.count();
            let (without_kid, with_kid) = keys.most_candidates(&tokens.algorithms);
            let found = if with_kid > MAX_CANDIDATES {
                Diagnostic::warning(
                    SUBJECT,
                    format!(
                        "it has {with_kid} keys without `kid` for one algorithm; only the first {MAX_CANDIDATES} verify tokens"
                    ),
                    "give the keys names in a JWK set (`kid`) and the tokens in their headers, or remove old keys",
                )
            } else if without_kid > MAX_CANDIDATES {
                let message = format!(
                    "it has {count} keys that can sign tokens; a token without `kid` is tried with the first {MAX_CANDIDATES}"
                );
                Diagnostic::ok(SUBJECT, message)
            } else {
                Diagnostic::ok(SUBJECT, format!("it has {count} keys that can sign tokens"))
            };
            (Some(keys), Some(found))
        }
        Err((message, fix)) => (None, Some(Diagnostic::fault(SUBJECT, message, fix))),
    }
}

/// What is to be said about the issuer, and that its tokens are for any audience.
pub(super) async fn check(startup: &StartupSettings) -> Vec<Diagnostic> {
    let (_, found) = load(startup).await;
    let is_open = found.is_some() && startup.tokens.audience.is_empty();
    let open = is_open.then(|| {
        Diagnostic::warning(
            "JWT_AUDIENCE",
            "is empty: tokens that the issuer made for other services are accepted, too",
            "set it to the `aud` of your tokens",
        )
    });
    found.into_iter().chain(open).collect()
}
