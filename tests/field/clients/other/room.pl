:- use_module(library(http/websocket)).
:- use_module(library(http/http_stream)). % without it the handshake is HTTP/1.0
:- use_module(library(http/json)).

main :-
    getenv('ROOM_URL', Url),
    http_open_websocket(Url, Socket, []),
    take_part(Socket).

take_part(Socket) :-
    ws_receive(Socket, Message),
    (   Message.opcode == close
    ->  format("closed ~w~n", [Message.data])
    ;   format("~w~n", [Message.data]),
        flush_output,
        atom_json_dict(Message.data, Content, []),
        ignore(answer(Socket, Content)),
        take_part(Socket)
    ).

answer(Socket, Content) :-
    Content.type == "auth_required", !,
    getenv('TOKEN', Token),
    ws_send(Socket, json(_{type: auth_token, token: Token})).
answer(Socket, Content) :-
    Content.type == "offer",
    ws_send(Socket, json(_{type: answer, answer: _{}, to: Content.from})).
