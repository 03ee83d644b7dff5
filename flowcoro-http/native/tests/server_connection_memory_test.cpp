// Connections without memory: whichever allocation fails, the connection is cut, or does without.
#include <cstdlib>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"
#include "flowcoro_http/server_connection.hpp"

namespace {

// How many allocations are left; negative: as many as you like.
long left = -1;
bool has_failed = false;

void* allocate(std::size_t size) {
    if (left == 0) {
        has_failed = true;
        throw std::bad_alloc();
    }
    if (left > 0) {
        --left;
    }
    if (void* const found = std::malloc(size == 0 ? 1 : size)) {
        return found;
    }
    throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t size) {
    return allocate(size);
}

void operator delete(void* memory) noexcept {
    std::free(memory);
}

void operator delete(void* memory, std::size_t /*size*/) noexcept {
    std::free(memory);
}

namespace {

using namespace flowcoro_http;

// Both ends, with no memory of their own.
struct Ends final : Wire, Responder {
    char* prepare(std::size_t /*size*/) noexcept override { return nullptr; }

    void commit(std::size_t /*size*/) noexcept override { std::abort(); }

    void write(std::string_view bytes) noexcept override {
        broken = broken || aborted;
        written += bytes.size();
    }

    [[nodiscard]] bool is_full() const noexcept override { return false; }

    [[nodiscard]] std::size_t unsent() const noexcept override { return 0; }

    void pause_reading() noexcept override {}

    void resume_reading() noexcept override {}

    void shutdown_write() noexcept override {}

    void close() noexcept override { closed = true; }

    void abort() noexcept override { aborted = true; }

    void request(const RequestHead& /*head*/, std::string_view /*body*/,
                 bool /*whole*/) noexcept override {
        ++requests;
        if (answers) {
            http->respond(200, fields, "hello");
        }
    }

    void body(std::string_view /*piece*/) noexcept override {}

    void body_over() noexcept override {}

    void gone() noexcept override {}

    void writable() noexcept override {}

    void refused(const Refusal& /*why*/) noexcept override {}

    void behind() noexcept override { is_behind = true; }

    ServerConnection* http = nullptr;
    ResponseFields fields;
    std::size_t written = 0;
    int requests = 0;
    bool answers = true;
    bool is_behind = false;
    bool closed = false;
    bool aborted = false;
    bool broken = false;
};

// With so many allocations; whether that was enough.
bool run(const std::vector<std::string>& pieces, bool answers, long allocations) {
    ServerShared shared;
    Ends ends;
    ends.answers = answers;
    has_failed = false;
    {
        ServerConnection http(shared, ends, ends);
        ends.http = &http;
        left = allocations;
        http.connected();
        for (const std::string& each : pieces) {
            if (!ends.aborted && !ends.closed) {
                http.received(each);
            }
        }
        if (!answers) {
            http.respond(200, ends.fields, "hello");
            http.proceed();
        }
        http.timed_out(http.wait());
        left = -1;
        CHECK(!has_failed || ends.aborted || ends.written != 0);
        CHECK(!ends.broken);
        http.lost();
    }
    CHECK(shared.held == 0 && shared.deadlines.next() == Deadlines::never);
    return !has_failed;
}

TEST(whichever_allocation_fails) {
    const std::string get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const std::string long_get = "GET / HTTP/1.1\r\nHost: " + std::string(200, 'a') + "\r\n\r\n";
    const std::vector<std::vector<std::string>> scripts = {
        {get, get},
        {long_get.substr(0, 100), long_get.substr(100, 50), long_get.substr(150)},
        {long_get.substr(0, 100)},
        {get + long_get + get.substr(0, 20), get.substr(20)},
        {"nonsense\r\n"},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "nonsense"},
    };
    for (const auto& each : scripts) {
        for (const bool answers : {true, false}) {
            long allocations = 0;
            while (!run(each, answers, allocations)) {
                ++allocations;
                CHECK(allocations < 100);
            }
        }
    }
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
