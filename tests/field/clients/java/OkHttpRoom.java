import okhttp3.*;

class OkHttpRoom extends WebSocketListener {
    @Override public void onMessage(WebSocket socket, String text) {
        var answer = Room.reply(text);
        if (answer != null) socket.send(answer);
    }

    @Override public void onClosing(WebSocket socket, int code, String reason) { Room.end("closed " + code + " " + reason); }

    @Override public void onFailure(WebSocket socket, Throwable error, Response response) { Room.end("refused " + error.getMessage()); }

    public static void main(String[] arguments) {
        new OkHttpClient().newWebSocket(new Request.Builder().url(Room.URL.toString()).build(), new OkHttpRoom());
    }
}
