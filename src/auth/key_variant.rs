//! Keys that a service may sign with while it means `JWT_SECRET_KEY`: the same text, read in another way.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::DecodingKey;
use secrecy::{ExposeSecret, SecretString};

use super::jws::UnverifiedToken;

/// Another way to read the text of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyVariant {
    /// Without white space at its ends.
    Trimmed,
    /// With a line end, as `echo` writes it into a file.
    WithLineEnd,
    /// Decoded from base64 or base64url, as the `k` of a JWK is (RFC 7518 section 6.4.1).
    FromBase64,
    /// Decoded from hexadecimal digits.
    FromHex,
}

impl KeyVariant {
    const ALL: [Self; 4] = [Self::Trimmed, Self::WithLineEnd, Self::FromBase64, Self::FromHex];

    /// The variant of `secret` that has signed `token`, if one of them has.
    pub fn find(secret: &SecretString, token: &UnverifiedToken<'_>) -> Option<Self> {
        let is_signed = |variant: &Self| {
            let keys = variant.keys(secret.expose_secret());
            keys.iter().any(|key| token.is_signed_by(&DecodingKey::from_secret(key)))
        };
        Self::ALL.into_iter().find(is_signed)
    }

    /// The keys that this variant makes of a text.
    fn keys(self, text: &str) -> Vec<Vec<u8>> {
        let trimmed = text.trim();
        match self {
            Self::Trimmed => vec![trimmed.into()],
            Self::WithLineEnd => ["\n", "\r\n"].map(|end| format!("{trimmed}{end}").into()).into(),
            Self::FromBase64 => {
                let url = trimmed.trim_end_matches('=');
                let keys = [BASE64_STANDARD.decode(trimmed), BASE64_URL_SAFE_NO_PAD.decode(url)];
                keys.into_iter().filter_map(Result::ok).collect()
            }
            Self::FromHex => from_hex(trimmed).into_iter().collect(),
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let pair = str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = " 2f0a7d5c9b1e4836a0c7d5e9f1b2a3c4 ";

    #[test]
    fn a_key_that_was_read_in_another_way_is_found() {
        for (key, variant) in [
            (SECRET.trim().as_bytes().to_vec(), Some(KeyVariant::Trimmed)),
            (format!("{}\n", SECRET.trim()).into_bytes(), Some(KeyVariant::WithLineEnd)),
            (BASE64_STANDARD.decode(SECRET.trim()).unwrap(), Some(KeyVariant::FromBase64)),
            (from_hex(SECRET.trim()).unwrap(), Some(KeyVariant::FromHex)),
            (b"another".to_vec(), None),
        ] {
            let key = jsonwebtoken::EncodingKey::from_secret(&key);
            let claims = serde_json::json!({"sub": "alice"});
            let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key);
            let token = token.unwrap();
            let token = UnverifiedToken::parse(&token).unwrap();

            assert_eq!(KeyVariant::find(&SECRET.into(), &token), variant);
        }
    }
}
