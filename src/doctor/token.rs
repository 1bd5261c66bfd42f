//! One access token: what is right and what is wrong with it, line by line. The token itself is never shown.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::{Diagnostic, issuer};
use crate::{
    auth::{
        access_token::{AccessTokens, Claims, TokenOrigin},
        claims::{PresentedClaims, check_foreign_name},
        jws::UnverifiedToken,
        key_variant::KeyVariant,
        revocation::RevokedTokens,
        token_rejection::TokenRejection,
        users::Users,
    },
    clock::unix_now,
    config::{AuthSettings, Config, ConfigError, Environment, StartupSettings},
    state,
};

/// Checks `token` against the settings, the users file and the tokens that were logged out.
pub async fn check_token(environment: &Environment, token: &SecretString) -> Vec<Diagnostic> {
    let (config, errors) = Config::read_lenient(|name| environment.variable(name));
    // Settings that stop the start for other reasons do not change how a token is read.
    let errors = errors.into_iter().filter(|error| error.name.starts_with("JWT_"));
    let fault = |ConfigError { name, problem, fix }| Diagnostic::fault(name, problem, fix);
    let mut diagnostics: Vec<_> = errors.map(fault).collect();
    let (keys, about_keys) = issuer::load(&config.startup).await;
    diagnostics.extend(about_keys);
    let tokens = state::access_tokens(&config.startup);
    keys.into_iter().for_each(|keys| tokens.set_issuer_keys(keys));
    let (token, now) = (token.expose_secret().trim(), unix_now());
    diagnostics.extend(check(&config.startup, &tokens, token, now));
    if let Ok(claims) = tokens.verify(token, now) {
        diagnostics.push(check_ended(&config.startup.auth.users_csv, &claims, now));
    }
    diagnostics
}

/// Whether a valid token was ended before its time.
fn check_ended(users_csv: &Path, claims: &Claims, now: u64) -> Diagnostic {
    const SUBJECT: &str = "ended";
    match RevokedTokens::load(users_csv, now) {
        Ok(revoked) if revoked.contains(claims) => fault(SUBJECT, &TokenRejection::LoggedOut),
        Ok(_) => Diagnostic::ok(SUBJECT, "by no logout, and by no administrator"),
        Err(error) => Diagnostic::fault(SUBJECT, error.to_string(), "correct the file"),
    }
}

fn check(
    startup: &StartupSettings,
    tokens: &AccessTokens,
    token: &str,
    now: u64,
) -> Vec<Diagnostic> {
    let auth = &startup.auth;
    let token = match UnverifiedToken::parse(token) {
        Ok(token) => token,
        Err(rejection) => return vec![fault("token", &rejection)],
    };
    let mut diagnostics = vec![Diagnostic::ok("token", "three parts, and a header that is read")];
    diagnostics.push(match tokens.check_algorithm(&token) {
        Ok(()) => Diagnostic::ok("alg", format!("{:?}", token.algorithm)),
        Err(rejection) => fault("alg", &rejection),
    });
    let origin = match tokens.check_signature(&token) {
        Ok(origin) => {
            let owner = match origin {
                TokenOrigin::Secret => "this server",
                TokenOrigin::Issuer => "the issuer",
            };
            diagnostics.push(Diagnostic::ok("key", format!("it is signed with a key of {owner}")));
            origin
        }
        Err(rejection) => {
            diagnostics.push(explain_key(auth, &rejection, &token));
            if token.is_signed_with_secret() { TokenOrigin::Secret } else { TokenOrigin::Issuer }
        }
    };
    diagnostics.extend(token.check_critical().err().map(|rejection| fault("crit", &rejection)));
    let presented: PresentedClaims = match token.claims() {
        Ok(presented) => presented,
        Err(rejection) => {
            diagnostics.push(fault("claims", &rejection));
            return diagnostics;
        }
    };
    diagnostics.push(match tokens.check_expiry(&presented, now) {
        Ok(at) => Diagnostic::ok("exp", format!("it expires in {} s", at.saturating_sub(now))),
        Err(rejection) => fault("exp", &rejection),
    });
    diagnostics
        .extend(presented.check_not_before(now).err().map(|rejection| fault("nbf", &rejection)));
    match presented.permissions() {
        Ok(None) => {}
        Ok(Some(permissions)) => {
            let can: Vec<_> = permissions.can.names().collect();
            let rooms =
                permissions.rooms.as_ref().map_or("all rooms".to_owned(), |it| it.join(", "));
            diagnostics.push(Diagnostic::ok("signaling", format!("{rooms}: {}", can.join(", "))));
        }
        Err(rejection) => diagnostics.push(fault("signaling", &rejection)),
    }
    let rules = tokens.rules_of(origin);
    if let Some(rules) = rules {
        let line = |claim, checked: Result<(), TokenRejection>, message| match checked {
            Ok(()) => Diagnostic::ok(claim, message),
            Err(rejection) => fault(claim, &rejection),
        };
        let of = rules.issuer.as_ref().map_or("JWT_ISSUER is empty", |_| "that of JWT_ISSUER");
        diagnostics.push(line("iss", presented.check_issuer(rules), of));
        let is_any = rules.audience.is_empty();
        let of = if is_any { "JWT_AUDIENCE is empty" } else { "JWT_AUDIENCE names it" };
        diagnostics.push(line("aud", presented.check_audience(rules), of));
    }
    match rules.map_or_else(|| presented.user(), |rules| presented.issuer_user(rules)) {
        Ok(username) => diagnostics.push(check_account(startup, &presented, username, origin)),
        Err(rejection) => diagnostics.push(fault("user", &rejection)),
    }
    diagnostics
}

/// Why none of the keys has signed the token: perhaps another reading of `JWT_SECRET_KEY` has.
fn explain_key(
    auth: &AuthSettings,
    rejection: &TokenRejection,
    token: &UnverifiedToken<'_>,
) -> Diagnostic {
    const SUBJECT: &str = "key";
    if *rejection != TokenRejection::WrongKey || !token.is_signed_with_secret() {
        return fault(SUBJECT, rejection);
    }
    let (message, fix) = match KeyVariant::find(&auth.jwt_secret_key, token) {
        Some(KeyVariant::Trimmed) => (
            "it is signed with JWT_SECRET_KEY without the white space at its ends",
            "remove the white space from JWT_SECRET_KEY: in the environment it is part of the key",
        ),
        Some(KeyVariant::WithLineEnd) => (
            "it is signed with JWT_SECRET_KEY and a line end behind it",
            "sign with the key alone; write its file with `printf %s`, for `echo` adds a line end",
        ),
        Some(KeyVariant::FromBase64) => (
            "it is signed with what JWT_SECRET_KEY is if it is decoded from base64",
            "sign with the bytes of the text as it stands; in a JWK `k` is the base64url of these bytes",
        ),
        Some(KeyVariant::FromHex) => (
            "it is signed with what JWT_SECRET_KEY is if it is decoded from hexadecimal digits",
            "sign with the bytes of the text as it stands",
        ),
        None => {
            return Diagnostic::fault(
                SUBJECT,
                rejection.to_string(),
                "sign with the JWT_SECRET_KEY of this server",
            );
        }
    };
    Diagnostic::fault(SUBJECT, message, fix)
}

fn check_account(
    startup: &StartupSettings,
    presented: &PresentedClaims,
    username: &str,
    origin: TokenOrigin,
) -> Diagnostic {
    const SUBJECT: &str = "account";
    let is_required = startup.tokens.users_required;
    let load = if is_required { Users::load } else { Users::load_optional };
    let (users, _) = match load(&startup.auth.users_csv) {
        Ok(loaded) => loaded,
        Err(error) => return Diagnostic::fault(SUBJECT, error.to_string(), "correct USERS_CSV"),
    };
    let Some(account) = users.find(username) else {
        if is_required {
            return fault(SUBJECT, &TokenRejection::UnknownUser(username.to_owned()));
        }
        return match check_foreign_name(username) {
            Ok(()) => Diagnostic::ok(SUBJECT, "none is needed"),
            Err(rejection) => fault(SUBJECT, &rejection),
        };
    };
    if !is_required && origin == TokenOrigin::Issuer {
        return fault(SUBJECT, &TokenRejection::NameTaken(username.to_owned()));
    }
    if !account.is_active {
        return fault(SUBJECT, &TokenRejection::DisabledUser(username.to_owned()));
    }
    match presented.stamp() {
        Ok(Some(stamp)) if stamp != account.stamp() => {
            fault(SUBJECT, &TokenRejection::PasswordChanged)
        }
        Ok(_) => Diagnostic::ok(SUBJECT, "it exists and is active"),
        Err(rejection) => fault(SUBJECT, &rejection),
    }
}

/// A fault, with what the developer of the issuing service does about it.
fn fault(subject: &str, rejection: &TokenRejection) -> Diagnostic {
    let fix = match rejection {
        TokenRejection::TooLong { .. } => "leave out claims that the server does not read",
        TokenRejection::Malformed(_) => "pass on the token exactly as the library returned it",
        TokenRejection::UnknownAlgorithm | TokenRejection::Algorithm { .. } => {
            "name the algorithm when you sign; some libraries choose one by the length of the key"
        }
        TokenRejection::CriticalExtension => "leave out `crit`",
        TokenRejection::WrongKey => {
            "compare its issuer and its `kid` with the JWK set of JWT_ISSUER"
        }
        TokenRejection::NoClaims => "sign a JSON object with `sub` and `exp`",
        TokenRejection::MissingClaim("exp") => "set `exp` to a number of seconds since 1970",
        TokenRejection::MissingClaim(_) => "set it; `sub` is the name of the user as a text",
        TokenRejection::ClaimType { claim: "sub", .. } => "write the id of the user as a text",
        TokenRejection::ClaimType { .. } => {
            "write a number without quotes, or leave out a claim that has no value"
        }
        TokenRejection::Milliseconds { .. } => {
            "convert it: `Date.now()` in JavaScript, for example, is in milliseconds"
        }
        TokenRejection::Expired { .. } => {
            "issue a new one; check the unit of its lifetime and the time zone and clock of the issuer"
        }
        TokenRejection::NotYetValid { .. } => "compare the clocks of the two machines",
        TokenRejection::TooLongLived { .. } => "issue it for a shorter time",
        TokenRejection::NoKeys => "see the line about the issuer",
        TokenRejection::UnknownKey => "compare `kid` with the JWK set of the issuer",
        TokenRejection::TooManyKeys { .. } => "write the `kid` of the key into the token's header",
        TokenRejection::OtherIssuer(_) => {
            "set JWT_ISSUER to exactly that text, if it is your issuer"
        }
        TokenRejection::OtherAudience(_) => "add it to JWT_AUDIENCE, if tokens for it are meant",
        TokenRejection::NoUser(_) => "set JWT_USER_CLAIM to a claim that it has, such as sub",
        TokenRejection::EmailNotVerified => {
            "verify the address at the issuer, or use another claim"
        }
        TokenRejection::BadName => "use a claim that is a name or an id",
        TokenRejection::NameTaken(_) => {
            "remove that account, or set USERS_REQUIRED=true: then the token stands for the account"
        }
        TokenRejection::Permissions(_) => "write it as docs/build/your-own-users.md shows",
        TokenRejection::LoggedOut => "log in again",
        TokenRejection::UnknownUser(_) => {
            "add the account with `manage_users add`, or set USERS_REQUIRED=false"
        }
        TokenRejection::DisabledUser(_) => "enable it with `manage_users enable`",
        TokenRejection::PasswordChanged => "log in again",
    };
    Diagnostic::fault(subject, rejection.to_string(), fix)
}
