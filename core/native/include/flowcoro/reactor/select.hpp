// Which backend to use: the one place that knows them all.
#pragma once

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "flowcoro/reactor/reactor.hpp"

#if defined(__linux__)
#    include "flowcoro/reactor/epoll.hpp"
#    include "flowcoro/reactor/io_uring.hpp"
#endif
#if defined(_WIN32)
#    include "flowcoro/reactor/iocp.hpp"
#endif

#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__) || \
    defined(__DragonFly__)
#    include "flowcoro/reactor/kqueue.hpp"
#    define FLOWCORO_HAS_KQUEUE 1
#endif

namespace flowcoro::reactor {

struct Backend {
    std::string_view name;
    std::unique_ptr<Reactor> (*make)(const Options& options);
};

// Those that were compiled for this platform, the preferred first.
inline const std::vector<Backend>& backends() {
    static const std::vector<Backend> all = {
#if defined(__linux__)
        {"io_uring",
         [](const Options& options) -> std::unique_ptr<Reactor> {
             return std::make_unique<IoUringReactor>(options);
         }},
        {"epoll",
         [](const Options& options) -> std::unique_ptr<Reactor> {
             return std::make_unique<EpollReactor>(options);
         }},
#endif
#if defined(_WIN32)
        {"iocp",
         [](const Options& options) -> std::unique_ptr<Reactor> {
             return std::make_unique<IocpReactor>(options);
         }},
#endif
#if defined(FLOWCORO_HAS_KQUEUE)
        {"kqueue",
         [](const Options& options) -> std::unique_ptr<Reactor> {
             return std::make_unique<KqueueReactor>(options);
         }},
#endif
    };
    return all;
}

// Why a backend cannot be used here and now; empty when it can.
inline std::string why_not(std::string_view name) {
    for (const Backend& backend : backends()) {
        if (backend.name == name) {
            try {
                static_cast<void>(backend.make(Options{}));
                return "";
            } catch (const std::system_error& error) {
                return error.what();
            }
        }
    }
    return "it is not a backend of this platform";
}

// The names of those that can be used, the preferred first.
inline std::vector<std::string> available() {
    std::vector<std::string> names;
    for (const Backend& backend : backends()) {
        if (why_not(backend.name).empty()) {
            names.emplace_back(backend.name);
        }
    }
    return names;
}

// A reactor with the backend of that name or, for "", the preferred one that can be used; the
// environment's FLOWCORO_REACTOR stands in for "". Throws std::invalid_argument for a name that
// is none, std::system_error when the kernel refuses the one that was asked for, or all.
inline std::unique_ptr<Reactor> make_reactor(std::string_view name = "",
                                             const Options& options = {}) {
    const char* const wanted = name.empty() ? std::getenv("FLOWCORO_REACTOR") : nullptr;
    if (wanted != nullptr) {
        name = wanted;
    }
    std::string known;
    for (const Backend& backend : backends()) {
        if (backend.name == name) {
            return backend.make(options);
        }
        known += (known.empty() ? "" : ", ") + std::string(backend.name);
    }
    if (!name.empty()) {
        throw std::invalid_argument(
            std::string(wanted != nullptr ? "FLOWCORO_REACTOR: " : "reactor: ") + "no backend '" +
            std::string(name) + "' on this platform; there are: " + known);
    }
    for (std::size_t i = 0; i < backends().size(); ++i) {
        try {
            return backends()[i].make(options);
        } catch (const std::system_error&) {
            if (i + 1 == backends().size()) {
                throw;
            }
        }
    }
    throw std::invalid_argument("reactor: there is no backend for this platform");
}

}  // namespace flowcoro::reactor
