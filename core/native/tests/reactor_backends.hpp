// Which reactors the behaviour suite is run over: all that this machine lets us have.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "check.hpp"
#include "flowcoro/reactor/reactor.hpp"
#include "flowcoro/reactor/select.hpp"

#if defined(__linux__)
#    include "flowcoro/reactor/kqueue.hpp"  // over kqueue_stand_in/sys/event.h
#endif

namespace flowcoro::test {

// Of this platform; says loudly what is left out, and why.
inline const std::vector<reactor::Backend>& own_backends() {
    static const std::vector<reactor::Backend> usable = [] {
        std::vector<reactor::Backend> found;
        for (const reactor::Backend& backend : reactor::backends()) {
            const std::string reason = reactor::why_not(backend.name);
            if (reason.empty()) {
                found.push_back(backend);
            } else {
                std::printf("SKIPPED %s: %s\n", std::string(backend.name).c_str(), reason.c_str());
            }
        }
        return found;
    }();
    CHECK(!usable.empty());
    return usable;
}

// These, and on Linux that of kqueue, over a stand-in of its system calls.
inline const std::vector<reactor::Backend>& usable_backends() {
    static const std::vector<reactor::Backend> usable = [] {
        std::vector<reactor::Backend> found = own_backends();
#if defined(__linux__)
        found.push_back(
            {"kqueue", [](const reactor::Options& options) -> std::unique_ptr<reactor::Reactor> {
                 return std::make_unique<reactor::KqueueReactor>(options);
             }});
#endif
        return found;
    }();
    return usable;
}

// Calls body(reactor) for each backend; a failure says which.
template <typename Body>
void on_each(const Body& body, const reactor::Options& options = {}) {
    for (const reactor::Backend& backend : usable_backends()) {
        try {
            const std::unique_ptr<reactor::Reactor> reactor = backend.make(options);
            CHECK(reactor->name() == backend.name);
            body(*reactor);
            CHECK(reactor->in_flight() == 0);
        } catch (const Failure& failure) {
            throw Failure(std::string(backend.name) + ": " + failure.what());
        }
    }
}

}  // namespace flowcoro::test
