// The pools. docs/guide/cpp.md shows the marked parts.
#include <cstddef>
#include <cstring>
#include <memory_resource>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/memory/buffer_pool.hpp"
#include "flowcoro/memory/object_pool.hpp"
#include "flowcoro/memory/slab_allocator.hpp"

namespace {

// --8<-- [start:objects]
struct Request {
    explicit Request(std::string of) : path(std::move(of)) {}

    std::string path;
};

flowcoro::memory::ObjectPool<Request> requests;

std::size_t serve(std::string path) {
    // Lives in a block of the pool, which it gives back at the end.
    const auto request = requests.make(std::move(path));
    return request->path.size();
}

// --8<-- [end:objects]

// --8<-- [start:buffers]
// At most 16 buffers of 4 KiB; copies of a Buffer share the bytes.
flowcoro::memory::BufferPool buffers(4096, 16);

flowcoro::memory::Buffer receive() {
    flowcoro::memory::Buffer buffer = buffers.try_acquire();
    if (buffer) {  // empty when all 16 are in use
        std::memset(buffer.bytes().data(), 0, buffer.bytes().size());
    }
    return buffer;
}

// --8<-- [end:buffers]

// --8<-- [start:slabs]
std::size_t sum_of_squares(std::size_t count,
                           flowcoro::memory::SlabAllocator& slabs) {
    std::pmr::vector<std::size_t> squares(&slabs);
    for (std::size_t i = 1; i <= count; ++i) {
        squares.push_back(i * i);
    }
    std::size_t sum = 0;
    for (const std::size_t square : squares) {
        sum += square;
    }
    return sum;
}

// --8<-- [end:slabs]

TEST(objects) {
    CHECK(serve("/notes/1") == 8);
    CHECK(serve("/") == 1);
    CHECK(requests.stats().live == 0);
    CHECK(requests.stats().peak >= 1);
}

TEST(buffers) {
    std::vector<flowcoro::memory::Buffer> all;
    while (flowcoro::memory::Buffer buffer = receive()) {
        all.push_back(std::move(buffer));
    }
    CHECK(all.size() == 16);
    const flowcoro::memory::Buffer shared = all[0];
    CHECK(shared.references() == 2);
    all.clear();
    CHECK(shared.references() == 1);
    CHECK(buffers.stats().live == 1);
}

TEST(slabs) {
    flowcoro::memory::SlabAllocator slabs;
    CHECK(sum_of_squares(10, slabs) == 385);
    CHECK(slabs.stats().live == 0);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
