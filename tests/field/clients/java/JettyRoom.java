import org.eclipse.jetty.websocket.api.WebSocketAdapter;
import org.eclipse.jetty.websocket.client.WebSocketClient;

public class JettyRoom extends WebSocketAdapter {
    @Override public void onWebSocketText(String text) {
        var answer = Room.reply(text);
        if (answer != null) getRemote().sendStringByFuture(answer);
    }

    @Override public void onWebSocketClose(int code, String reason) { Room.end("closed " + code + " " + reason); }

    @Override public void onWebSocketError(Throwable error) { System.out.println("error " + error.getMessage()); }

    public static void main(String[] arguments) throws Exception {
        var client = new WebSocketClient();
        client.getPolicy().setMaxTextMessageSize(1 << 17);
        client.start();
        try {
            client.connect(new JettyRoom(), Room.URL).get();
        } catch (java.util.concurrent.ExecutionException error) {
            Room.end("refused " + error.getMessage());
        }
        Thread.currentThread().join();
    }
}
