//! Tokens that another service issues: with which algorithms and keys, and which users they name.

use std::path::PathBuf;

use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::{
    declare::{Section, Setting},
    parse::{LIST, Parsed, Reader, Rejected, TRUE_OR_FALSE, flag, list, list_of, optional, path},
};
use crate::issuer::KeySource;

/// Tokens from elsewhere.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// `JWT_ALGORITHMS`: the algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// `JWT_PUBLIC_KEY_FILE`: the keys of the issuer.
    pub public_key_file: Option<PathBuf>,
    /// `JWT_JWKS_URL`, or what discovery from `JWT_ISSUER` finds.
    pub key_source: Option<KeySource>,
    /// `JWT_JWKS_ALLOW_PRIVATE`: whether keys may come over plain HTTP and from private addresses.
    pub allows_private: bool,
    /// `JWT_ISSUER`: the `iss` of the issuer's tokens.
    pub issuer: Option<String>,
    /// `JWT_AUDIENCE`: one of these is in their `aud`.
    pub audience: Vec<String>,
    /// `JWT_USER_CLAIM`: the claim with the name of the user.
    pub user_claim: String,
    /// `USERS_REQUIRED`: whether each user needs an account.
    pub users_required: bool,
    /// `PASSWORD_LOGIN`: whether users log in with a password.
    pub password_login: bool,
}

pub(super) const JWT_ALGORITHMS: Setting<Vec<Algorithm>> =
    Setting::new("JWT_ALGORITHMS", "[\"HS256\"]", |text| {
        let algorithms = list_of(text, |name| name.parse().ok())?;
        if algorithms.is_empty() { Err(Rejected::Value) } else { Ok(algorithms) }
    })
    .accepts(
        "a list of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA",
    )
    .help(
        "Algorithms of tokens that are accepted: HS with `JWT_SECRET_KEY`, the others with the keys of the issuer. Tokens of \
         this server are signed with HS256.",
    )
    .page("docs/build/your-own-users.md");

const JWT_PUBLIC_KEY_FILE: Setting<Option<PathBuf>> = Setting::new("JWT_PUBLIC_KEY_FILE", "", path)
    .accepts("the path of a file with public keys or certificates in PEM, or a JWK set")
    .help("Public keys of the issuer of tokens. Read at the start.")
    .page("docs/build/your-own-users.md");

const JWT_JWKS_URL: Setting<Option<String>> = Setting::new("JWT_JWKS_URL", "", text)
    .accepts("an https:// URL of a JWK set")
    .help(
        "The keys of the issuer, fetched every ten minutes, and when a token names a key that is not among them: at most once \
         a minute, and once more for tokens that come during that fetch. While the issuer cannot be reached, the last keys count.",
    )
    .page("docs/build/your-own-users.md");

const JWT_ISSUER: Setting<Option<String>> = Setting::new("JWT_ISSUER", "", text)
    .accepts("the issuer exactly as `iss` has it, such as https://id.example.com/")
    .help(
        "The `iss` that tokens of the issuer must have. Without `JWT_JWKS_URL` and `JWT_PUBLIC_KEY_FILE` its keys are found \
         through OpenID discovery.",
    )
    .page("docs/build/your-own-users.md");

const JWT_AUDIENCE: Setting<Vec<String>> = Setting::new("JWT_AUDIENCE", "[]", list)
    .accepts(LIST)
    .help("Tokens of the issuer must have one of these in `aud`. Empty: any.")
    .page("docs/build/your-own-users.md");

const JWT_USER_CLAIM: Setting<String> =
    Setting::new("JWT_USER_CLAIM", "sub", |text| Ok(text.to_owned()))
        .accepts("the name of a claim, such as sub, preferred_username or email")
        .help(
            "The claim that names the user in tokens of the issuer. `email` counts only with `email_verified`.",
        )
        .page("docs/build/your-own-users.md");

const JWT_JWKS_ALLOW_PRIVATE: Setting<bool> = Setting::new("JWT_JWKS_ALLOW_PRIVATE", "false", flag)
    .accepts(TRUE_OR_FALSE)
    .help("`true`: the issuer's URLs may also be `http://`, and lead to addresses of your own network.");

pub(super) const USERS_REQUIRED: Setting<bool> = Setting::new("USERS_REQUIRED", "true", flag)
    .accepts(TRUE_OR_FALSE)
    .help(
        "`false`: a valid token is enough, its user needs no row in the users file. Names of accounts stay reserved for the \
         users file.",
    )
    .page("docs/build/your-own-users.md");

pub(super) const PASSWORD_LOGIN: Setting<bool> = Setting::new("PASSWORD_LOGIN", "true", flag)
    .accepts(TRUE_OR_FALSE)
    .help("`false`: `/auth/login` and `/auth/token` refuse every login.")
    .page("docs/build/your-own-users.md");

pub(super) const SECTION: Section = Section {
    title: "Tokens of your own users",
    settings: &[
        JWT_ALGORITHMS.declaration,
        JWT_PUBLIC_KEY_FILE.declaration,
        JWT_JWKS_URL.declaration,
        JWT_ISSUER.declaration,
        JWT_AUDIENCE.declaration,
        JWT_USER_CLAIM.declaration,
        JWT_JWKS_ALLOW_PRIVATE.declaration,
        USERS_REQUIRED.declaration,
        PASSWORD_LOGIN.declaration,
    ],
};

impl TokenSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let algorithms = reader.get(&JWT_ALGORITHMS);
        let public_key_file = reader.get(&JWT_PUBLIC_KEY_FILE);
        let (url, issuer) = (reader.get(&JWT_JWKS_URL), reader.get(&JWT_ISSUER));
        let allows_private = reader.get(&JWT_JWKS_ALLOW_PRIVATE);
        let password_login = reader.get(&PASSWORD_LOGIN);
        let (source, setting) = match (&url, &issuer, &public_key_file) {
            (Some(url), ..) => {
                (Some(KeySource::jwk_set(url, allows_private)), &JWT_JWKS_URL.declaration)
            }
            (None, Some(issuer), None) => {
                (Some(KeySource::discovery(issuer, allows_private)), &JWT_ISSUER.declaration)
            }
            (None, ..) => (None, &JWT_ISSUER.declaration),
        };
        let key_source = match source.transpose() {
            Ok(source) => source,
            Err(problem) => {
                reader.reject(setting, problem.to_string());
                None
            }
        };
        if public_key_file.is_some() && url.is_some() {
            reader.reject(
                &JWT_PUBLIC_KEY_FILE.declaration,
                "is set, and JWT_JWKS_URL too: keys come from one of them",
            );
        }
        let is_secret =
            |algorithm: &Algorithm| AlgorithmFamily::Hmac.algorithms().contains(algorithm);
        let has_keys = public_key_file.is_some() || key_source.is_some();
        if has_keys && algorithms.iter().all(is_secret) {
            reader.reject(
                &JWT_ALGORITHMS.declaration,
                "has no algorithm of the issuer's keys, such as RS256, which most issuers use",
            );
        }
        if !has_keys && !algorithms.iter().all(is_secret) {
            reader.reject(
                &JWT_ALGORITHMS.declaration,
                "has an algorithm that needs the issuer's keys, but JWT_PUBLIC_KEY_FILE, JWT_JWKS_URL and JWT_ISSUER are empty",
            );
        }
        if password_login && !algorithms.contains(&Algorithm::HS256) {
            reader.reject(
                &JWT_ALGORITHMS.declaration,
                "has no HS256, so tokens of a login would be refused; set PASSWORD_LOGIN=false or add it",
            );
        }
        Self {
            algorithms,
            public_key_file,
            key_source,
            allows_private,
            issuer,
            audience: reader.get(&JWT_AUDIENCE),
            user_claim: reader.get(&JWT_USER_CLAIM),
            users_required: reader.get(&USERS_REQUIRED),
            password_login,
        }
    }
}

/// A text, or none where it is empty.
fn text(text: &str) -> Parsed<Option<String>> {
    optional(text, |text| Ok(text.to_owned()))
}
