#include "room.hpp"
#include <Poco/Net/HTTPClientSession.h>
#include <Poco/Net/HTTPRequest.h>
#include <Poco/Net/HTTPResponse.h>
#include <Poco/Net/NetException.h>
#include <Poco/Net/WebSocket.h>

using namespace Poco::Net;

int main() {
    auto [host, port, path] = room_address();
    HTTPClientSession session(host, std::stoi(port));
    HTTPRequest request(HTTPRequest::HTTP_GET, path, HTTPRequest::HTTP_1_1);
    HTTPResponse response;
    try {
        WebSocket socket(session, request, response);
        for (;;) {
            Poco::Buffer<char> buffer(0);
            int flags;
            int length = socket.receiveFrame(buffer, flags);
            int opcode = flags & WebSocket::FRAME_OP_BITMASK;
            if (opcode == WebSocket::FRAME_OP_PING) {
                socket.sendFrame(buffer.begin(), length, WebSocket::FRAME_FLAG_FIN | WebSocket::FRAME_OP_PONG);
            } else if (opcode == WebSocket::FRAME_OP_CLOSE || length == 0) {
                auto bytes = reinterpret_cast<unsigned char *>(buffer.begin());
                std::cout << "closed " << bytes[0] * 256 + bytes[1] << " " << std::string(buffer.begin() + 2, length - 2) << std::endl;
                return 0;
            } else {
                auto answer = reply(std::string(buffer.begin(), length));
                if (!answer.empty()) socket.sendFrame(answer.data(), answer.size());
            }
        }
    } catch (WebSocketException &error) {
        std::cout << "refused " << response.getStatus() << " " << error.displayText() << std::endl;
    }
}
