// Tokens by the libraries of Node; see make.py.

import { createSigner } from 'fast-jwt';
import * as jose from 'jose';
import jwt from 'jsonwebtoken';
import simple from 'jwt-simple';

const KEY = process.env.JWT_SECRET_KEY;
const BYTES = new TextEncoder().encode(KEY);
const LATER = Math.floor(Date.now() / 1000) + 300;
const tell = (maker, form, expected, token) => console.log([maker, form, expected, token].join('\t'));

const signed = (claims, key = BYTES, alg = 'HS256') => new jose.SignJWT(claims).setProtectedHeader({ alg }).sign(key);
tell('jose', 'setExpirationTime', 'ok', await new jose.SignJWT({}).setProtectedHeader({ alg: 'HS256' }).setSubject('alice').setExpirationTime('5m').sign(BYTES));
tell('jose', 'a Date', 'ok', await new jose.SignJWT({ sub: 'alice' }).setProtectedHeader({ alg: 'HS256' }).setExpirationTime(new Date(LATER * 1000)).sign(BYTES));
tell('jose', 'sub is a number', '`sub` is a number', await signed({ sub: 17, exp: LATER }));
tell('jose', 'milliseconds', '`exp` is in milliseconds', await signed({ sub: 'alice', exp: Date.now() + 300_000 }));
tell('jose', 'HS512', '`alg` is HS512', await signed({ sub: 'alice', exp: LATER }, BYTES, 'HS512'));
tell('jose', 'importJWK with the secret as k', 'base64', await signed({ sub: 'alice', exp: LATER }, await jose.importJWK({ kty: 'oct', k: KEY }, 'HS256')));
tell('jsonwebtoken', 'expiresIn "5m"', 'ok', jwt.sign({ sub: 'alice' }, KEY, { expiresIn: '5m' }));
tell('jsonwebtoken', 'expiresIn 300', 'ok', jwt.sign({ sub: 'alice' }, KEY, { expiresIn: 300 }));
tell('jsonwebtoken', 'expiresIn "300" is milliseconds', 'it expired', jwt.sign({ sub: 'alice' }, KEY, { expiresIn: '300' }));
tell('jsonwebtoken', 'no expiresIn', '`exp` is missing', jwt.sign({ sub: 'alice' }, KEY));
tell('jsonwebtoken', 'the key from base64', 'base64', jwt.sign({ sub: 'alice', exp: LATER }, Buffer.from(KEY, 'base64')));
tell('jsonwebtoken', 'notBefore', 'ok', jwt.sign({ sub: 'alice' }, KEY, { expiresIn: '5m', notBefore: 2 }));
tell('fast-jwt', 'expiresIn "5m"', 'ok', createSigner({ key: KEY, expiresIn: '5m' })({ sub: 'alice' }));
tell('fast-jwt', 'expiresIn 300 is milliseconds', 'it expired', createSigner({ key: KEY, expiresIn: 300 })({ sub: 'alice' }));
tell('fast-jwt', 'expiresIn 300000', 'ok', createSigner({ key: KEY, expiresIn: 300_000 })({ sub: 'alice' }));
tell('jwt-simple', 'sub and exp', 'ok', simple.encode({ sub: 'alice', exp: LATER }, KEY));
tell('jwt-simple', 'HS384', '`alg` is HS384', simple.encode({ sub: 'alice', exp: LATER }, KEY, 'HS384'));
