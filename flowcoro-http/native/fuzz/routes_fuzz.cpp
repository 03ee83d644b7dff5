// Fuzzes the routes (libFuzzer): any table and any path, compared with a plain matcher that tries
// each route by itself and then says which of those that match wins, by the rules as they are
// written.
//
// The first byte says how many routes follow; what is left after them is the path, as it is or
// spelt of what routes are made of.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flowcoro_http/route_table.hpp"

namespace {

using namespace flowcoro_http;

void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

constexpr std::array<std::string_view, 16> texts = {"",   "a",   "b",        "ab",  "aa", "1",
                                                    "-1", "1.5", "-",        ".x",  "%",  "%61",
                                                    "\\", "..",  "\xC3\xA9", "\xA9"};
constexpr std::array<std::string_view, 8> method_names = {"GET", "HEAD",      "POST", "PUT",
                                                          "*",   "WEBSOCKET", "BAN",  "PURGE"};

struct Route {
    std::string_view method;
    std::vector<Segment> segments;
};

class Bytes {
  public:
    Bytes(const std::uint8_t* data, std::size_t size)
        : left_(reinterpret_cast<const char*>(data), size) {}

    unsigned next() {
        if (left_.empty()) {
            return 0;
        }
        const unsigned byte = static_cast<unsigned char>(left_.front());
        left_.remove_prefix(1);
        return byte;
    }

    [[nodiscard]] std::string_view rest() const { return left_; }

  private:
    std::string_view left_;
};

Segment next_segment(Bytes& bytes, bool is_last) {
    const unsigned kind = bytes.next();
    const unsigned around = bytes.next();
    if (kind % 2 == 0) {
        return Segment::literal(texts[around % 16]);
    }
    const auto converter = static_cast<Converter>(kind / 2 % (is_last ? 5 : 4));
    return converter == Converter::path
               ? Segment::parameter(converter)
               : Segment::parameter(converter, kind % 32 < 16 ? "" : texts[around % 16],
                                    kind % 64 < 32 ? "" : texts[around / 16]);
}

Route next_route(Bytes& bytes) {
    const unsigned head = bytes.next();
    Route route{method_names[head % 8], {}};
    const unsigned count = 1 + head / 8 % 4;
    for (unsigned i = 1; i <= count; ++i) {
        route.segments.push_back(next_segment(bytes, i == count));
    }
    return route;
}

std::string escaped(std::string_view text) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string all;
    for (const char each : text) {
        const auto byte = static_cast<unsigned char>(each);
        all.append("%").append(1, digits[byte / 16]).append(1, digits[byte % 16]);
    }
    return all;
}

std::string next_path(Bytes& bytes) {
    std::string path = "/";  // most bytes would be refused for not being one
    if (bytes.next() % 2 == 0) {
        return path.append(bytes.rest());
    }
    while (!bytes.rest().empty()) {
        const unsigned byte = bytes.next();
        const std::string_view text = texts[byte % 16];
        path += byte / 32 % 4 == 0 || text == "%" ? escaped(text) : std::string(text);
        path += byte / 16 % 2 == 0 ? "/" : "";
    }
    return path;
}

// -- the plain matcher ---------------------------------------------------------------------------

bool is_utf8_text(std::string_view text) {
    for (std::size_t i = 0; i < text.size();) {
        const auto first = static_cast<unsigned char>(text[i]);
        const std::size_t size = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
        if (first >= 0xF8 || (first >= 0x80 && first < 0xC0) || text.size() - i < size) {
            return false;
        }
        std::uint32_t code = size == 1 ? first : first & (0x7FU >> size);
        for (std::size_t j = 1; j < size; ++j) {
            const auto each = static_cast<unsigned char>(text[i + j]);
            if ((each & 0xC0) != 0x80) {
                return false;
            }
            code = code << 6 | (each & 0x3F);
        }
        constexpr std::array<std::uint32_t, 5> least = {0, 0, 0x80, 0x800, 0x10000};
        if (code < least[size] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
            return false;
        }
        i += size;
    }
    return true;
}

bool has_dots(std::string text) {
    std::replace(text.begin(), text.end(), '\\', '/');
    text = "/" + text + "/";
    return text.find("/./") != std::string::npos || text.find("/../") != std::string::npos;
}

struct Path {
    PathFault fault = PathFault::none;
    std::vector<std::string> segments;
};

Path read_path(const std::string& raw) {
    if (raw.empty() || raw[0] != '/') {
        return {PathFault::no_slash, {}};
    }
    for (std::size_t i = 0; i < raw.size(); ++i) {
        const auto is_hexadecimal = [&](std::size_t at) {
            return at < raw.size() && std::isxdigit(static_cast<unsigned char>(raw[at])) != 0;
        };
        if (raw[i] == '%' && !(is_hexadecimal(i + 1) && is_hexadecimal(i + 2))) {
            return {PathFault::bad_percent, {}};
        }
    }
    Path path;
    for (std::size_t i = 0; i < raw.size(); ++i) {
        if (raw[i] == '/') {
            path.segments.emplace_back();
        } else if (raw[i] == '%') {
            const std::string digits = raw.substr(i + 1, 2);
            path.segments.back() += static_cast<char>(std::strtoul(digits.c_str(), nullptr, 16));
            i += 2;
        } else {
            path.segments.back() += raw[i];
        }
    }
    for (const std::string& each : path.segments) {
        const PathFault fault = !is_utf8_text(each)                    ? PathFault::not_utf8
                                : each.find('\0') != std::string::npos ? PathFault::nul
                                : has_dots(each)                       ? PathFault::dot_segments
                                                                       : PathFault::none;
        if (fault != PathFault::none) {
            return {fault, {}};
        }
    }
    return path;
}

// The parameter's text, if the segment takes it.
std::optional<std::string> text_in(const std::string& text, const Segment& segment) {
    const std::size_t around = segment.prefix.size() + segment.suffix.size();
    if (text.size() <= around || text.compare(0, segment.prefix.size(), segment.prefix) != 0 ||
        text.compare(text.size() - segment.suffix.size(), std::string::npos, segment.suffix) != 0) {
        return std::nullopt;
    }
    std::string part = text.substr(segment.prefix.size(), text.size() - around);
    return converters::takes(segment.converter, part) ? std::optional(std::move(part))
                                                      : std::nullopt;
}

bool is_same(const Segment& one, const Segment& other) {
    return one.is_parameter == other.is_parameter && one.converter == other.converter &&
           one.prefix == other.prefix && one.suffix == other.suffix;
}

bool are_same(const std::vector<Segment>& one, const std::vector<Segment>& other,
              std::size_t count) {
    return one.size() >= count && other.size() >= count &&
           std::equal(one.begin(), one.begin() + static_cast<std::ptrdiff_t>(count), other.begin(),
                      is_same);
}

// What a route's parameters are, if it matches.
std::optional<std::vector<std::string>> parameters_of(const Route& route, const Path& path) {
    std::vector<std::string> texts_found;
    for (std::size_t i = 0; i < route.segments.size(); ++i) {
        const Segment& segment = route.segments[i];
        if (i >= path.segments.size()) {
            return std::nullopt;
        }
        if (segment.is_parameter && segment.converter == Converter::path) {
            std::string rest = path.segments[i];
            for (std::size_t j = i + 1; j < path.segments.size(); ++j) {
                rest += "/" + path.segments[j];
            }
            texts_found.push_back(std::move(rest));
            return texts_found;
        }
        if (!segment.is_parameter) {
            if (path.segments[i] != segment.prefix) {
                return std::nullopt;
            }
            continue;
        }
        auto text = text_in(path.segments[i], segment);
        if (!text) {
            return std::nullopt;
        }
        texts_found.push_back(std::move(*text));
    }
    return route.segments.size() == path.segments.size() ? std::optional(texts_found)
                                                         : std::nullopt;
}

class Plain {
  public:
    explicit Plain(std::vector<Route> routes) : routes_(std::move(routes)) {}

    // Whether the same is there already.
    [[nodiscard]] std::optional<std::size_t> earlier(std::size_t index) const {
        for (std::size_t i = 0; i < index; ++i) {
            if (routes_[i].method == routes_[index].method && is_same_path(i, index)) {
                return i;
            }
        }
        return std::nullopt;
    }

    void check(std::string_view method, const Path& path, const RouteTable& table, Outcome outcome,
               const Found& found) const {
        std::vector<std::size_t> matching;
        for (std::size_t i = 0; i < routes_.size(); ++i) {
            if (parameters_of(routes_[i], path) && !earlier(i)) {
                matching.push_back(i);
            }
        }
        std::stable_sort(matching.begin(), matching.end(),
                         [this](std::size_t one, std::size_t other) { return wins(one, other); });
        const std::optional<std::size_t> best = answer(method, matching);
        require((outcome == Outcome::found) == best.has_value());
        if (best) {
            require(found.value() == *best);
            check_parameters(routes_[*best], path, found);
        } else {
            check_allowed(matching, table, found);
        }
    }

  private:
    [[nodiscard]] bool is_same_path(std::size_t one, std::size_t other) const {
        const auto& segments = routes_[one].segments;
        return segments.size() == routes_[other].segments.size() &&
               are_same(segments, routes_[other].segments, segments.size());
    }

    static std::array<std::size_t, 3> rank(const Segment& segment) {
        const auto characters = [](std::string_view text) {
            return static_cast<std::size_t>(std::count_if(
                text.begin(), text.end(), [](char each) { return (each & 0xC0) != 0x80; }));
        };
        return {
            segment.is_parameter ? std::size_t{1} : 0,
            1000 - (segment.is_parameter ? characters(segment.prefix) + characters(segment.suffix)
                                         : 0),
            static_cast<std::size_t>(converters::rank(segment.converter))};
    }

    // Whether one comes before the other at the first segment where they differ.
    [[nodiscard]] bool wins(std::size_t one, std::size_t other) const {
        const auto& left = routes_[one].segments;
        const auto& right = routes_[other].segments;
        for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
            if (is_same(left[i], right[i])) {
                continue;
            }
            if (rank(left[i]) != rank(right[i])) {
                return rank(left[i]) < rank(right[i]);
            }
            for (const Route& each : routes_) {  // which was added first
                if (are_same(each.segments, left, i + 1)) {
                    return true;
                }
                if (are_same(each.segments, right, i + 1)) {
                    return false;
                }
            }
        }
        return false;
    }

    // Of the first path that has the method, or what stands for it.
    [[nodiscard]] std::optional<std::size_t> answer(
        std::string_view method, const std::vector<std::size_t>& matching) const {
        for (const std::size_t first : matching) {
            for (const std::string_view name :
                 {method, method == "HEAD" ? std::string_view("GET") : method,
                  std::string_view("*")}) {
                for (const std::size_t each : matching) {
                    if (is_same_path(each, first) && routes_[each].method == name) {
                        return each;
                    }
                }
            }
        }
        return std::nullopt;
    }

    static void check_parameters(const Route& route, const Path& path, const Found& found) {
        const auto expected = parameters_of(route, path);
        require(found.parameter_count() == expected->size());
        std::size_t index = 0;
        for (const Segment& segment : route.segments) {
            if (segment.is_parameter) {
                require(found.parameter(index).text == (*expected)[index]);
                require(found.parameter(index).converter == segment.converter);
                ++index;
            }
        }
    }

    void check_allowed(const std::vector<std::size_t>& matching, const RouteTable& table,
                       const Found& found) const {
        MethodSet expected;
        for (const std::size_t each : matching) {
            expected.add(table.method_id(routes_[each].method));
            if (routes_[each].method == "GET") {
                expected.add(methods::head);
            }
        }
        require(found.allowed() == expected);
    }

    std::vector<Route> routes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Bytes bytes(data, size);
    std::vector<Route> routes;
    for (unsigned count = bytes.next() % 12; count != 0; --count) {
        routes.push_back(next_route(bytes));
    }
    const Plain plain(routes);
    RouteTable table;
    for (std::size_t i = 0; i < routes.size(); ++i) {
        require(table.add(routes[i].segments, routes[i].method, i) == plain.earlier(i));
    }
    const std::string raw = next_path(bytes);
    const Path path = read_path(raw);
    const auto copy = std::make_unique<char[]>(raw.size());
    raw.copy(copy.get(), raw.size());
    Found found;
    for (const std::string_view method : {"GET", "HEAD", "POST", "WEBSOCKET", "BAN", "NONE"}) {
        const Outcome outcome =
            table.match(table.method_id(method), {copy.get(), raw.size()}, found);
        require((outcome == Outcome::malformed) == (path.fault != PathFault::none));
        if (path.fault != PathFault::none) {
            require(found.fault() == path.fault);
        } else {
            plain.check(method, path, table, outcome, found);
        }
    }
    return 0;
}
