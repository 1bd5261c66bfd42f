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

    /// The keys that may have signed a token of this algorithm and `kid`: the key of that name, or else those without one.
    pub fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> Vec<&DecodingKey> {
        let usable = || self.keys.iter().filter(|key| key.algorithms.contains(&algorithm));
        let named = |id| usable().filter(move |key| key.id.as_deref() == Some(id));
        match id {
            None => usable().map(|key| &key.key).collect(),
            Some(id) if named(id).next().is_some() => named(id).map(|key| &key.key).collect(),
            Some(_) => usable().filter(|key| key.id.is_none()).map(|key| &key.key).collect(),
        }
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
