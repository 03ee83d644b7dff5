// The one backend that the behaviour suite is run over where kqueue is a stand-in.
#pragma once

#include <memory>
#include <vector>

#include "flowcoro/reactor/kqueue.hpp"
#include "flowcoro/reactor/select.hpp"

namespace flowcoro::test {

inline const std::vector<reactor::Backend>& usable_backends() {
    static const std::vector<reactor::Backend> usable = {
        {"kqueue",
         [](const reactor::Options& options) -> std::unique_ptr<reactor::Reactor> {
             return std::make_unique<reactor::KqueueReactor>(options);
         }},
    };
    return usable;
}

}  // namespace flowcoro::test
