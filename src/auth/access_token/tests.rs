use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::*;

const NOW: u64 = 1_700_000_000;

fn tokens(secret: &str) -> AccessTokens {
    AccessTokens::new(&secret.into(), None, Duration::from_secs(1800))
}

/// A token with given header and claims, signed without the crate under test.
fn minted(secret: &str, header: &str, claims: &str) -> String {
    let signed = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let signature = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

#[test]
fn a_token_authenticates_its_user_until_it_expires() {
    let tokens = tokens("secret");
    let token = tokens.issue("zoë", "stamp", NOW).unwrap();
    let token = token.expose_secret();

    let claims = tokens.verify(token, NOW + 1799).unwrap();

    assert_eq!((&*claims.username, claims.expires_at), ("zoë", NOW + 1800));
    assert_eq!(claims.stamp.as_deref(), Some("stamp"));
    assert_eq!(tokens.verify(token, NOW + 1800), Err(TokenRejection::Expired { seconds: 0 }));
}

#[test]
fn a_key_that_was_replaced_still_verifies_and_no_longer_signs() {
    let (old, lifetime) = (tokens("old"), Duration::from_secs(1800));
    let rotated = AccessTokens::new(&"new".into(), Some(&"old".into()), lifetime);
    let before = old.issue("alice", "", NOW).unwrap();
    let after = rotated.issue("alice", "", NOW).unwrap();

    assert!(rotated.verify(before.expose_secret(), NOW).is_ok());
    assert!(rotated.verify(after.expose_secret(), NOW).is_ok());
    assert_eq!(old.verify(after.expose_secret(), NOW), Err(TokenRejection::WrongKey));
    assert_eq!(tokens("new").verify(before.expose_secret(), NOW), Err(TokenRejection::WrongKey));
}

/// RFC 7515 appendix A.1: key, header and claims of an HS256 token, as published.
#[test]
fn the_token_of_the_standard_has_our_signature() {
    let key = BASE64_URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9\
        .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
        .dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let tokens = tokens("unused");
    let tokens = AccessTokens { verifying: vec![DecodingKey::from_secret(&key)], ..tokens };

    assert_eq!(
        tokens.verify(token, 0),
        Err(TokenRejection::MissingClaim("sub")),
        "the signature is good"
    );
}

#[test]
fn a_token_from_elsewhere_with_only_sub_and_exp_is_as_good() {
    for exp in ["1700000001", "1700000000.5", "99999999999", "99999999999.9"] {
        let token = minted("secret", HS256, &format!(r#"{{"sub":"alice","exp":{exp}}}"#));

        assert_eq!(*tokens("secret").verify(&token, NOW).unwrap().username, *"alice", "{exp}");
    }
}

#[test]
fn what_is_wrong_with_the_claims_is_said() {
    let good = r#""sub":"alice","exp":1700000001"#;
    let bad_claims = [
        (r#"{"sub":"alice"}"#.to_owned(), "`exp` is missing"),
        (r#"{"exp":1700000001}"#.to_owned(), "`sub` is missing"),
        (r#"{"sub":"alice","exp":1699983800}"#.to_owned(), "it expired 4 h 30 min ago"),
        (r#"{"sub":"alice","exp":-1}"#.to_owned(), "it expired 19675 days ago"),
        (
            r#"{"sub":"alice","exp":"9999999999"}"#.to_owned(),
            "`exp` is a text; it must be a number of seconds",
        ),
        (r#"{"sub":"alice","exp":null}"#.to_owned(), "`exp` is null; it must"),
        (r#"{"sub":"alice","exp":true}"#.to_owned(), "`exp` is a boolean; it must"),
        (r#"{"sub":"alice","exp":[1700000001]}"#.to_owned(), "`exp` is an array; it must"),
        (r#"{"sub":"alice","exp":1e400}"#.to_owned(), "no JSON object"),
        (r#"{"sub":"alice","exp":1700000300000}"#.to_owned(), "`exp` is in milliseconds"),
        (r#"{"sub":"alice","exp":100000000000}"#.to_owned(), "`exp` is in milliseconds"),
        (r#"{"sub":"alice","exp":1700000300000000}"#.to_owned(), "`exp` is in microseconds"),
        (r#"{"sub":"alice","exp":1700000300000000000}"#.to_owned(), "`exp` is in nanoseconds"),
        (r#"{"sub":"alice","exp":1e300}"#.to_owned(), "`exp` is in nanoseconds"),
        (r#"{"sub":1,"exp":1700000001}"#.to_owned(), "`sub` is a number; it must be a text"),
        (r#"{"sub":["alice"],"exp":1700000001}"#.to_owned(), "`sub` is an array"),
        (r#"{"sub":"alice","sub":"bob","exp":1700000001}"#.to_owned(), "each claim once"),
        (format!(r#"{{{good},"nbf":1700000006}}"#), "`nbf` lies 6 s in the future"),
        (format!(r#"{{{good},"nbf":1700000000000}}"#), "`nbf` is in milliseconds"),
        (format!(r#"{{{good},"nbf":"1700000000"}}"#), "`nbf` is a text"),
        (format!(r#"{{{good},"nbf":null}}"#), "`nbf` is null"),
        (format!(r#"{{{good},"pwd_stamp":7}}"#), "`pwd_stamp` is a number"),
        ("[]".to_owned(), "no JSON object"),
        ("not json".to_owned(), "no JSON object"),
    ];
    for (claims, reason) in bad_claims {
        let token = minted("secret", HS256, &claims);

        let rejection = tokens("secret").verify(&token, NOW).unwrap_err().to_string();

        assert!(rejection.contains(reason), "{claims}: {rejection}");
    }
    let early = minted("secret", HS256, &format!(r#"{{{good},"nbf":1700000005}}"#));
    assert!(tokens("secret").verify(&early, NOW).is_ok(), "within the leeway");
}

#[test]
fn a_token_that_is_valid_for_longer_than_allowed_is_refused() {
    let tokens = tokens("secret").with_max_lifetime(Some(Duration::from_secs(3600)));
    let verify = |exp: u64| {
        let token = minted("secret", HS256, &format!(r#"{{"sub":"alice","exp":{exp}}}"#));
        tokens.verify(&token, NOW).map(|claims| claims.expires_at)
    };

    assert_eq!(verify(NOW + 3605), Ok(NOW + 3605), "clocks differ by so much");
    assert_eq!(
        verify(NOW + 7200).unwrap_err().to_string(),
        "it is valid for another 2 h 0 min; MAX_TOKEN_LIFETIME allows 1 h 0 min"
    );
}

#[test]
fn only_our_key_and_our_algorithm_count() {
    let claims = r#"{"sub":"alice","exp":1700000001}"#;
    let good = minted("secret", HS256, claims);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let forged = [
        (minted("other", HS256, claims), "signed with another key"),
        (minted("", HS256, claims), "signed with another key"),
        (minted("secret", r#"{"alg":"none"}"#, claims), "`alg` is missing, \"none\""),
        (minted("secret", r#"{"alg":"HS512"}"#, claims), "`alg` is HS512; accepted: HS256"),
        (minted("secret", r#"{"alg":"RS256"}"#, claims), "`alg` is RS256; accepted: HS256"),
        (minted("secret", r#"{}"#, claims), "`alg` is missing"),
        (minted("secret", r#"{"alg":"HS256","crit":["exp"]}"#, claims), "`crit`"),
        (format!("{signed}."), "signed with another key"),
        (signed.to_owned(), "three parts"),
        (format!("{good}A"), "signed with another key"),
        (format!("{good} "), "signed with another key"),
        (format!("{good}."), "three parts"),
        (String::new(), "three parts"),
        ("..".to_owned(), "first part"),
        ("é.é.é".to_owned(), "first part"),
        ("a".repeat(1024 * 1024), "1048576 bytes"),
    ];
    for (token, reason) in forged {
        let rejection = tokens("secret").verify(&token, NOW).unwrap_err().to_string();

        assert!(rejection.contains(reason), "{token:.60}: {rejection}");
    }
    assert!(tokens("secret").verify(&good, NOW).is_ok());
}
