// Parts of a transport or listener: operations and timers whose handlers are its methods.
#pragma once

#include <utility>

#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/timer_heap.hpp"

namespace flowcoro::transport {

template <typename Kind, typename Owner, void (Owner::*method)(reactor::Completion&&)>
struct Part : Kind {
    explicit Part(Owner& of) noexcept : Kind(&Part::handle), owner(of) {}

    static void handle(reactor::Operation& self, reactor::Completion&& completion) {
        (static_cast<Part&>(self).owner.*method)(std::move(completion));
    }

    Owner& owner;
};

template <typename Owner, void (Owner::*method)()>
struct TimerPart : reactor::Timer {
    explicit TimerPart(Owner& of) noexcept : Timer(&TimerPart::handle), owner(of) {}

    static void handle(reactor::Timer& self) { (static_cast<TimerPart&>(self).owner.*method)(); }

    Owner& owner;
};

}  // namespace flowcoro::transport
