//! The public keys of an issuer, each with the algorithms that it may be used with.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde::Deserialize;
use serde_json::Value;
use x509_parser::{
    oid_registry::OID_SIG_ED25519, prelude::FromDer, public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

/// The most keys of a set that are used.
const MAX_KEYS: usize = 100;

/// The most keys that a token is tried with. Each is a verification before the client is authenticated, up to 0.1 ms for an RSA key
/// of 4096 bits. An issuer that changes its keys has two or three at a time, and must name them in its tokens where there is more
/// than one (OpenID Connect Core 1.0 section 10.1).
pub const MAX_CANDIDATES: usize = 4;

/// One public key.
pub struct IssuerKey {
    /// Names the key in the header of tokens.
    id: Option<String>,
    /// Of one family: a key is used for nothing else (RFC 8725 section 3.1).
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// All of them.
#[derive(Default)]
pub struct IssuerKeys {
    keys: Vec<IssuerKey>,
}

/// The keys that may have signed a token.
pub struct Candidates<'a> {
    /// At most [`MAX_CANDIDATES`]: the first of the set.
    pub keys: Vec<&'a DecodingKey>,
    /// How many there are with those that are not tried.
    pub count: usize,
}

/// Why a text holds no keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is neither.
    #[error("it is neither PEM nor a JWK set")]
    Unreadable,
    /// There is no key in it that can verify a signature.
    #[error("it has no public key for RS, PS, ES256, ES384 or EdDSA signatures")]
    NoKey,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

impl IssuerKeys {
    /// Reads public keys or certificates in PEM, a JWK set, or one JWK.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.windows(10).any(|window| window == b"-----BEGIN") {
            return Self::from_pem(bytes);
        }
        Self::from_jwk_set(bytes)
    }

    /// Reads a JWK set, or one JWK. Keys for other purposes, and of kinds that are not known, are left out.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn from_jwk_set(bytes: &[u8]) -> Result<Self, KeyError> {
        let json: Value = serde_json::from_slice(bytes).map_err(|_| KeyError::Unreadable)?;
        let keys = if json.get("kty").is_some() {
            vec![json]
        } else {
            JwkSet::deserialize(json).map_err(|_| KeyError::Unreadable)?.keys
        };
        let keys =
            keys.into_iter().filter_map(|key| IssuerKey::from_jwk(&Jwk::deserialize(key).ok()?));
        Self::checked(keys.take(MAX_KEYS).collect())
    }

    fn from_pem(bytes: &[u8]) -> Result<Self, KeyError> {
        let bare = SubjectPublicKeyInfoDer::pem_slice_iter(bytes).filter_map(Result::ok);
        let bare = bare.filter_map(|key| {
            let (_, info) = SubjectPublicKeyInfo::from_der(&key).ok()?;
            IssuerKey::from_public_key(&info)
        });
        let certified = CertificateDer::pem_slice_iter(bytes).filter_map(Result::ok);
        let certified = certified.filter_map(|certificate| {
            let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
            IssuerKey::from_public_key(certificate.public_key())
        });
        Self::checked(bare.chain(certified).take(MAX_KEYS).collect())
    }

    fn checked(keys: Vec<IssuerKey>) -> Result<Self, KeyError> {
        if keys.is_empty() { Err(KeyError::NoKey) } else { Ok(Self { keys }) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// The keys that may have signed a token of this algorithm and `kid`: the key of that name, or else those without one. Where
    /// the token names none, all keys that fit the algorithm.
    pub fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> Candidates<'_> {
        let usable = || self.keys.iter().filter(|key| key.algorithms.contains(&algorithm));
        let has_id = id.is_some_and(|id| usable().any(|key| key.id.as_deref() == Some(id)));
        let candidates = || {
            usable().filter(|key| match id {
                None => true,
                Some(_) if has_id => key.id.as_deref() == id,
                Some(_) => key.id.is_none(),
            })
        };
        let keys = candidates().take(MAX_CANDIDATES).map(|key| &key.key).collect();
        Candidates { keys, count: candidates().count() }
    }

    /// How many keys a token may have to be tried with, where it names none, and where it does.
    pub fn most_candidates(&self, algorithms: &[Algorithm]) -> (usize, usize) {
        let most = |id| {
            let counts = algorithms.iter().map(|algorithm| self.candidates(*algorithm, id).count);
            counts.max().unwrap_or_default()
        };
        // No issuer calls a key like this.
        (most(None), most(Some("\u{0}")))
    }
}

impl IssuerKey {
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|it| *it != PublicKeyUse::Signature) {
            return None;
        }
        // Both enums may grow, and what is not known here is no key.
        #[expect(clippy::wildcard_enum_match_arm, reason = "they are another crate's")]
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(parameters)
                if parameters.curve == EllipticCurve::Ed25519 =>
            {
                vec![Algorithm::EdDSA]
            }
            // A secret in a public set is no key: everybody knows it.
            _ => return None,
        };
        if let Some(named) = common.key_algorithm {
            let named = Algorithm::try_from(named).ok()?;
            algorithms.retain(|algorithm| *algorithm == named);
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        (!algorithms.is_empty()).then(|| Self { id: common.key_id.clone(), algorithms, key })
    }

    fn from_public_key(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let (algorithms, key) = if info.algorithm.algorithm == OID_SIG_ED25519 {
            (
                vec![Algorithm::EdDSA],
                DecodingKey::from_ed_der(info.subject_public_key.data.as_ref()),
            )
        } else {
            match info.parsed().ok()? {
                PublicKey::RSA(rsa) => {
                    let parts = [rsa.modulus, rsa.exponent].map(without_zeros);
                    let [modulus, exponent] = parts;
                    (RSA.to_vec(), DecodingKey::from_rsa_raw_components(modulus, exponent))
                }
                PublicKey::EC(point) => {
                    let algorithm = match point.data().len() {
                        P256_POINT_BYTES => Algorithm::ES256,
                        P384_POINT_BYTES => Algorithm::ES384,
                        _ => return None,
                    };
                    (vec![algorithm], DecodingKey::from_ec_der(point.data()))
                }
                PublicKey::DSA(_)
                | PublicKey::GostR3410(_)
                | PublicKey::GostR3410_2012(_)
                | PublicKey::Unknown(_) => return None,
            }
        };
        Some(Self { id: None, algorithms, key })
    }
}

/// The lengths of uncompressed points (SEC 1 section 2.3.3).
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A DER integer has a zero before a high bit.
fn without_zeros(mut bytes: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::*;

    /// So many ES256 keys in PEM, or as a JWK set with names.
    fn keys(count: usize, has_names: bool) -> IssuerKeys {
        let pairs: Vec<_> = (0..count).map(|_| KeyPair::generate().unwrap()).collect();
        let pem: String = pairs.iter().map(KeyPair::public_key_pem).collect();
        let mut keys = IssuerKeys::parse(pem.as_bytes()).unwrap();
        for (number, key) in keys.keys.iter_mut().enumerate().filter(|_| has_names) {
            key.id = Some(number.to_string());
        }
        keys
    }

    #[test]
    fn a_token_that_names_no_key_is_tried_with_four_keys_of_its_algorithm() {
        let counts = |keys: &IssuerKeys, algorithm, id| {
            let Candidates { keys, count } = keys.candidates(algorithm, id);
            (keys.len(), count)
        };
        let named = keys(40, true);
        assert_eq!(counts(&named, Algorithm::ES256, None), (4, 40));
        assert_eq!(counts(&named, Algorithm::ES256, Some("39")), (1, 1));
        assert_eq!(counts(&named, Algorithm::ES256, Some("40")), (0, 0));
        assert_eq!(counts(&named, Algorithm::RS256, None), (0, 0));
        assert_eq!(named.most_candidates(&[Algorithm::HS256, Algorithm::ES256]), (40, 0));

        let unnamed = keys(5, false);
        assert_eq!(counts(&unnamed, Algorithm::ES256, Some("1")), (4, 5));
        assert_eq!(unnamed.most_candidates(&[Algorithm::ES256]), (5, 5));
    }
}
