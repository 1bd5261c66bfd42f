int main() {
    Protocols.WebSocket.Connection socket = Protocols.WebSocket.Connection();
    socket->onmessage = lambda(Protocols.WebSocket.Frame frame) {
        write("%s\n", frame->text);
        mapping message = Standards.JSON.decode(frame->text);
        if (message->type == "auth_required") socket->send_text(Standards.JSON.encode((["type": "auth_token", "token": getenv("TOKEN")])));
        if (message->type == "offer") socket->send_text(Standards.JSON.encode((["type": "answer", "answer": ([]), "to": message->from])));
    };
    socket->onclose = lambda(mixed reason) {
        write("closed %O\n", reason);
        exit(0);
    };
    if (!socket->connect(Standards.URI(getenv("ROOM_URL")))) exit(1, "refused\n");
    return -1;
}
