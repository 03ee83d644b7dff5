// The containers of flowcoro/lockfree/ behind one interface, holding owned references.
//
// A store has
//   bounded             whether put() may refuse
//   bool put(item)      true: it has the caller's reference now. May throw std::bad_alloc.
//   PyObject* get()     the next item, with its reference; null: none
//   put_many(items, n)  where the container has batches: as many as there is room for, with the
//                       caller's references. Returns how many.
//   get_many(n, sink)   likewise; calls sink(item) for each. Returns how many.
//   size()              an estimate while others use it
//   capacity()          where bounded
//   visit(function)     each item; while nobody uses it
//
// No operation runs Python code, so each is whole when the world stops for a garbage collection.
// That is also why the sides which belong to one thread can be guarded by a mutex against use by
// several (ft_mutex: nothing with the GIL).
#pragma once

#include <cstddef>

#include "bindings.hpp"
#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/lockfree/queue.hpp"
#include "flowcoro/lockfree/ring_buffer.hpp"
#include "flowcoro/lockfree/stack.hpp"
#include "flowcoro/lockfree/unbounded_queue.hpp"
#include "flowcoro/lockfree/work_stealing_deque.hpp"

namespace flowcoro::bindings {

// How many items a container holds that does not count them itself. An item is counted before
// it goes in and after it went out, so that the count is never below the truth.
class Count {
  public:
    void add(std::size_t number = 1) noexcept { change(number); }

    void subtract(std::size_t number = 1) noexcept { change(0 - number); }

    [[nodiscard]] std::size_t get() const noexcept {
        return count_.load(detail::memory_order_relaxed);
    }

  private:
    void change(std::size_t by) noexcept {
#if defined(Py_GIL_DISABLED)
        count_.fetch_add(by, detail::memory_order_relaxed);
#else
        count_.store(get() + by, detail::memory_order_relaxed);
#endif
    }

    detail::atomic<std::size_t> count_{0};
};

class QueueStore {
  public:
    static constexpr bool bounded = true;

    explicit QueueStore(std::size_t capacity) : queue_(capacity) {}

    bool put(PyObject* item) noexcept { return queue_.try_push(std::move(item)); }

    PyObject* get() noexcept { return queue_.try_pop().value_or(nullptr); }

    std::size_t put_many(PyObject** items, std::size_t number) noexcept {
        return queue_.push_many(items, number);
    }

    template <typename Sink>
    std::size_t get_many(std::size_t number, const Sink& sink) noexcept {
        return queue_.pop_many(number, sink);
    }

    [[nodiscard]] std::size_t size() const noexcept { return queue_.size_approx(); }

    [[nodiscard]] std::size_t capacity() const noexcept { return queue_.capacity(); }

    template <typename Visitor>
    void visit(const Visitor& visitor) const {
        queue_.visit_quiescent(visitor);
    }

  private:
    lockfree::Queue<PyObject*> queue_;
};

class RingBufferStore {
  public:
    static constexpr bool bounded = true;

    explicit RingBufferStore(std::size_t capacity) : buffer_(capacity) {}

    bool put(PyObject* item) noexcept {
        const nb::ft_lock_guard guard(producer_);
        return buffer_.try_push(std::move(item));
    }

    PyObject* get() noexcept {
        const nb::ft_lock_guard guard(consumer_);
        return buffer_.try_pop().value_or(nullptr);
    }

    [[nodiscard]] std::size_t size() const noexcept { return buffer_.size_approx(); }

    [[nodiscard]] std::size_t capacity() const noexcept { return buffer_.capacity(); }

    template <typename Visitor>
    void visit(const Visitor& visitor) const {
        buffer_.visit_quiescent(visitor);
    }

  private:
    lockfree::RingBuffer<PyObject*> buffer_;
    nb::ft_mutex producer_;
    nb::ft_mutex consumer_;
};

// For UnboundedQueue and Stack.
template <typename Container>
class UnboundedStore {
  public:
    static constexpr bool bounded = false;

    bool put(PyObject* item) {
        count_.add();
        try {
            container_.push(std::move(item));
        } catch (...) {
            count_.subtract();
            throw;
        }
        return true;
    }

    PyObject* get() noexcept {
        PyObject* const item = container_.try_pop().value_or(nullptr);
        if (item != nullptr) {
            count_.subtract();
        }
        return item;
    }

    std::size_t put_many(PyObject** items, std::size_t number) noexcept
        requires requires(Container& container) { container.push_many(items, number); }
    {
        count_.add(number);
        const std::size_t put = container_.push_many(items, number);
        count_.subtract(number - put);
        return put;
    }

    template <typename Sink>
    std::size_t get_many(std::size_t number, const Sink& sink) noexcept
        requires requires(Container& container) { container.pop_many(number, sink); }
    {
        const std::size_t got = container_.pop_many(number, sink);
        count_.subtract(got);
        return got;
    }

    [[nodiscard]] std::size_t size() const noexcept { return count_.get(); }

    template <typename Visitor>
    void visit(const Visitor& visitor) const {
        container_.visit_quiescent(visitor);
    }

  private:
    Container container_;
    Count count_;
};

using UnboundedQueueStore = UnboundedStore<lockfree::UnboundedQueue<PyObject*>>;
using StackStore = UnboundedStore<lockfree::Stack<PyObject*>>;

class DequeStore {
  public:
    static constexpr bool bounded = false;

    explicit DequeStore(std::size_t capacity) : deque_(capacity) {}

    bool put(PyObject* item) {
        const nb::ft_lock_guard guard(owner_);
        deque_.push(std::move(item));
        return true;
    }

    PyObject* get() noexcept {
        const nb::ft_lock_guard guard(owner_);
        return deque_.pop().value_or(nullptr);
    }

    // The oldest.
    PyObject* steal() noexcept {
        for (;;) {
            const auto stolen = deque_.steal();
            if (stolen.outcome != lockfree::Steal::lost) {
                return stolen.value.value_or(nullptr);
            }
        }
    }

    [[nodiscard]] std::size_t size() const noexcept { return deque_.size_approx(); }

    template <typename Visitor>
    void visit(const Visitor& visitor) const {
        deque_.visit_quiescent(visitor);
    }

  private:
    lockfree::WorkStealingDeque<PyObject*> deque_;
    nb::ft_mutex owner_;
};

}  // namespace flowcoro::bindings
