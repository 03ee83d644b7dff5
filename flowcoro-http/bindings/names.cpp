#include "names.hpp"

#include <array>
#include <cstdint>

namespace flowcoro_http::bindings {

Names names;

namespace {

// From what browsers, proxies and clients send.
constexpr std::string_view common[] = {
    "host",
    "user-agent",
    "accept",
    "accept-encoding",
    "accept-language",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "authorization",
    "cache-control",
    "pragma",
    "origin",
    "referer",
    "upgrade-insecure-requests",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-range",
    "range",
    "te",
    "dnt",
    "expect",
    "upgrade",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-real-ip",
    "x-request-id",
    "x-requested-with",
    "forwarded",
    "traceparent",
    "tracestate",
    "via",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "keep-alive",
    "priority",
};

constexpr std::size_t slots = 256;
constexpr std::size_t longest = 64;

struct Slot {
    std::string_view name;
    PyObject* object = nullptr;
};

std::array<Slot, slots> table;

std::size_t slot_of(std::string_view name) noexcept {
    std::uint32_t hash = static_cast<std::uint32_t>(name.size()) * 31;
    hash += static_cast<unsigned char>(name.front()) * 7U;
    hash += static_cast<unsigned char>(name[name.size() / 2]) * 131U;
    hash += static_cast<unsigned char>(name.back()) * 17U;
    return (hash ^ hash >> 7) % slots;
}

bool make_field_names() noexcept {
    for (const std::string_view name : common) {
        std::size_t at = slot_of(name);
        while (table[at].object != nullptr) {
            at = (at + 1) % slots;
        }
        table[at] = {name, bytes(name).release()};
        if (table[at].object == nullptr) {
            return false;
        }
    }
    return true;
}

Ref attribute_of(const char* module, const char* name) noexcept {
    const Ref imported = Ref::steal(PyImport_ImportModule(module));
    return imported ? Ref::steal(PyObject_GetAttrString(imported.get(), name)) : Ref();
}

}  // namespace

bool make_names() noexcept {
    bool good = true;
    const auto keep = [&](PyObject*& into, PyObject* made) {
        into = made;
        good = good && made != nullptr;
    };
#define FLOWCORO_HTTP_NAME(name) keep(names.name, PyUnicode_InternFromString(#name));
    FLOWCORO_HTTP_NAMES(FLOWCORO_HTTP_NAME)
#undef FLOWCORO_HTTP_NAME
    keep(names.throw_, PyUnicode_InternFromString("throw"));
    keep(names.http_request, PyUnicode_InternFromString("http.request"));
    keep(names.http_disconnect, PyUnicode_InternFromString("http.disconnect"));
    keep(names.http_1_0, PyUnicode_InternFromString("1.0"));
    keep(names.http_1_1, PyUnicode_InternFromString("1.1"));
    keep(names.get, PyUnicode_InternFromString("GET"));
    keep(names.post, PyUnicode_InternFromString("POST"));
    keep(names.empty_text, PyUnicode_InternFromString(""));
    keep(names.slash, PyUnicode_InternFromString("/"));
    keep(names.empty_bytes, PyBytes_FromStringAndSize("", 0));
    if (!good) {
        return false;
    }
    keep(names.enter_task, attribute_of("asyncio.tasks", "_enter_task").release());
    keep(names.leave_task, attribute_of("asyncio.tasks", "_leave_task").release());
    keep(names.cancelled_error, attribute_of("asyncio", "CancelledError").release());
    keep(names.weak_references, attribute_of("weakref", "getweakrefcount").release());
    return good && make_field_names();
}

Ref field_name(std::string_view name) noexcept {
    char lower[longest];
    if (name.empty() || name.size() > longest) {
        Ref made = bytes(name);
        if (made) {
            char* const at = PyBytes_AS_STRING(made.get());
            for (std::size_t i = 0; i < name.size(); ++i) {
                at[i] =
                    name[i] >= 'A' && name[i] <= 'Z' ? static_cast<char>(name[i] | 0x20) : name[i];
            }
        }
        return made;
    }
    for (std::size_t i = 0; i < name.size(); ++i) {
        lower[i] = name[i] >= 'A' && name[i] <= 'Z' ? static_cast<char>(name[i] | 0x20) : name[i];
    }
    const std::string_view folded(lower, name.size());
    for (std::size_t at = slot_of(folded); table[at].object != nullptr; at = (at + 1) % slots) {
        if (table[at].name == folded) {
            return Ref::borrow(table[at].object);
        }
    }
    return bytes(folded);
}

}  // namespace flowcoro_http::bindings
