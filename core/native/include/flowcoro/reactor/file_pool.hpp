// FilePool: threads that make the file calls which a kernel does not do asynchronously.
//
// Protocol
// --------
//   queue_, done_, stopping_   under mutex_. done_ holds the operations whose call has returned;
//                              the thread that makes it non-empty wakes the reactor.
//   any_done_                  whether done_ is not empty: so that the reactor need not lock to
//                              see that it is. Set (release) and cleared under mutex_.
//
// An operation is the pool's from start() until take_done() gives it back, or cancel() does.
// Threads are started as they are needed, and end with the pool.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/reactor.hpp"

#if defined(_WIN32)
#    include "flowcoro/reactor/windows_calls.hpp"
#else
#    include "flowcoro/reactor/posix_calls.hpp"
#endif

namespace flowcoro::reactor {

class FilePool {
  public:
    FilePool(Reactor& reactor, std::size_t threads) : reactor_(reactor), most_(threads) {
        threads_.reserve(most_);
    }

    FilePool(const FilePool&) = delete;
    FilePool& operator=(const FilePool&) = delete;

    // What is queued is not performed. Its results are lost, unless take_done() follows stop().
    ~FilePool() { stop(); }

    // False when there is no thread to be had.
    [[nodiscard]] bool start(Operation& operation) {
        const std::scoped_lock lock(mutex_);
        if (idle_ == 0 && threads_.size() < most_) {
            try {
                threads_.emplace_back([this] { serve(); });
            } catch (const std::system_error&) {
                if (threads_.empty()) {
                    return false;
                }
            }
        }
        queue_.push_back(operation);
        work_.notify_one();
        return true;
    }

    // Whether it was still queued: then it is the caller's again.
    [[nodiscard]] bool cancel(Operation& operation) {
        const std::scoped_lock lock(mutex_);
        if (operation.picked_) {
            return false;
        }
        queue_.remove(operation);
        return true;
    }

    // Takes back those that are queued and that `wanted` tells.
    template <typename Predicate>
    OperationList cancel_if(const Predicate& wanted) {
        OperationList taken;
        const std::scoped_lock lock(mutex_);
        for (Operation* each = queue_.first(); each != nullptr;) {
            Operation* const next = each->after_;
            if (wanted(*each)) {
                queue_.remove(*each);
                taken.push_back(*each);
            }
            each = next;
        }
        return taken;
    }

    [[nodiscard]] bool has_done() const noexcept {
        return any_done_.load(detail::memory_order_acquire);
    }

    // Calls visit(operation, result) for each that is done.
    template <typename Visitor>
    void take_done(const Visitor& visit) {
        if (!has_done()) {
            return;
        }
        OperationList done;
        {
            const std::scoped_lock lock(mutex_);
            std::swap(done, done_);
            any_done_.store(false, detail::memory_order_relaxed);
        }
        while (Operation* const operation = done.pop_front()) {
            visit(*operation, operation->result_);
        }
    }

    // Ends the threads once they have made the calls that they are at.
    void stop() {
        {
            const std::scoped_lock lock(mutex_);
            stopping_ = true;
        }
        work_.notify_all();
        for (std::thread& thread : threads_) {
            thread.join();
        }
        threads_.clear();
    }

    // In the child of a fork, where the threads are not.
    void forget_threads() {
        for (std::thread& thread : threads_) {
            thread.detach();
        }
        threads_.clear();
    }

  private:
    void serve() {
        std::unique_lock lock(mutex_);
        for (;;) {
            ++idle_;
            work_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
            --idle_;
            if (stopping_) {
                return;
            }
            Operation& operation = *queue_.pop_front();
            operation.picked_ = true;
            lock.unlock();
            operation.result_ = perform(operation);
            lock.lock();
            const bool first = done_.empty();
            done_.push_back(operation);
            if (first) {
                any_done_.store(true, detail::memory_order_release);
                reactor_.wake();
            }
        }
    }

    Reactor& reactor_;
    const std::size_t most_;
    std::mutex mutex_;
    std::condition_variable work_;
    OperationList queue_;
    std::size_t idle_ = 0;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
    OperationList done_;
    detail::atomic<bool> any_done_{false};
};

}  // namespace flowcoro::reactor
