// What the servers of the reactor's benchmark are asked for.
#pragma once

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

namespace bench {

inline constexpr std::size_t buffer_size = 4096;

struct Work {
    const char* title;
    std::string request;
    std::string response;  // empty: the request comes back

    [[nodiscard]] std::size_t response_size() const noexcept {
        return response.empty() ? request.size() : response.size();
    }

    // Whether a whole request lies there. Both kinds come in one piece, here.
    [[nodiscard]] bool is_whole(const std::byte* from, std::size_t size) const noexcept {
        return response.empty() || (size >= 4 && std::memcmp(from + size - 4, "\r\n\r\n", 4) == 0);
    }
};

inline Work http_hello() {
    return {"HTTP hello",
            "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\n"
            "Hello, world!"};
}

inline Work echo() {
    return {"echo of 1 KiB", std::string(1024, 'e'), ""};
}

}  // namespace bench
