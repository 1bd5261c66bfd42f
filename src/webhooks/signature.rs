//! The signature of webhooks, as the Standard Webhooks specification 1.0.0 defines it.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

/// Signs webhooks.
#[derive(Clone)]
pub(super) struct Signer(hmac::Key);

impl Signer {
    /// A signer with the key that is derived from `SECRET_KEY`.
    pub(super) fn new(secret_key: &SecretString) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, derive_key(secret_key).as_ref()))
    }

    /// The value of `webhook-signature` for a body that is posted at `now` (whole seconds since the Unix epoch).
    pub(super) fn sign(&self, id: Uuid, now: u64, body: &[u8]) -> String {
        let mut signing = hmac::Context::with_key(&self.0);
        signing.update(format!("{id}.{now}.").as_bytes());
        signing.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(signing.sign()))
    }
}

/// The secret with which receivers verify signatures, in the format of the Standard Webhooks specification.
///
/// It is derived from `SECRET_KEY`, which stays on the server: that key signs resume tokens.
pub fn receiver_secret(secret_key: &SecretString) -> SecretString {
    format!("whsec_{}", BASE64_STANDARD.encode(derive_key(secret_key))).into()
}

fn derive_key(secret_key: &SecretString) -> hmac::Tag {
    let secret_key = secret_key.expose_secret().as_bytes();
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret_key), b"webhooks")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_receivers_is_derived_from_the_servers_own() {
        let own = SecretString::from("0123456789abcdef0123456789abcdef");
        let secret = receiver_secret(&own);

        // echo -n webhooks | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef -binary | base64
        assert_eq!(secret.expose_secret(), "whsec_hsMQIBVXIkK6nTkPodUzbZ55ioXNR6MRy8BK4rLq4GE=");
    }
}
