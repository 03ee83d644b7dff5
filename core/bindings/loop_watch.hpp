// LoopWatch: sees that a loop is blocked, while it blocks.
//
// One for each process, used by one Python thread, which is in next() without the GIL most of the
// time: it wakes a few times in the shortest threshold, and compares counters that the loops count
// anyway (loop_gauges.hpp). A loop that is busy and whose counters have not moved for its
// threshold is blocked. Since this needs no GIL, a call that holds the GIL is seen as well, and
// told of as soon as it lets go.
//
// Protocol: everything is guarded by mutex_, in which nothing calls Python and nothing waits for
// the GIL. In a fork's child the mutex may be locked for good, by a thread that is not there: a
// child has a watch of its own, and the parent's is left as it is.
#pragma once

#include <Python.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "bindings.hpp"
#include "loop_gauges.hpp"

namespace flowcoro::bindings::loop {

class LoopWatch {
  public:
    using Clock = LoopGauges::Clock;

    // What is to be told of a stall: it has lasted for the threshold, or twice as long as when it
    // was told of last, or it is over.
    struct Report {
        std::uint64_t loop;
        std::uint64_t moves;  // of the gauges, for as long as it lasts
        Clock::time_point since;
        Clock::time_point until;
        bool over;
    };

    // This process's.
    static LoopWatch& get();

    // Anew, if it is watched already. Throws std::bad_alloc.
    void watch(std::uint64_t loop, std::shared_ptr<LoopGauges> gauges, Clock::duration threshold);

    void unwatch(std::uint64_t loop) noexcept;

    // Waits for something to tell; nothing: no loop is watched any more.
    std::optional<Report> next();

    struct State {
        std::size_t loops;
        std::uint64_t looks;
    };

    [[nodiscard]] State state();

  private:
    class Watched;

    explicit LoopWatch(unsigned generation) noexcept;
    ~LoopWatch();

    [[nodiscard]] Clock::duration interval() const noexcept;

    const unsigned generation_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Watched> watched_;
    std::uint64_t looks_ = 0;
};

void bind_watch(nb::module_& module);

// Methods of LoopCore.
PyObject* set_watch(PyObject* self, PyObject* threshold) noexcept;
PyObject* get_moves(PyObject* self, PyObject* unused) noexcept;
PyObject* get_stats(PyObject* self, PyObject* unused) noexcept;
PyObject* get_running_callback(PyObject* self, PyObject* unused) noexcept;

}  // namespace flowcoro::bindings::loop
