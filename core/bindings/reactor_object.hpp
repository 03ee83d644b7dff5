// The Python class flowcoro.reactor.Reactor: a SharedReactor that a thread of Python's runs.
//
// Protocol: `shared_` is the object's reference, from the first moment to the last; everything
// that two threads might do at once is settled in it. `stopped_` is set by stop(), cleared by the
// run() that it ends. A fork changes fork_generation(): then this is the parent's reactor, which
// refuses everything and gives back what is this process's own.
#pragma once

#include <cstddef>
#include <memory>

#include "arguments.hpp"
#include "bindings.hpp"
#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/reactor/reactor.hpp"
#include "flowcoro/transport/shared_reactor.hpp"

namespace flowcoro::bindings {

class ReactorObject {
  public:
    explicit ReactorObject(std::unique_ptr<reactor::Reactor> reactor);
    ReactorObject(const ReactorObject&) = delete;
    ReactorObject& operator=(const ReactorObject&) = delete;
    ~ReactorObject();

    [[nodiscard]] const char* name() const noexcept { return name_; }

    // Each raises RuntimeError when it is refused.
    std::size_t run_once(Deadline deadline);
    void run();
    void close();
    [[nodiscard]] std::size_t in_flight() const;

    // Any thread.
    void stop() noexcept;
    void wake() noexcept;

    // For the native API: raises RuntimeError when it is closed or this is the child of a fork.
    [[nodiscard]] transport::SharedReactor& shared() const;

    // For `with`.
    void check_open() const { static_cast<void>(shared()); }

  private:
    [[nodiscard]] bool is_of_parent() const noexcept;
    bool closed_where_it_runs() noexcept;
    void check_process() const;

    const char* const name_;
    transport::SharedReactor* const shared_;
    const unsigned generation_;
    detail::atomic<bool> stopped_{false};
    detail::atomic<bool> closed_{false};
};

}  // namespace flowcoro::bindings
