"""Tokens by Python's libraries: a line for each with its maker, its form, what is expected, and the token."""

import os
import time
from datetime import datetime, timedelta, timezone

import jwt
from authlib.jose import jwt as authlib_jwt
from jose import jwt as jose_jwt
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import OctKey
from jwcrypto import jwk, jwt as jwcrypto_jwt

KEY = os.environ["JWT_SECRET_KEY"]
LATER = int(time.time()) + 300
AWARE = datetime.now(timezone.utc) + timedelta(minutes=5)


def tell(maker, form, expected, token):
    text = token.decode() if isinstance(token, bytes) else token
    print(maker, form, expected, text, sep="\t")


def by_all(form, expected, claims, **header):
    header = {"alg": "HS256", **header}
    extra = {name: value for name, value in header.items() if name != "alg"}
    try:
        tell("PyJWT", form, expected, jwt.encode(claims, KEY, algorithm=header["alg"], headers=extra or None))
    except TypeError:
        pass  # newer versions refuse claims of the wrong type themselves
    try:
        tell("python-jose", form, expected, jose_jwt.encode(claims, KEY, algorithm=header["alg"], headers=extra or None))
    except Exception:
        pass
    tell("Authlib", form, expected, authlib_jwt.encode(header, dict(claims), KEY))
    if not any(isinstance(value, datetime) for value in claims.values()):
        key = OctKey.import_key(KEY)
        tell("joserfc", form, expected, joserfc_jwt.encode(header, dict(claims), key, algorithms=[header["alg"]]))


by_all("sub and exp", "ok", {"sub": "alice", "exp": LATER})
by_all("exp as a float", "ok", {"sub": "alice", "exp": LATER + 0.5})
by_all("aud, iss, iat, nbf, jti", "ok", {"sub": "alice", "exp": LATER, "aud": ["x"], "iss": "y", "iat": LATER - 300, "nbf": LATER - 300, "jti": "1"})
by_all("kid", "ok", {"sub": "alice", "exp": LATER}, kid="main")
by_all("sub is a number", "`sub` is a number", {"sub": 17, "exp": LATER})
by_all("no exp", "`exp` is missing", {"sub": "alice"})
by_all("exp is a text", "`exp` is a text", {"sub": "alice", "exp": str(LATER)})
by_all("milliseconds", "`exp` is in milliseconds", {"sub": "alice", "exp": LATER * 1000})
by_all("expired", "it expired", {"sub": "alice", "exp": LATER - 600})
by_all("HS512", "`alg` is HS512", {"sub": "alice", "exp": LATER}, alg="HS512")
by_all("nbf tomorrow", "`nbf` lies", {"sub": "alice", "exp": LATER, "nbf": LATER + 86400})
by_all("another user", "no account", {"sub": "nobody", "exp": LATER})
tell("PyJWT", "a datetime", "ok", jwt.encode({"sub": "alice", "exp": AWARE}, KEY, algorithm="HS256"))
tell("python-jose", "a datetime", "ok", jose_jwt.encode({"sub": "alice", "exp": AWARE}, KEY, algorithm="HS256"))
tell("PyJWT", "another key", "another key", jwt.encode({"sub": "alice", "exp": LATER}, KEY[::-1], algorithm="HS256"))
tell("PyJWT", "the key as hex", "hexadecimal", jwt.encode({"sub": "alice", "exp": LATER}, bytes.fromhex(KEY), algorithm="HS256"))
tell("PyJWT", "the key with a line end", "a line end", jwt.encode({"sub": "alice", "exp": LATER}, KEY + "\n", algorithm="HS256"))
for form, expected, key in [
    ("from_password", "ok", jwk.JWK.from_password(KEY)),
    ("k is the secret itself", "base64", jwk.JWK(kty="oct", k=KEY)),
]:
    token = jwcrypto_jwt.JWT(header={"alg": "HS256"}, claims={"sub": "alice", "exp": LATER})
    token.make_signed_token(key)
    tell("jwcrypto", form, expected, token.serialize())
