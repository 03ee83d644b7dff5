// CPU time of a server for each request, beside servers written by hand over epoll and io_uring.
//
// The server is a process of its own on one processor, the load comes from this one on another:
// 64 connections, each with one request under way. Read the ratio: how many requests for each
// second of the server's CPU time, compared with the one by hand over epoll in the same round; with
// idle connections, compared with the same server without them.
#include <cstddef>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "bench_tools.hpp"
#include "reactor_by_hand.hpp"
#include "reactor_load.hpp"
#include "reactor_server.hpp"

namespace {

using namespace bench;

constexpr std::size_t busy = 64;
constexpr std::size_t many_idle = 10'000;
constexpr const char* unit = "thousands of requests for a second of the server's CPU time";

struct Contender {
    std::string name;
    Serve serve;
};

std::vector<Contender> contenders() {
    std::vector<Contender> all{{"epoll by hand", serve_over_epoll}};
#if defined(FLOWCORO_WITH_LIBURING)
    if (why_not("io_uring").empty()) {
        all.push_back({"io_uring by hand", serve_over_io_uring});
    }
#else
    std::printf("reactor_bench: no io_uring by hand, liburing is not installed\n");
#endif
    for (const std::string& name : available()) {
        all.push_back({name + " reactor", [name](int listener, const Work& work) {
                           serve_over_reactor(name, listener, work);
                       }});
    }
    return all;
}

}  // namespace

int main(int count, char** values) {
    const Arguments arguments = parse(count, values);
    const std::size_t requests = arguments.quick ? 2'000 : 100'000;
    for (const Work& work : {http_hello(), echo()}) {
        if (!is_wanted(arguments, work.title)) {
            continue;
        }
        Comparison comparison;
        for (const Contender& each : contenders()) {
            comparison.add(each.name, [&work, requests, serve = each.serve] {
                return requests_a_second(serve, work, requests, busy, 0);
            });
        }
        comparison.run(arguments.rounds);
        comparison.print(work.title, unit, 1e3);
    }
    const Work work = http_hello();
    const std::string title = std::string(work.title) + " beside idle connections";
    if (is_wanted(arguments, title)) {
        const std::size_t idle = arguments.quick ? 100 : many_idle;
        allow_descriptors(idle + busy + 100);
        Comparison comparison;
        std::size_t alone = 0;
        for (const Contender& each : contenders()) {
            for (const std::size_t besides : {std::size_t{0}, idle}) {
                comparison.add(
                    each.name + ", " + std::to_string(besides) + " idle",
                    [&work, requests, besides, serve = each.serve] {
                        return requests_a_second(serve, work, requests, busy, besides);
                    },
                    alone);
            }
            alone += 2;
        }
        comparison.run(arguments.rounds);
        comparison.print(title.c_str(), unit, 1e3);
    }
    return 0;
}
