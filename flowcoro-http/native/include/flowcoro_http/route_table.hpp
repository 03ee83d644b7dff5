// RouteTable: finds what was added for a method and a path.
//
// What belongs here: the tree of routes and its walk. What a path may be is in request_path.hpp,
// what a parameter may be in converters.hpp, methods are in methods.hpp. No Python, no requests, no
// I/O.
//
//     RouteTable table;
//     const std::array users = {Segment::literal("users"), Segment::parameter(Converter::integer)};
//     table.add(users, "GET", 7);
//     Found found;  // one for each connection, or for each thread
//     if (table.match(methods::of_request("GET"), "/users/42", found) == Outcome::found) {
//         found.value();            // 7
//         found.parameter(0).text;  // "42"
//     }
//
// Which route wins
// ----------------
//   A path is split at '/' before it is percent-decoded. At each segment, of all routes that have
//   come so far, a literal wins over a parameter; of parameters that with the longer literal text
//   around it, then an integer or UUID over a real number, that over text, and `path`, which takes
//   all that is left, comes last; of equals that which was added first. A dead end is backed out
//   of. Where the path ends, a node answers a method that was added for it, HEAD by GET, and every
//   method by `any`; one that does not answer is a dead end, whose methods `allowed` tells of.
//
// Protocol
// --------
//   whole_   paths of literals only, as a request that needs no decoding spells them: most paths
//            of most applications are found here, neither split nor decoded. It only saves time:
//            the tree has these routes too, and would answer the same.
//   nodes_   the tree; 0 is the root. A node is a prefix of routes. Nodes are never removed.
//   edges_   from a node and a literal segment to a node.
//
//   match() goes down the tree with a frame for each segment, not by recursion: `next` of a frame
//   is what to try at its node when what was tried comes to nothing. Of a node, each child is tried
//   once, and each node has one parent: so each is visited once at most, whatever the path.
//
// Lifetimes: what was given to add() is copied. What a Found tells holds until it is used again,
// and as long as the path that was matched; it does not refer to the table.
//
// Threads: match() changes nothing in the table, so any number may call it, each with a Found of
// its own; add() must not run at the same time.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "flowcoro_http/converters.hpp"
#include "flowcoro_http/methods.hpp"
#include "flowcoro_http/request_path.hpp"
#include "flowcoro_http/text_index.hpp"

namespace flowcoro_http {

// One of a route: what stands between two slashes, not percent-encoded.
struct Segment {
    bool is_parameter = false;
    Converter converter = Converter::text;
    std::string_view prefix;  // before the parameter; or the literal
    std::string_view suffix;  // after the parameter

    static constexpr Segment literal(std::string_view text) noexcept {
        return {false, Converter::text, text, {}};
    }

    static constexpr Segment parameter(Converter converter, std::string_view prefix = {},
                                       std::string_view suffix = {}) noexcept {
        return {true, converter, prefix, suffix};
    }
};

enum class Outcome : std::uint8_t {
    found,
    missed,     // found.allowed() are the methods that the path has
    malformed,  // found.fault() says why
};

struct FoundParameter {
    std::string_view text;  // percent-decoded; without the literal text around it
    Converter converter;    // which takes it
};

// What a path led to. Made once and used again and again; a kilobyte.
class Found {
  public:
    static constexpr std::size_t most_parameters = 32;

    Found() noexcept {}  // match() writes all that is read

    Found(const Found&) = delete;
    Found& operator=(const Found&) = delete;

    // What was added, when it was found.
    [[nodiscard]] std::size_t value() const noexcept { return value_; }

    // Of the route that was found, in its order.
    [[nodiscard]] std::size_t parameter_count() const noexcept { return count_; }

    [[nodiscard]] FoundParameter parameter(std::size_t index) const noexcept {
        const Part& part = parts_[index];
        return {{part.text, part.size}, part.converter};
    }

    // What the path does take when it was missed, HEAD beside GET; none when no route has the path.
    [[nodiscard]] MethodSet allowed() const noexcept { return allowed_; }

    [[nodiscard]] PathFault fault() const noexcept { return fault_; }

  private:
    friend class RouteTable;

    struct Part {
        const char* text;
        std::size_t size;
        Converter converter;
    };

    void set(std::size_t index, std::string_view text, Converter converter) noexcept {
        parts_[index] = {text.data(), text.size(), converter};
    }

    PathFault fault_ = PathFault::none;
    MethodSet allowed_;
    std::size_t value_ = 0;
    std::size_t count_ = 0;
    std::array<Part, most_parameters> parts_;
    PathScratch scratch_;
};

class RouteTable {
  public:
    static constexpr std::size_t most_parameters = Found::most_parameters;
    static constexpr std::size_t most_segments = RequestPath::most_segments;

    RouteTable() : nodes_(1), methods_(methods::names.begin(), methods::names.end()) {}

    // Adds what answers a method on a path; "*" is every method, "WEBSOCKET" a WebSocket. Returns
    // what answers them already, if anything does: nothing has changed then.
    //
    // Throws std::invalid_argument when the table cannot hold it, and std::bad_alloc.
    std::optional<std::size_t> add(std::span<const Segment> segments, std::string_view method,
                                   std::size_t value) {
        check(segments);
        const MethodId id = intern(method);
        std::uint32_t at = 0;
        for (const Segment& segment : segments) {
            at = child(at, segment);
        }
        Node& node = nodes_[at];
        if (node.methods.has(id)) {
            return find(node, id)->value;
        }
        if (node.methods.empty() && is_plain(segments)) {
            whole_.put(0, path_of(segments), at);
        }
        node.answers.push_back({id, value});
        node.methods.add(id);
        return std::nullopt;
    }

    // The method's number in this table; `unknown` when it is in no route. As add() writes them.
    [[nodiscard]] MethodId method_id(std::string_view name) const noexcept {
        const MethodId id = methods::of_request(name);
        return id != methods::unknown ? id : id_from(methods::any, name);
    }

    // That of a request, whose peer may write what it likes: never `any` nor `websocket`.
    [[nodiscard]] MethodId request_method_id(std::string_view name) const noexcept {
        const MethodId id = methods::of_request(name);
        return id != methods::unknown ? id : id_from(methods::names.size(), name);
    }

    // Of a method with a number; holds until add().
    [[nodiscard]] std::string_view method_name(MethodId id) const noexcept { return methods_[id]; }

    // How many methods have a number: from 0 on.
    [[nodiscard]] std::size_t method_count() const noexcept { return methods_.size(); }

    // The raw path is as it came: percent-encoded, without the query. Never allocates, but for a
    // path that has to be decoded and is longer than any before it with that Found, and longer than
    // PathScratch::own_size.
    Outcome match(MethodId method, std::string_view raw_path, Found& found) const noexcept {
        const std::uint32_t whole = whole_.find(0, raw_path);
        if (whole != TextIndex::none && answer(nodes_[whole], method, found)) {
            found.count_ = 0;
            return Outcome::found;
        }
        RequestPath path;
        found.fault_ = path.read(raw_path, found.scratch_);
        return found.fault_ == PathFault::none ? walk(method, path, found) : Outcome::malformed;
    }

  private:
    struct Answer {
        MethodId method;
        std::size_t value;
    };

    struct Parameter {
        Converter converter;
        std::uint32_t child;
        std::size_t length;  // of the text around it, in characters
        std::string prefix;
        std::string suffix;

        // Its part of a segment; without data when it takes none of it.
        [[nodiscard]] std::string_view part_of(std::string_view segment) const noexcept {
            if (segment.size() <= prefix.size() + suffix.size() || !segment.starts_with(prefix) ||
                !segment.ends_with(suffix)) {
                return {};
            }
            segment.remove_prefix(prefix.size());
            segment.remove_suffix(suffix.size());
            return converters::takes(converter, segment) ? segment : std::string_view();
        }
    };

    struct Node {
        MethodSet methods;
        bool has_literals = false;
        bool takes_rest = false;  // of a path parameter: whatever is left of the path
        std::vector<Answer> answers;
        std::vector<Parameter> parameters;  // as they are tried
    };

    // A node on the way down.
    struct Frame {
        std::uint32_t node;
        std::uint32_t next;      // 0: the literal; else one more than the next parameter's index
        std::size_t parameters;  // how many there are above
    };

    // -- adding ------------------------------------------------------------------------------

    static void check(std::span<const Segment> segments) {
        std::size_t parameters = 0;
        for (const Segment& segment : segments) {
            parameters += segment.is_parameter ? 1 : 0;
            const bool is_path = segment.is_parameter && segment.converter == Converter::path;
            if (is_path && (&segment != &segments.back() || !segment.prefix.empty() ||
                            !segment.suffix.empty())) {
                throw std::invalid_argument("a path parameter is not the last segment");
            }
        }
        if (segments.empty() || segments.size() > most_segments) {
            throw std::invalid_argument("a route has from 1 to 64 segments");
        }
        if (parameters > most_parameters) {
            throw std::invalid_argument("a route has 32 parameters at most");
        }
    }

    // Among those with that number or a higher one.
    [[nodiscard]] MethodId id_from(std::size_t first, std::string_view name) const noexcept {
        for (std::size_t i = first; i < methods_.size(); ++i) {
            if (methods_[i] == name) {
                return static_cast<MethodId>(i);
            }
        }
        return methods::unknown;
    }

    MethodId intern(std::string_view name) {
        const MethodId id = method_id(name);
        if (id != methods::unknown) {
            return id;
        }
        if (methods_.size() == MethodSet::most) {
            throw std::invalid_argument("routes have 64 different methods at most");
        }
        methods_.emplace_back(name);
        return static_cast<MethodId>(methods_.size() - 1);
    }

    std::uint32_t child(std::uint32_t parent, const Segment& segment) {
        return segment.is_parameter ? parameter_child(parent, segment)
                                    : literal_child(parent, segment.prefix);
    }

    std::uint32_t new_node() {
        nodes_.emplace_back();
        return static_cast<std::uint32_t>(nodes_.size() - 1);
    }

    std::uint32_t literal_child(std::uint32_t parent, std::string_view text) {
        const std::uint32_t there = edges_.find(parent, text);
        if (there != TextIndex::none) {
            return there;
        }
        const std::uint32_t made = new_node();
        edges_.put(parent, text, made);
        nodes_[parent].has_literals = true;
        return made;
    }

    std::uint32_t parameter_child(std::uint32_t parent, const Segment& segment) {
        for (const Parameter& each : nodes_[parent].parameters) {
            if (each.converter == segment.converter && each.prefix == segment.prefix &&
                each.suffix == segment.suffix) {
                return each.child;
            }
        }
        const std::uint32_t made = new_node();
        nodes_[made].takes_rest = segment.converter == Converter::path;
        Parameter parameter{segment.converter, made,
                            characters_of(segment.prefix) + characters_of(segment.suffix),
                            std::string(segment.prefix), std::string(segment.suffix)};
        std::vector<Parameter>& all = nodes_[parent].parameters;
        const auto place = std::upper_bound(all.begin(), all.end(), parameter, is_before);
        all.insert(place, std::move(parameter));
        return made;
    }

    static bool is_before(const Parameter& one, const Parameter& other) noexcept {
        return one.length != other.length
                   ? one.length > other.length
                   : converters::rank(one.converter) < converters::rank(other.converter);
    }

    static std::size_t characters_of(std::string_view text) noexcept {
        const auto is_first = [](char each) {
            return (static_cast<unsigned char>(each) & 0xC0) != 0x80;
        };
        return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), is_first));
    }

    static std::string path_of(std::span<const Segment> segments) {
        std::string path;
        for (const Segment& segment : segments) {
            path.append("/").append(segment.prefix);
        }
        return path;
    }

    // Whether it is of literals only, and a request for it may spell them as they are.
    static bool is_plain(std::span<const Segment> segments) {
        if (std::any_of(segments.begin(), segments.end(),
                        [](const Segment& each) { return each.is_parameter; })) {
            return false;
        }
        const std::string path = path_of(segments);
        PathScratch scratch;
        RequestPath read;
        return path.find('%') == std::string::npos && read.read(path, scratch) == PathFault::none &&
               read.count() == segments.size();
    }

    // -- matching ----------------------------------------------------------------------------

    static const Answer* find(const Node& node, MethodId method) noexcept {
        for (const Answer& each : node.answers) {
            if (each.method == method) {
                return &each;
            }
        }
        return nullptr;
    }

    static bool answer(const Node& node, MethodId method, Found& found) noexcept {
        const Answer* answer = find(node, method);
        if (answer == nullptr && method == methods::head) {
            answer = find(node, methods::get);
        }
        if (answer == nullptr) {
            answer = find(node, methods::any);
        }
        if (answer != nullptr) {
            found.value_ = answer->value;
        }
        return answer != nullptr;
    }

    Outcome walk(MethodId method, const RequestPath& path, Found& found) const noexcept {
        std::array<Frame, most_segments + 1> frames;
        found.allowed_ = MethodSet();
        frames[0] = {0, 0, 0};
        std::size_t depth = 0;
        while (true) {
            const std::uint32_t child = next_child(frames[depth], path, depth, found);
            if (child != TextIndex::none) {
                const Node& node = nodes_[child];
                if (depth + 1 != path.count() && !node.takes_rest) {
                    ++depth;
                    frames[depth] = {child, 0, found.count_};
                } else if (answer(node, method, found)) {
                    return Outcome::found;
                } else {
                    found.allowed_.add(node.methods);
                }
            } else if (depth-- == 0) {
                break;
            }
        }
        if (found.allowed_.has(methods::get)) {
            found.allowed_.add(methods::head);
        }
        return Outcome::missed;
    }

    // The next one that takes the segment at that depth; found.count_ is of the way to it.
    std::uint32_t next_child(Frame& frame, const RequestPath& path, std::size_t depth,
                             Found& found) const noexcept {
        const Node& node = nodes_[frame.node];
        found.count_ = frame.parameters;
        if (frame.next == 0) {
            frame.next = 1;
            const std::uint32_t child =
                node.has_literals ? edges_.find(frame.node, path.segment(depth)) : TextIndex::none;
            if (child != TextIndex::none) {
                return child;
            }
        }
        while (frame.next <= node.parameters.size()) {
            const Parameter& parameter = node.parameters[frame.next++ - 1];
            const std::string_view text = parameter.converter == Converter::path
                                              ? path.rest(depth)
                                              : parameter.part_of(path.segment(depth));
            if (text.data() != nullptr) {
                found.set(found.count_++, text, parameter.converter);
                return parameter.child;
            }
        }
        return TextIndex::none;
    }

    TextIndex whole_;
    TextIndex edges_;
    std::vector<Node> nodes_;
    std::vector<std::string> methods_;  // by their numbers
};

}  // namespace flowcoro_http
