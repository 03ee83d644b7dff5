// Nanoseconds to find a route, in a table of 200 of them such as an application has.
//
// Each row is the median of eleven runs and, in brackets, their span. Paths of a row take turns, so
// that neither the processor's caches nor its guesses know one path only.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "bench_tools.hpp"
#include "flowcoro_http/route_table.hpp"

namespace {

using namespace flowcoro_http;

constexpr std::size_t resources = 40;  // with five routes each

std::string resource(std::size_t index) {
    constexpr std::array<std::string_view, 8> words = {
        "users", "orders", "items", "invoices", "reports", "sessions", "comments", "files"};
    const std::string word(words[index % words.size()]);
    return index < words.size() ? word : word + "-" + std::to_string(index / words.size());
}

RouteTable table_of_an_application() {
    RouteTable table;
    std::size_t value = 0;
    const auto add = [&](std::string_view method, const std::vector<Segment>& segments) {
        table.add(segments, method, value++);
    };
    const Segment id = Segment::parameter(Converter::integer);
    for (std::size_t i = 0; i < resources; ++i) {
        const std::string name = resource(i);
        const Segment root = Segment::literal(name);
        add("GET", {root});
        add("POST", {root});
        add("GET", {root, id});
        add("GET", {root, id, Segment::literal("history")});
        add("GET", {root, Segment::parameter(Converter::text), Segment::literal("files"),
                    Segment::parameter(Converter::path)});
    }
    return table;
}

// Paths of every resource.
std::vector<std::string> paths(std::string_view after) {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < resources; ++i) {
        std::string& path = all.emplace_back("/");
        path.append(resource(i)).append(after);
    }
    return all;
}

void measure(const bench::Arguments& arguments, const RouteTable& table, const char* name,
             const std::vector<std::string>& all, Outcome expected) {
    const std::size_t laps = arguments.quick ? 10 : 20'000;
    Found found;
    std::vector<double> times;
    std::size_t sum = 0;
    for (std::size_t round = 0; round < arguments.rounds; ++round) {
        const double begin = bench::seconds_of(CLOCK_MONOTONIC);
        for (std::size_t lap = 0; lap < laps; ++lap) {
            for (const std::string& path : all) {
                bench::check(table.match(methods::get, path, found) == expected, "match");
                sum += found.value();
            }
        }
        const double seconds = bench::seconds_of(CLOCK_MONOTONIC) - begin;
        times.push_back(seconds * 1e9 / static_cast<double>(laps * all.size()));
    }
    const bench::Spread spread = bench::spread_of(times);
    std::printf("  %-34s %6.1f [%.1f-%.1f]\n", name, spread.median, spread.low, spread.high);
    static_cast<volatile std::size_t&>(sum) = sum;
}

}  // namespace

int main(int count, char** values) {
    const bench::Arguments arguments = bench::parse(count, values);
    const RouteTable table = table_of_an_application();
    std::printf("route of 200, ns\n");
    const auto row = [&](const char* name, std::string_view after, Outcome expected) {
        measure(arguments, table, name, paths(after), expected);
    };
    row("/users", "", Outcome::found);
    row("/users/{id:int}", "/4711", Outcome::found);
    row("/users/{id:int}/history", "/4711/history", Outcome::found);
    row("/users/{name}/files/{rest:path}", "/someone/files/a/b/c.txt", Outcome::found);
    row("the same, percent-encoded", "/some%20one/files/a%2Fb/c%C3%A9.txt", Outcome::found);
    row("no route", "/4711/nothing/here", Outcome::missed);
    return 0;
}
