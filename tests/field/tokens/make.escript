#!/usr/bin/env escript
%% Tokens by erlang-jose; see make.py.
main(_) ->
    {ok, _} = application:ensure_all_started(jose),
    Text = list_to_binary(os:getenv("JWT_SECRET_KEY")),
    Key = jose_jwk:from_oct(Text),
    Hs256 = #{<<"alg">> => <<"HS256">>},
    Later = erlang:system_time(second) + 300,
    Claims = #{<<"sub">> => <<"alice">>, <<"exp">> => Later},
    tell("from_oct", "ok", Key, Hs256, Claims),
    tell("with typ", "ok", Key, Hs256#{<<"typ">> => <<"JWT">>}, Claims),
    tell("system_time() is nanoseconds", "`exp` is in nanoseconds", Key, Hs256, Claims#{<<"exp">> := erlang:system_time()}),
    tell("sub is a number", "`sub` is a number", Key, Hs256, Claims#{<<"sub">> := 17}),
    tell("HS512", "`alg` is HS512", Key, #{<<"alg">> => <<"HS512">>}, Claims),
    tell("a JWK with the secret as k", "base64", jose_jwk:from_map(#{<<"kty">> => <<"oct">>, <<"k">> => Text}), Hs256, Claims).

tell(Form, Expected, Key, Header, Claims) ->
    {_, Token} = jose_jws:compact(jose_jwt:sign(Key, Header, Claims)),
    io:format("erlang-jose\t~s\t~s\t~s~n", [Form, Expected, Token]).
