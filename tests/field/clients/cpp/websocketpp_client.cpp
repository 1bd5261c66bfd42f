#include "room.hpp"
#include <websocketpp/client.hpp>
#include <websocketpp/config/asio_no_tls_client.hpp>

using Client = websocketpp::client<websocketpp::config::asio_client>;

int main() {
    Client client;
    client.clear_access_channels(websocketpp::log::alevel::all);
    client.init_asio();
    client.set_message_handler([&](auto handle, Client::message_ptr message) {
        auto answer = reply(message->get_payload());
        if (!answer.empty()) client.send(handle, answer, websocketpp::frame::opcode::text);
    });
    client.set_close_handler([&](auto handle) {
        auto connection = client.get_con_from_hdl(handle);
        std::cout << "closed " << connection->get_remote_close_code() << " " << connection->get_remote_close_reason() << std::endl;
    });
    client.set_fail_handler([&](auto handle) {
        auto connection = client.get_con_from_hdl(handle);
        std::cout << "refused " << connection->get_response_code() << " " << connection->get_ec().message() << std::endl;
    });
    websocketpp::lib::error_code error;
    client.connect(client.get_connection(room_url, error));
    client.run();
}
