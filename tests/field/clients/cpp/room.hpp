// What all clients in C++ share: where the room is, and what they answer there.
#pragma once
#include <cstdlib>
#include <iostream>
#include <regex>
#include <string>

struct Address {
    std::string host, port, path;
};

inline const std::string room_url = std::getenv("ROOM_URL");

inline Address room_address() {
    std::smatch part;
    std::regex_match(room_url, part, std::regex("ws://([^:]+):(\\d+)(/.*)"));
    return {part[1], part[2], part[3]};
}

// Prints a message, and returns the answer to it, or nothing.
inline std::string reply(const std::string &text) {
    std::cout << text << std::endl;
    if (text.find("\"type\":\"auth_required\"") != text.npos)
        return "{\"type\":\"auth_token\",\"token\":\"" + std::string(std::getenv("TOKEN")) + "\"}";
    if (text.rfind("{\"type\":\"offer\"", 0) != 0) return "";
    auto from = text.find("\"from\":\"") + 7;
    return "{\"type\":\"answer\",\"answer\":{},\"to\":" + text.substr(from, text.find('"', from + 1) + 1 - from) + "}";
}
