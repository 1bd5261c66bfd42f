import javax.websocket.*;

@ClientEndpoint
public class TomcatRoom {
    @OnMessage public void received(String text, Session session) throws Exception {
        var answer = Room.reply(text);
        if (answer != null) session.getBasicRemote().sendText(answer);
    }

    @OnClose public void closed(CloseReason reason) { Room.end("closed " + reason.getCloseCode().getCode() + " " + reason.getReasonPhrase()); }

    public static void main(String[] arguments) throws Exception {
        var container = ContainerProvider.getWebSocketContainer();
        container.setDefaultMaxTextMessageBufferSize(1 << 17);
        try {
            container.connectToServer(TomcatRoom.class, Room.URL);
        } catch (DeploymentException error) {
            Room.end("refused " + error.getMessage());
        }
        Thread.currentThread().join();
    }
}
