// Python classes over flowcoro/lockfree/. Each holds Python objects as owned references.
//
// The GIL is held throughout: no call here waits, so there is nothing to release it for. It
// also makes the queue quiescent whenever the garbage collector looks into it, since no
// operation runs Python code while it has a cell claimed.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <utility>

#include "arguments.hpp"
#include "bindings.hpp"
#include "flowcoro/lockfree/queue.hpp"
#include "references.hpp"

namespace flowcoro::bindings {

namespace {

using ObjectQueue = lockfree::Queue<nb::object>;

// 2^31 cells take 32 GiB: more is a mistake, and cheaper to refuse than to try.
constexpr std::int64_t max_capacity = std::int64_t{1} << 31;

class PyQueue {
  public:
    explicit PyQueue(std::size_t capacity) : queue_(capacity) {}

    PyQueue(const PyQueue&) = delete;
    PyQueue& operator=(const PyQueue&) = delete;

    ~PyQueue() { clear(); }

    bool try_put(nb::object item) noexcept { return queue_.try_push(std::move(item)); }

    nb::object try_get(nb::object fallback) noexcept {
        std::optional<nb::object> item = queue_.try_pop();
        return item ? std::move(*item) : std::move(fallback);
    }

    std::size_t put_many(nb::handle items) {
        // A sequence only: of an iterator the caller could not tell which items were refused.
        if (!PySequence_Check(items.ptr())) {
            raise_wrong_type("items must be a sequence, such as a list or tuple", items);
        }
        const nb::object fast = nb::steal(PySequence_Fast(items.ptr(), "put_many(): not iterable"));
        if (!fast.is_valid()) {
            nb::raise_python_error();
        }
        // No Python code runs from here on, so the list cannot change.
        const Py_ssize_t count = PySequence_Fast_GET_SIZE(fast.ptr());
        Py_ssize_t accepted = 0;
        while (accepted < count &&
               queue_.try_push(nb::borrow(PySequence_Fast_GET_ITEM(fast.ptr(), accepted)))) {
            ++accepted;
        }
        return static_cast<std::size_t>(accepted);
    }

    nb::object get_many(nb::handle max_items) {
        if (!PyIndex_Check(max_items.ptr())) {
            raise_wrong_type("max_items must be an integer", max_items);
        }
        // A null exception clips what does not fit; more than that the queue never holds.
        const Py_ssize_t limit = PyNumber_AsSsize_t(max_items.ptr(), nullptr);
        if (limit == -1 && PyErr_Occurred()) {
            nb::raise_python_error();
        }
        if (limit < 0) {
            throw nb::value_error("max_items must not be negative");
        }
        // The memory comes first: once an item is out of the queue, nothing may fail.
        const auto wanted = std::min(limit, static_cast<Py_ssize_t>(queue_.size_approx()));
        nb::object list = nb::steal(PyList_New(wanted));
        if (!list.is_valid()) {
            nb::raise_python_error();
        }
        Py_ssize_t got = 0;
        while (got < wanted) {
            std::optional<nb::object> item = queue_.try_pop();
            if (!item) {
                break;  // allocating the list ran the collector, and that ran someone's code
            }
            PyList_SET_ITEM(list.ptr(), got, item->release().ptr());
            ++got;
        }
        if (got < wanted && PyList_SetSlice(list.ptr(), got, wanted, nullptr) != 0) {
            nb::raise_python_error();
        }
        return list;
    }

    [[nodiscard]] std::size_t size() const noexcept { return queue_.size_approx(); }

    [[nodiscard]] std::size_t capacity() const noexcept { return queue_.capacity(); }

    int traverse(visitproc visit, void* arg) const {
        int result = 0;
        queue_.visit_quiescent([&](const nb::object& item) {
            if (result == 0) {
                result = visit(item.ptr(), arg);
            }
        });
        return result;
    }

    // Drops what is there now. Finalizers may put new items meanwhile; those stay, or this
    // could go on for ever.
    void clear() noexcept {
        for (std::size_t left = queue_.size_approx(); left > 0; --left) {
            std::optional<nb::object> item = queue_.try_pop();
            if (!item) {
                return;
            }
            release(std::move(*item));
        }
    }

  private:
    ObjectQueue queue_;
};

int queue_traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    // The collector may come between __new__ and __init__.
    if (!nb::inst_ready(self)) {
        return 0;
    }
    return nb::inst_ptr<PyQueue>(self)->traverse(visit, arg);
}

int queue_clear(PyObject* self) {
    if (nb::inst_ready(self)) {
        nb::inst_ptr<PyQueue>(self)->clear();
    }
    return 0;
}

// nb::type_slots wants this shape: ended by {0, nullptr}.
const PyType_Slot queue_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(&queue_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(&queue_clear)},
    {0, nullptr},
};

void bind_queue(nb::module_& module) {
    nb::class_<PyQueue>(module, "Queue", nb::type_slots(queue_slots), nb::is_generic(),
                        nb::is_weak_referenceable(), nb::sig("class Queue(Generic[_T])"),
                        R"(A bounded first-in, first-out queue for many producers and consumers.

No call waits: a full queue refuses and an empty one says so. Any thread may call any method.
`Queue[int](8)` works as `Queue(8)` does; the parameter is for type checkers. An empty queue
is false, as an empty list is.

Args:
    capacity: How many items it holds at most: 1 to 2**31, kept exactly. The memory, 16 bytes
        for each, is allocated at once.

Raises:
    TypeError: `capacity` is not an integer.
    ValueError: `capacity` is below 1.
    OverflowError: `capacity` is above 2**31.
    MemoryError: There is no memory for so many.)")
        .def(
            "__init__",
            [](PyQueue* self, nb::handle capacity) {
                new (self) PyQueue(count_from(capacity, "capacity", max_capacity));
            },
            nb::arg("capacity").none(), nb::sig("def __init__(self, capacity: int) -> None"))
        .def("try_put", &PyQueue::try_put, nb::arg("item").none(),
             nb::sig("def try_put(self, item: _T) -> bool"),
             R"(Put `item` at the end.

Args:
    item: Any object; `None` too.

Returns:
    Whether there was room; if not, the queue is as it was.)")
        .def(
            "try_get", [](PyQueue& self) { return self.try_get(nb::none()); },
            nb::sig("def try_get(self) -> _T | None"),
            R"(Take the first item.

Returns:
    The item, or `None` when there is none. If `None` may be an item, pass a `default` of
    your own.)")
        .def("try_get", &PyQueue::try_get, nb::arg("default").none(),
             nb::sig("def try_get(self, default: _D) -> _T | _D"),
             R"(Take the first item.

Args:
    default: What to return when there is none.

Returns:
    The item, or `default`.)")
        .def("put_many", &PyQueue::put_many, nb::arg("items").none(),
             nb::sig("def put_many(self, items: Sequence[_T]) -> int"),
             R"(Put items at the end, in their order, until the queue is full.

Other threads may put theirs in between.

Args:
    items: A sequence, not an iterator, so that `items[accepted:]` is what was refused.

Returns:
    How many were accepted.

Raises:
    TypeError: `items` is not a sequence.)")
        .def("get_many", &PyQueue::get_many, nb::arg("max_items").none(),
             nb::sig("def get_many(self, max_items: int) -> list[_T]"),
             R"(Take up to `max_items` of the items that are there now, the first first.

Args:
    max_items: 0 or more.

Returns:
    The items; an empty list when there are none.

Raises:
    TypeError: `max_items` is not an integer.
    ValueError: `max_items` is negative.)")
        .def("__len__", &PyQueue::size, nb::sig("def __len__(self) -> int"),
             "How many items it holds: an estimate while other threads use the queue.")
        .def_prop_ro("capacity", &PyQueue::capacity, nb::sig("def capacity(self) -> int"),
                     "How many items it holds at most.");
}

}  // namespace

void bind_lockfree(nb::module_& module) {
    bind_queue(module);
}

}  // namespace flowcoro::bindings
