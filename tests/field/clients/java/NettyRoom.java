import io.netty.bootstrap.Bootstrap;
import io.netty.channel.*;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.handler.codec.http.*;
import io.netty.handler.codec.http.websocketx.*;

class NettyRoom extends SimpleChannelInboundHandler<WebSocketFrame> {
    @Override protected void channelRead0(ChannelHandlerContext context, WebSocketFrame frame) {
        if (frame instanceof TextWebSocketFrame) {
            var answer = Room.reply(((TextWebSocketFrame) frame).text());
            if (answer != null) context.writeAndFlush(new TextWebSocketFrame(answer));
        } else if (frame instanceof CloseWebSocketFrame) {
            var close = (CloseWebSocketFrame) frame;
            Room.end("closed " + close.statusCode() + " " + close.reasonText());
        }
    }

    @Override public void exceptionCaught(ChannelHandlerContext context, Throwable error) { Room.end("refused " + error.getMessage()); }

    public static void main(String[] arguments) {
        var handshaker = WebSocketClientHandshakerFactory.newHandshaker(
            Room.URL, WebSocketVersion.V13, null, false, new DefaultHttpHeaders(), 1 << 17);
        new Bootstrap().group(new NioEventLoopGroup(1)).channel(NioSocketChannel.class).handler(new ChannelInitializer<Channel>() {
            @Override protected void initChannel(Channel channel) {
                channel.pipeline().addLast(new HttpClientCodec(), new HttpObjectAggregator(1 << 16),
                    new WebSocketClientProtocolHandler(handshaker, false), new WebSocketFrameAggregator(1 << 17), new NettyRoom());
            }
        }).connect(Room.URL.getHost(), Room.URL.getPort());
    }
}
