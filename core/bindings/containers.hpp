// What all containers have in common in Python: one class template over a store (stores.hpp).
//
// The methods here never run Python code between taking an item out and giving it to the caller,
// nor between a look at the container and the act that depends on it; wake-ups come after.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <new>
#include <utility>

#include "arguments.hpp"
#include "bindings.hpp"
#include "references.hpp"
#include "wait_list.hpp"
#include "waiter.hpp"

namespace flowcoro::bindings {

template <typename Store>
class Container {
  public:
    static constexpr bool bounded = Store::bounded;

    template <typename... Arguments>
    explicit Container(PyObject* self, Arguments... arguments)
        : self_(self), store_(arguments...) {}

    Container(const Container&) = delete;
    Container& operator=(const Container&) = delete;

    ~Container() { clear(); }

    bool try_put(PyObject* item) {
        if (!store(item)) {
            return false;
        }
        getters_.notify();
        return true;
    }

    PyObject* try_get(PyObject* fallback) noexcept { return or_else(take(), fallback); }

    PyObject* try_steal(PyObject* fallback) noexcept { return or_else(store_.steal(), fallback); }

    void put(PyObject* item, nb::handle timeout) {
        const Deadline deadline = deadline_from(timeout);
        if (try_put(item)) {
            return;
        }
        if constexpr (bounded) {
            wait(putters_, deadline, "no room within the timeout",
                 [&] { return try_put(item) ? item : nullptr; });
        }
    }

    PyObject* get(nb::handle timeout) {
        return take_in_time(timeout, [this] { return take(); });
    }

    PyObject* steal(nb::handle timeout) {
        return take_in_time(timeout, [this] { return store_.steal(); });
    }

    std::size_t put_many(nb::handle items) {
        // A sequence only: of an iterator the caller could not tell which items were refused.
        if (!PySequence_Check(items.ptr())) {
            raise_wrong_type("items must be a sequence, such as a list or tuple", items);
        }
#if defined(Py_GIL_DISABLED)
        // Another thread may change a list at any time.
        const nb::object fast = nb::steal(PySequence_Tuple(items.ptr()));
#else
        // No Python code runs until all are in, so a list cannot change.
        const nb::object fast = nb::steal(PySequence_Fast(items.ptr(), "put_many(): not iterable"));
#endif
        if (!fast.is_valid()) {
            nb::raise_python_error();
        }
        const Py_ssize_t count = PySequence_Fast_GET_SIZE(fast.ptr());
        PyObject** const each = PySequence_Fast_ITEMS(fast.ptr());
        const std::size_t accepted = store_all(each, static_cast<std::size_t>(count));
        getters_.notify(accepted);
        return accepted;
    }

    nb::object get_many(nb::handle max_items) {
        // The memory comes first: once an item is out, nothing may fail.
        const std::size_t limit = limit_from(max_items);
        const auto wanted = static_cast<Py_ssize_t>(std::min(limit, store_.size()));
        nb::object list = nb::steal(PyList_New(wanted));
        if (!list.is_valid()) {
            nb::raise_python_error();
        }
        // Others may take some meanwhile; then the list gets shorter.
        Py_ssize_t got = 0;
        const auto append = [&](PyObject* item) noexcept {
            PyList_SET_ITEM(list.ptr(), got, item);
            ++got;
        };
        if constexpr (requires { store_.get_many(std::size_t{}, append); }) {
            while (got < wanted &&
                   store_.get_many(static_cast<std::size_t>(wanted - got), append) != 0) {
            }
        } else {
            while (got < wanted) {
                PyObject* const item = store_.get();
                if (item == nullptr) {
                    break;
                }
                append(item);
            }
        }
        if constexpr (bounded) {
            putters_.notify(static_cast<std::size_t>(got));
        }
        if (got < wanted && PyList_SetSlice(list.ptr(), got, wanted, nullptr) != 0) {
            nb::raise_python_error();
        }
        return list;
    }

    [[nodiscard]] std::size_t size() const noexcept { return store_.size(); }

    [[nodiscard]] std::size_t capacity() const noexcept { return store_.capacity(); }

    // How many wait for an item, and for room.
    [[nodiscard]] nb::tuple waiting() const {
        return nb::make_tuple(getters_.size(), putters_.size());
    }

    // For the coroutines in flowcoro/_waiting.py: steps 2 and 5 of the protocol (wait_list.hpp).
    nb::object wait_for_item(bool again) { return enlist(getters_, again); }

    nb::object wait_for_room(bool again) { return enlist(putters_, again); }

    void leave(Waiter& waiter) {
        if (getters_.owns(waiter)) {
            end(getters_, waiter);
        } else if (putters_.owns(waiter)) {
            end(putters_, waiter);
        } else {
            throw nb::value_error("this Waiter does not wait here");
        }
    }

    int traverse(visitproc visit, void* arg) const {
        int result = 0;
        store_.visit([&](PyObject* item) {
            if (result == 0) {
                result = visit(item, arg);
            }
        });
        if (result == 0) {
            result = getters_.traverse(visit, arg);
        }
        return result != 0 ? result : putters_.traverse(visit, arg);
    }

    // Drops what is there now. Finalizers may put new items meanwhile; those stay, or this
    // could go on for ever.
    void clear() noexcept {
        for (std::size_t left = store_.size(); left > 0; --left) {
            PyObject* const item = store_.get();
            if (item == nullptr) {
                break;
            }
            release(item);
        }
        getters_.clear();
        putters_.clear();
    }

  private:
    // A thread's place in a list, for as long as it waits.
    class Place {
      public:
        Place(Container& container, WaitList& list)
            : container_(container), list_(list), waiter_(container.enlist(list, false)) {}

        Place(const Place&) = delete;
        Place& operator=(const Place&) = delete;

        ~Place() { container_.end(list_, waiter()); }

        Waiter& waiter() noexcept { return Waiter::of(waiter_); }

        void join_again() { waiter_ = container_.enlist(list_, true); }

      private:
        Container& container_;
        WaitList& list_;
        nb::object waiter_;
    };

    // Puts a new reference; the caller notifies.
    bool store(PyObject* item) {
        Py_INCREF(item);
        bool stored = false;
        try {
            stored = store_.put(item);
        } catch (...) {
            Py_DECREF(item);
            throw;
        }
        if (!stored) {
            Py_DECREF(item);
        }
        return stored;
    }

    // Puts new references to as many as there is room, and memory, for; the caller notifies.
    // Raises MemoryError only when there is none for the first.
    std::size_t store_all(PyObject* const* items, std::size_t count) {
        std::size_t stored = 0;
        if constexpr (requires(PyObject** batch) { store_.put_many(batch, count); }) {
            // A reference comes before its item can be seen by others.
            std::array<PyObject*, 64> batch;
            while (stored < count) {
                const std::size_t number = std::min(count - stored, batch.size());
                for (std::size_t i = 0; i < number; ++i) {
                    batch[i] = Py_NewRef(items[stored + i]);
                }
                const std::size_t put = store_.put_many(batch.data(), number);
                for (std::size_t i = put; i < number; ++i) {
                    Py_DECREF(batch[i]);
                }
                stored += put;
                if (put == 0) {
                    break;
                }
            }
            if (stored == 0 && count != 0 && !bounded) {
                throw std::bad_alloc();
            }
        } else {
            try {
                while (stored < count && store(items[stored])) {
                    ++stored;
                }
            } catch (const std::bad_alloc&) {
                if (stored == 0) {
                    throw;
                }
            }
        }
        return stored;
    }

    PyObject* take() noexcept {
        PyObject* const item = store_.get();
        if constexpr (bounded) {
            if (item != nullptr) {
                putters_.notify();
            }
        }
        return item;
    }

    static PyObject* or_else(PyObject* item, PyObject* fallback) noexcept {
        return item != nullptr ? item : Py_NewRef(fallback);
    }

    template <typename Attempt>
    PyObject* take_in_time(nb::handle timeout, const Attempt& attempt) {
        const Deadline deadline = deadline_from(timeout);
        if (PyObject* const item = attempt()) {
            return item;
        }
        return wait(getters_, deadline, "no item within the timeout", attempt);
    }

    // Blocks the thread until the attempt gives something.
    template <typename Attempt>
    PyObject* wait(WaitList& list, const Deadline& deadline, const char* late,
                   const Attempt& attempt) {
        Place place(*this, list);
        for (;;) {
            if (PyObject* const done = attempt()) {
                return done;
            }
            const bool woken = place.waiter().wait(deadline);
            // At the deadline, too: the wake-up may be with one that does not get to run.
            if (PyObject* const done = attempt()) {
                return done;
            }
            if (!woken) {
                PyErr_SetString(PyExc_TimeoutError, late);
                nb::raise_python_error();
            }
            place.join_again();
        }
    }

    nb::object enlist(WaitList& list, bool again) {
        nb::object waiter = Waiter::make();
        list.join(Waiter::of(waiter), self_, again ? WaitList::End::front : WaitList::End::back);
        return waiter;
    }

    // A wait ends, one way or another: what was notified and is still there is for the next.
    void end(WaitList& list, Waiter& waiter) noexcept {
        if (list.leave(waiter) && (&list == &getters_ ? has_item() : has_room())) {
            list.notify();
        }
    }

    [[nodiscard]] bool has_item() const noexcept { return store_.size() != 0; }

    [[nodiscard]] bool has_room() const noexcept {
        if constexpr (bounded) {
            return store_.size() < store_.capacity();
        } else {
            return true;
        }
    }

    PyObject* const self_;
    Store store_;
    WaitList getters_;
    WaitList putters_;
};

}  // namespace flowcoro::bindings
