// ServerShared: what all connections of a server have in common.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "flowcoro_http/date_field.hpp"
#include "flowcoro_http/deadlines.hpp"
#include "flowcoro_http/request_head.hpp"

namespace flowcoro_http {

// Belongs to the thread of its connections, but for `held`.
struct ServerShared {
    struct Limits {
        HeadLimits head;
        std::size_t held = 64 * 1024;  // of what a peer sends ahead; bytes
        // Of a body that nobody wants, read to keep the connection; bytes.
        std::uint64_t unwanted = 16 * 1024 * 1024;
        std::size_t memory = std::size_t{256} << 20;  // bytes held for all connections
        Deadlines::Time longest_linger = 30'000'000'000;
    };

    Limits limits;
    RequestHead parser{limits.head};
    DateField date;
    Deadlines deadlines;
    std::string scratch;       // for heads that the wire has no room for
    Deadlines::Time now = 0;   // set whenever something comes from outside
    std::int64_t seconds = 0;  // since 1970, set likewise
    // Bytes, in all connections. Atomic, since what a request has left is given back when its
    // object is destroyed: one in a garbage cycle by whatever thread collects it.
    std::atomic<std::size_t> held{0};
    std::uint64_t requests = 0;
    bool draining = false;
    bool parsing = false;  // `parser` has a head that is in use
};

}  // namespace flowcoro_http
