#include "room.hpp"
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/websocket.hpp>

namespace beast = boost::beast;
namespace net = boost::asio;

int main() {
    auto [host, port, path] = room_address();
    net::io_context io;
    net::ip::tcp::resolver resolver(io);
    beast::websocket::stream<net::ip::tcp::socket> socket(io);
    net::connect(socket.next_layer(), resolver.resolve(host, port));
    beast::error_code error;
    beast::websocket::response_type response;
    socket.handshake(response, host + ":" + port, path, error);
    if (error) {
        std::cout << "refused " << response.result_int() << " " << error.message() << std::endl;
        return 1;
    }
    for (;;) {
        beast::flat_buffer buffer;
        socket.read(buffer, error);
        if (error) break;
        auto answer = reply(beast::buffers_to_string(buffer.data()));
        if (!answer.empty()) socket.write(net::buffer(answer));
    }
    std::cout << "closed " << socket.reason().code << " " << socket.reason().reason << std::endl;
}
