// Routes: which one wins, what its parameters are, what else a path takes, and paths that cannot be
// read. What random tables do is compared with a plain matcher in ../fuzz.
#include <array>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "check.hpp"
#include "failing_new.hpp"
#include "flowcoro_http/route_table.hpp"

namespace {

using namespace flowcoro_http;
using namespace std::string_view_literals;

constexpr std::array converter_names = {
    std::pair{"int"sv, Converter::integer}, std::pair{"uuid"sv, Converter::uuid},
    std::pair{"float"sv, Converter::real}, std::pair{"str"sv, Converter::text},
    std::pair{"path"sv, Converter::path}};

Converter converter_of(std::string_view name) {
    for (const auto& [each, converter] : converter_names) {
        if (each == name) {
            return converter;
        }
    }
    return Converter::text;
}

// "pre{int}post", or a literal.
Segment segment_of(std::string_view text) {
    const std::size_t open = text.find('{');
    if (open == std::string_view::npos) {
        return Segment::literal(text);
    }
    const std::size_t close = text.find('}');
    return Segment::parameter(converter_of(text.substr(open + 1, close - open - 1)),
                              text.substr(0, open), text.substr(close + 1));
}

std::vector<Segment> segments_of(std::string_view path) {
    std::vector<Segment> segments;
    while (!path.empty()) {
        path.remove_prefix(1);
        const std::size_t end = std::min(path.find('/'), path.size());
        segments.push_back(segment_of(path.substr(0, end)));
        path.remove_prefix(end);
    }
    return segments;
}

// Routes as "GET /users/{int}"; what is found is told in words.
class Routes {
  public:
    explicit Routes(std::vector<std::string> routes) {
        for (std::string& route : routes) {
            CHECK(!add(std::move(route)));
        }
    }

    std::optional<std::size_t> add(std::string route) {
        const std::size_t space = route.find(' ');
        const auto there = table.add(segments_of(std::string_view(route).substr(space + 1)),
                                     std::string_view(route).substr(0, space), routes_.size());
        routes_.push_back(std::move(route));
        return there;
    }

    // "GET /users/{int} 42", "allowed GET HEAD", or why the path cannot be read. The path lies in
    // memory of its own, so that a sanitizer sees who reads beyond it.
    std::string match(std::string_view method, std::string_view path) {
        const auto copy = std::make_unique<char[]>(path.size());
        path.copy(copy.get(), path.size());
        switch (table.match(table.method_id(method), {copy.get(), path.size()}, found_)) {
            case Outcome::found:
                return told();
            case Outcome::missed:
                return "allowed" + names(found_.allowed());
            default:
                return words(found_.fault());
        }
    }

    std::string get(std::string_view path) { return match("GET", path); }

    RouteTable table;

  private:
    std::string told() const {
        std::string text = routes_[found_.value()];
        for (std::size_t i = 0; i < found_.parameter_count(); ++i) {
            text.append(" ").append(found_.parameter(i).text);
        }
        return text;
    }

    std::string names(MethodSet set) const {
        std::string text;
        for (std::size_t i = 0; i < table.method_count(); ++i) {
            const auto id = static_cast<MethodId>(i);
            if (set.has(id)) {
                text.append(" ").append(table.method_name(id));
            }
        }
        return text;
    }

    std::vector<std::string> routes_;
    Found found_;
};

struct Example {
    std::string_view path;
    std::string_view outcome;
};

void check_all(Routes& routes, const std::vector<Example>& examples) {
    for (const Example& each : examples) {
        const std::string outcome = routes.get(each.path);
        if (outcome != each.outcome) {
            std::printf("        of: %.*s\n        is: %s\n", static_cast<int>(each.path.size()),
                        each.path.data(), outcome.c_str());
        }
        CHECK(outcome == each.outcome);
    }
}

TEST(the_most_specific_route_wins) {
    Routes routes({"GET /", "GET /users", "GET /users/{str}", "GET /users/{int}", "GET /users/me",
                   "GET /users/{int}/files/{path}", "GET /v1/models/{str}",
                   "GET /v1/models/{str}:predict", "GET /v1/models/m-{str}", "GET /price/{float}",
                   "GET /keys/{uuid}", "GET /caf\u00e9", "GET /dir/"});
    check_all(routes, {
                          {"/", "GET /"},
                          {"/users", "GET /users"},
                          {"/users/me", "GET /users/me"},
                          {"/users/%6De", "GET /users/me"},
                          {"/users/7", "GET /users/{int} 7"},
                          {"/users/-7", "GET /users/{int} -7"},
                          {"/users/-", "GET /users/{str} -"},
                          {"/users/7x", "GET /users/{str} 7x"},
                          {"/users/", "allowed"},
                          {"//users", "allowed"},
                          {"/users/7/files/a/b%2Fc//d", "GET /users/{int}/files/{path} 7 a/b/c//d"},
                          {"/users/7/files/", "GET /users/{int}/files/{path} 7 "},
                          {"/users/7/files", "allowed"},
                          {"/users/x/files/a", "allowed"},
                          {"/v1/models/cat", "GET /v1/models/{str} cat"},
                          {"/v1/models/cat:predict", "GET /v1/models/{str}:predict cat"},
                          {"/v1/models/:predict", "GET /v1/models/{str} :predict"},
                          {"/v1/models/m-cat:predict", "GET /v1/models/{str}:predict m-cat"},
                          {"/v1/models/m-cat", "GET /v1/models/m-{str} cat"},
                          {"/v1/models/m-", "GET /v1/models/{str} m-"},
                          {"/price/1", "GET /price/{float} 1"},
                          {"/price/-1.50", "GET /price/{float} -1.50"},
                          {"/price/1.", "allowed"},
                          {"/price/.5", "allowed"},
                          {"/price/1e5", "allowed"},
                          {"/price/1.5.5", "allowed"},
                          {"/keys/0b09a5b2-2ac1-4bb5-b3e6-55b2a07fBFCC",
                           "GET /keys/{uuid} 0b09a5b2-2ac1-4bb5-b3e6-55b2a07fBFCC"},
                          {"/keys/0b09a5b2-2ac1-4bb5-b3e6-55b2a07fBFCg", "allowed"},
                          {"/keys/0b09a5b2x2ac1-4bb5-b3e6-55b2a07fBFCC", "allowed"},
                          {"/keys/0b09a5b22ac14bb5b3e655b2a07fBFCC", "allowed"},
                          {"/caf%C3%A9", "GET /caf\u00e9"},
                          {"/caf\u00e9", "GET /caf\u00e9"},
                          {"/dir/", "GET /dir/"},
                          {"/dir", "allowed"},
                      });
}

TEST(digits_of_integers_are_bounded) {
    Routes routes({"GET /{int}", "GET /{str}"});
    const std::string digits(converters::most_digits, '9');
    CHECK(routes.get("/-" + digits) == "GET /{int} -" + digits);
    CHECK(routes.get("/9" + digits) == "GET /{str} 9" + digits);
}

TEST(a_dead_end_is_backed_out_of) {
    Routes routes(
        {"GET /a/b/c", "GET /a/{str}/d", "GET /{str}/b/e", "GET /{int}/{int}/f", "GET /{path}"});
    check_all(routes, {
                          {"/a/b/c", "GET /a/b/c"},
                          {"/a/b/d", "GET /a/{str}/d b"},
                          {"/a/b/e", "GET /{str}/b/e a"},
                          {"/a/b/f", "GET /{path} a/b/f"},
                          {"/1/2/f", "GET /{int}/{int}/f 1 2"},
                          {"/1/b/e", "GET /{str}/b/e 1"},
                          {"/1/2/g", "GET /{path} 1/2/g"},
                      });
}

TEST(of_equals_that_which_was_added_first_wins) {
    Routes one({"GET /a{str}", "GET /{str}a"});
    CHECK(one.get("/axa") == "GET /a{str} xa");
    Routes other({"GET /{str}a", "GET /a{str}"});
    CHECK(other.get("/axa") == "GET /{str}a ax");
    // The length of text is that of its characters.
    Routes wide({"GET /ab{str}", "GET /{str}\u00e9"});
    CHECK(wide.get("/abx%C3%A9") == "GET /ab{str} x\u00e9");
}

TEST(methods) {
    Routes routes({"GET /a/b", "POST /a/{str}", "DELETE /{path}", "PURGE /a/{path}", "HEAD /h",
                   "GET /h", "* /any", "GET /any", "WEBSOCKET /chat"});
    CHECK(routes.match("HEAD", "/a/b") == "GET /a/b");
    CHECK(routes.match("HEAD", "/h") == "HEAD /h");
    CHECK(routes.match("POST", "/a/b") == "POST /a/{str} b");
    CHECK(routes.match("PURGE", "/a/b") == "PURGE /a/{path} b");
    CHECK(routes.match("DELETE", "/a/b") == "DELETE /{path} a/b");
    CHECK(routes.match("PUT", "/a/b") == "allowed GET HEAD POST DELETE PURGE");
    CHECK(routes.match("get", "/a/b") == "allowed GET HEAD POST DELETE PURGE");
    CHECK(routes.match("GET", "/any") == "GET /any");
    CHECK(routes.match("PUT", "/any") == "* /any");
    CHECK(routes.match("NONE", "/any") == "* /any");
    CHECK(routes.match("WEBSOCKET", "/chat") == "WEBSOCKET /chat");
    CHECK(routes.match("GET", "/chat") == "allowed DELETE WEBSOCKET");
}

TEST(numbers_of_methods) {
    RouteTable table;
    for (std::size_t i = 0; i < methods::names.size(); ++i) {
        const auto id = static_cast<MethodId>(i);
        const bool is_real = id != methods::any && id != methods::websocket;
        CHECK(table.method_id(methods::names[i]) == id);
        CHECK(methods::of_request(methods::names[i]) == (is_real ? id : methods::unknown));
        CHECK(table.request_method_id(methods::names[i]) == (is_real ? id : methods::unknown));
    }
    CHECK(methods::of_request("Get") == methods::unknown);
    CHECK(methods::of_request("") == methods::unknown);
    CHECK(table.request_method_id("PURGE") == methods::unknown);
    const std::array path = {Segment::literal("x")};
    table.add(path, "PURGE", 0);
    CHECK(table.request_method_id("PURGE") == methods::names.size());
    CHECK(table.request_method_id("BAN") == methods::unknown);
    CHECK(table.request_method_id("WEBSOCKET") == methods::unknown);
}

TEST(equivalent_routes_conflict) {
    Routes routes({"GET /a/{str}", "GET /b"});
    CHECK(routes.add("GET /a/{str}") == 0U);
    CHECK(routes.add("GET /b") == 1U);
    CHECK(!routes.add("POST /a/{str}"));
    CHECK(!routes.add("GET /a/{int}"));
    CHECK(!routes.add("GET /a/x{str}"));
    CHECK(routes.match("GET", "/a/x") == "GET /a/{str} x");
}

TEST(what_a_table_cannot_hold) {
    RouteTable table;
    const auto refuses = [&](const std::vector<Segment>& segments,
                             std::string_view method = "GET") {
        CHECK_THROWS(table.add(segments, method, 0), std::invalid_argument);
    };
    refuses({});
    refuses(std::vector(65, Segment::literal("a")));
    refuses(std::vector(33, Segment::parameter(Converter::text)));
    refuses({Segment::parameter(Converter::path), Segment::literal("a")});
    refuses({Segment::parameter(Converter::path, "a")});
    refuses({Segment::parameter(Converter::path, "", "a")});
    const std::vector path = {Segment::literal("a")};
    for (std::size_t i = methods::names.size(); i < MethodSet::most; ++i) {
        CHECK(!table.add(path, "METHOD" + std::to_string(i), i));
    }
    refuses(path, "ONE-MORE");
    Found found;
    CHECK(table.match(table.method_id("METHOD63"), "/a", found) == Outcome::found);
    CHECK(found.value() == 63);
}

TEST(the_largest_routes) {
    std::string long_path;
    std::string parameters;
    for (std::size_t i = 0; i < RouteTable::most_segments; ++i) {
        long_path += "/a";
        parameters += i < RouteTable::most_parameters ? "/{str}" : "/a";
    }
    Routes routes({"GET " + long_path, "PUT " + parameters, "DELETE /a/{path}"});
    CHECK(routes.get(long_path) == "GET " + long_path);
    std::string outcome = "PUT " + parameters;
    for (std::size_t i = 0; i < RouteTable::most_parameters; ++i) {
        outcome += " a";
    }
    CHECK(routes.match("PUT", long_path) == outcome);
    CHECK(routes.get(long_path + "/a") == "allowed DELETE");
    CHECK(routes.match("DELETE", "/a" + long_path) == "DELETE /a/{path} " + long_path.substr(1));
}

TEST(paths_that_cannot_be_read) {
    Routes routes({"GET /{path}"});
    check_all(routes, {
                          {"", "the path does not start with a slash"},
                          {"x", "the path does not start with a slash"},
                          {"*", "the path does not start with a slash"},
                          {"/%", "the path has a % without two hexadecimal digits"},
                          {"/%4", "the path has a % without two hexadecimal digits"},
                          {"/%zz", "the path has a % without two hexadecimal digits"},
                          {"/%4g", "the path has a % without two hexadecimal digits"},
                          {"/../%ff/%", "the path has a % without two hexadecimal digits"},
                          {"/%ff", "the path is not UTF-8"},
                          {"/\xff", "the path is not UTF-8"},
                          {"/%C3", "the path is not UTF-8"},
                          {"/%C3/%A9", "the path is not UTF-8"},
                          {"/%00%ff", "the path is not UTF-8"},
                          {"/a%00b", "the path holds a NUL"},
                          {"/a\0b"sv, "the path holds a NUL"},
                          {"/a%00/%ff", "the path holds a NUL"},
                          {"/../%00", "the path has dot segments"},
                          {"/.", "the path has dot segments"},
                          {"/..", "the path has dot segments"},
                          {"/./a", "the path has dot segments"},
                          {"/a/../b", "the path has dot segments"},
                          {"/a/..", "the path has dot segments"},
                          {"/a/%2e%2E/b", "the path has dot segments"},
                          {"/x%2f..%2fy", "the path has dot segments"},
                          {"/x%2f.", "the path has dot segments"},
                          {"/..\\a", "the path has dot segments"},
                          {"/a\\..", "the path has dot segments"},
                          {"/..%5cboot.ini", "the path has dot segments"},
                          {"/...", "GET /{path} ..."},
                          {"/.a/a./..a/a..", "GET /{path} .a/a./..a/a.."},
                          {"/a\\b", "GET /{path} a\\b"},
                          {"/%25%32%35", "GET /{path} %25"},
                          {"/%2525", "GET /{path} %25"},
                          {"/+", "GET /{path} +"},
                      });
}

TEST(what_is_utf8) {
    const auto is_read = [](std::string_view text) { return is_utf8(text); };
    for (const std::string_view each :
         {""sv, "\0"sv, "\x7F"sv, "\xC2\x80"sv, "\xDF\xBF"sv, "\xE0\xA0\x80"sv, "\xED\x9F\xBF"sv,
          "\xEE\x80\x80"sv, "\xEF\xBF\xBF"sv, "\xF0\x90\x80\x80"sv, "\xF4\x8F\xBF\xBF"sv}) {
        CHECK(is_read(each));
    }
    for (const std::string_view each :
         {"\x80"sv, "\xBF"sv, "\xC0\x80"sv, "\xC1\xBF"sv, "\xC2"sv, "\xC2\x7F"sv, "\xC2\xC0"sv,
          "\xE0\x9F\xBF"sv, "\xE1\x80"sv, "\xED\xA0\x80"sv, "\xED\xBF\xBF"sv, "\xF0\x8F\xBF\xBF"sv,
          "\xF0\x90\x80"sv, "\xF4\x90\x80\x80"sv, "\xF5\x80\x80\x80"sv, "\xFF"sv, "a\x80"sv}) {
        CHECK(!is_read(each));
    }
}

// A literal is text, not percent-encoded; what the index of whole paths answers, the tree would.
TEST(literals_that_a_request_spells_otherwise) {
    Routes routes({"GET /100%", "GET /a%20b", "GET /../x", "GET /\xff", "GET /{str}"});
    check_all(routes, {
                          {"/100%25", "GET /100%"},
                          {"/100%", "the path has a % without two hexadecimal digits"},
                          {"/a%2520b", "GET /a%20b"},
                          {"/a%20b", "GET /{str} a b"},
                          {"/../x", "the path has dot segments"},
                          {"/\xff", "the path is not UTF-8"},
                      });
}

TEST(many_routes) {
    std::vector<std::string> all;
    for (int i = 0; i < 2000; ++i) {
        const std::string number = std::to_string(i);
        all.push_back("GET /things-" + number + "/list");
        all.push_back("GET /things-" + number + "/{int}/part" + number);
    }
    Routes routes(all);
    for (int i = 0; i < 2000; ++i) {
        const std::string number = std::to_string(i);
        CHECK(routes.get("/things-" + number + "/list") == all[2 * static_cast<std::size_t>(i)]);
        CHECK(routes.get("/things-" + number + "/5/part" + number) ==
              all[2 * static_cast<std::size_t>(i) + 1] + " 5");
        CHECK(routes.get("/things-" + number + "/5/part") == "allowed");
    }
}

// Each of the tree's nodes once, and no more.
TEST(a_path_with_many_ways_is_walked_in_bounds) {
    RouteTable table;
    std::string path;
    for (std::size_t i = 0; i < 12; ++i) {
        path += "/1";
    }
    // Every way through "1" and {int}: all 8191 nodes match.
    for (unsigned bits = 0; bits < 4096; ++bits) {
        std::vector<Segment> segments;
        for (unsigned i = 0; i < 12; ++i) {
            segments.push_back((bits >> i & 1) != 0 ? Segment::literal("1")
                                                    : Segment::parameter(Converter::integer));
        }
        segments.push_back(Segment::literal("end"));
        table.add(segments, "GET", bits);
    }
    Found found;
    CHECK(table.match(methods::get, path + "/none", found) == Outcome::missed);
    CHECK(table.match(methods::get, path + "/end", found) == Outcome::found);
    CHECK(found.value() == 4095);
    CHECK(found.parameter_count() == 0);
}

TEST(one_found_serves_many_paths) {
    Routes routes({"GET /whole", "GET /{str}/{int}", "GET /{path}"});
    CHECK(routes.get("/%61/1") == "GET /{str}/{int} a 1");
    CHECK(routes.get("/whole") == "GET /whole");
    CHECK(routes.get("/%ff") == "the path is not UTF-8");
    CHECK(routes.match("PUT", "/a/1") == "allowed GET HEAD");
    CHECK(routes.get("/a/b/c") == "GET /{path} a/b/c");
}

TEST(only_a_long_path_that_is_decoded_needs_memory) {
    RouteTable table;
    table.add(std::array{Segment::parameter(Converter::path)}, "GET", 1);
    Found found;
    const std::string plain = "/" + std::string(5000, 'a');
    const std::string shorter = "/%61" + std::string(200, 'a');
    const std::string longer = "/%61" + std::string(300, 'a');
    const auto matched = [&](std::string_view path, std::size_t allocations) {
        allocations_left = allocations;
        const Outcome outcome = table.match(methods::get, path, found);
        allocations_left = plenty;
        return outcome;
    };
    CHECK(matched(plain, 0) == Outcome::found);
    CHECK(matched(shorter, 0) == Outcome::found);
    CHECK(matched(longer, 0) == Outcome::malformed);
    CHECK(found.fault() == PathFault::no_memory);
    CHECK(words(found.fault()) == "there is no memory to decode the path in"sv);
    CHECK(matched(longer, 1) == Outcome::found);
    CHECK(found.parameter(0).text == std::string(301, 'a'));
    CHECK(matched(longer, 0) == Outcome::found);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
