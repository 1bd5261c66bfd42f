// Tokens by golang-jwt; see make.py.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/golang-jwt/jwt"
)

func tell(form, expected string, method jwt.SigningMethod, claims jwt.Claims, key []byte) {
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		panic(err)
	}
	fmt.Printf("golang-jwt\t%s\t%s\t%s\n", form, expected, token)
}

func main() {
	key, later := []byte(os.Getenv("JWT_SECRET_KEY")), time.Now().Add(5*time.Minute)
	hs256 := jwt.SigningMethodHS256
	tell("MapClaims with Unix()", "ok", hs256, jwt.MapClaims{"sub": "alice", "exp": later.Unix()}, key)
	tell("RegisteredClaims", "ok", hs256, jwt.RegisteredClaims{Subject: "alice", ExpiresAt: jwt.NewNumericDate(later)}, key)
	tell("StandardClaims", "ok", hs256, jwt.StandardClaims{Subject: "alice", ExpiresAt: later.Unix()}, key)
	tell("StandardClaims with times", "ok", hs256, jwt.StandardClaims{Subject: "alice", ExpiresAt: later.Unix(), IssuedAt: time.Now().Unix(), NotBefore: time.Now().Unix(), Id: "1"}, key)
	tell("UnixMilli()", "`exp` is in milliseconds", hs256, jwt.MapClaims{"sub": "alice", "exp": later.UnixMilli()}, key)
	tell("UnixNano()", "`exp` is in nanoseconds", hs256, jwt.MapClaims{"sub": "alice", "exp": later.UnixNano()}, key)
	tell("a time.Time", "`exp` is a text", hs256, jwt.MapClaims{"sub": "alice", "exp": later}, key)
	tell("no exp", "`exp` is missing", hs256, jwt.StandardClaims{Subject: "alice"}, key)
	tell("an int as sub", "`sub` is a number", hs256, jwt.MapClaims{"sub": 17, "exp": later.Unix()}, key)
	tell("HS512", "`alg` is HS512", jwt.SigningMethodHS512, jwt.MapClaims{"sub": "alice", "exp": later.Unix()}, key)
}
