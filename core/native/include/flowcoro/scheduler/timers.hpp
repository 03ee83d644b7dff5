// Timers: Runnables that are submitted to a scheduler when their time has come.
//
// One thread, which is started by the first timer and sleeps until the earliest is due. Under a
// mutex, since who sets a timer is about to wait anyway; insert and cancel are O(log n). The clock
// is the monotonic one. Nothing is run here, and no lock is held while a Runnable is submitted.
//
// Protocol: entries_, next_id_ and stopping_ are guarded by mutex_. An entry is taken out by the
// one who fires it or by the one who cancels it, so that a Runnable has one owner at any time.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "flowcoro/scheduler/runnable.hpp"
#include "flowcoro/scheduler/scheduler.hpp"

namespace flowcoro::scheduler {

class Timers {
  public:
    using Clock = std::chrono::steady_clock;
    using Id = std::pair<Clock::time_point, std::uint64_t>;

    Timers() = default;
    Timers(const Timers&) = delete;
    Timers& operator=(const Timers&) = delete;

    ~Timers() { stop(); }

    // Submits `work` to `scheduler` at `when`; if that refuses, or stop() comes first, it is
    // abandoned, in the latter case perhaps at once. Throws std::bad_alloc and, when there is no
    // thread to be had, std::system_error; the work is then still the caller's.
    Id start(Clock::time_point when, Scheduler& scheduler, Runnable& work) {
        Id id{when, 0};
        {
            const std::scoped_lock lock(mutex_);
            if (!stopping_) {
                if (!thread_.joinable()) {
                    thread_ = std::thread([this] { serve(); });
                }
                id.second = ++next_id_;
                entries_.emplace(id, Entry{&scheduler, &work});
                if (entries_.begin()->first == id) {
                    earlier_.notify_one();
                }
                return id;
            }
        }
        work.meet(Fate::abandon);
        return id;
    }

    // Whether it was in time: the work is then the caller's again.
    bool cancel(const Id& id) {
        const std::scoped_lock lock(mutex_);
        return entries_.erase(id) != 0;
    }

    // Abandons what is not due, for ever. Idempotent; not from the timers' own thread.
    void stop() {
        {
            const std::scoped_lock lock(mutex_);
            stopping_ = true;
        }
        earlier_.notify_one();
        const std::scoped_lock joining(join_mutex_);
        if (thread_.joinable()) {
            thread_.join();
        }
        std::map<Id, Entry> rest;
        {
            const std::scoped_lock lock(mutex_);
            rest.swap(entries_);
        }
        for (const auto& [id, entry] : rest) {
            entry.work->meet(Fate::abandon);
        }
    }

    [[nodiscard]] std::size_t pending() const {
        const std::scoped_lock lock(mutex_);
        return entries_.size();
    }

  private:
    struct Entry {
        Scheduler* scheduler;
        Runnable* work;
    };

    void serve() {
        std::unique_lock lock(mutex_);
        while (!stopping_) {
            if (entries_.empty()) {
                earlier_.wait(lock);
                continue;
            }
            const Id first = entries_.begin()->first;
            if (Clock::now() < first.first) {
                earlier_.wait_until(lock, first.first);
                continue;
            }
            const Entry entry = entries_.begin()->second;
            entries_.erase(entries_.begin());
            lock.unlock();
            submit(entry);
            lock.lock();
        }
    }

    static void submit(const Entry& entry) {
        for (;;) {
            try {
                if (!entry.scheduler->submit(*entry.work)) {
                    entry.work->meet(Fate::abandon);
                }
                return;
            } catch (const std::bad_alloc&) {
                // Late is better than never, and the memory may come back.
                std::this_thread::sleep_for(std::chrono::milliseconds(10));
            }
        }
    }

    mutable std::mutex mutex_;
    std::mutex join_mutex_;
    std::condition_variable earlier_;
    std::map<Id, Entry> entries_;
    std::uint64_t next_id_ = 0;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace flowcoro::scheduler
