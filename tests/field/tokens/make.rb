# Tokens by ruby-jwt; see make.py.
require "jwt"

KEY = ENV.fetch("JWT_SECRET_KEY")
LATER = Time.now.to_i + 300

def tell(form, expected, token) = puts(["ruby-jwt", form, expected, token].join("\t"))

tell("sub and exp", "ok", JWT.encode({ sub: "alice", exp: LATER }, KEY, "HS256"))
tell("no algorithm", "ok", JWT.encode({ sub: "alice", exp: LATER }, KEY))
tell("exp as a float", "ok", JWT.encode({ sub: "alice", exp: Time.now.to_f + 300 }, KEY, "HS256"))
tell("sub is a number", "`sub` is a number", JWT.encode({ sub: 17, exp: LATER }, KEY, "HS256"))
tell("the key decoded", "hexadecimal", JWT.encode({ sub: "alice", exp: LATER }, [KEY].pack("H*"), "HS256"))
