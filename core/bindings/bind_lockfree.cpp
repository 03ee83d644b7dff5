// Python classes over flowcoro/lockfree/: the native half of flowcoro.lockfree.
#include <cstddef>

#include "bindings.hpp"
#include "containers.hpp"
#include "stores.hpp"

namespace flowcoro::bindings {

namespace {

template <typename Bound>
int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    // The collector may come between __new__ and __init__.
    return nb::inst_ready(self) ? nb::inst_ptr<Bound>(self)->traverse(visit, arg) : 0;
}

template <typename Bound>
int clear(PyObject* self) {
    if (nb::inst_ready(self)) {
        nb::inst_ptr<Bound>(self)->clear();
    }
    return 0;
}

// nb::type_slots wants this shape: ended by {0, nullptr}.
template <typename Bound>
const PyType_Slot slots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(&traverse<Bound>)},
    {Py_tp_clear, reinterpret_cast<void*>(&clear<Bound>)},
    {0, nullptr},
};

template <typename Bound>
void bind_puts(nb::class_<Bound>& type) {
    type.def("try_put", &Bound::try_put, nb::arg("item").none(),
             nb::sig("def try_put(self, item: _T) -> bool"),
             Bound::bounded ? R"(Put `item` in, if there is room.

Args:
    item: Any object; `None` too.

Returns:
    Whether there was room; if not, all is as it was.)"
                            : R"(Put `item` in.

Args:
    item: Any object; `None` too.

Returns:
    `True`: there is always room.

Raises:
    MemoryError: There is no memory for it.)")
        .def("put", &Bound::put, nb::arg("item").none(), nb::arg("timeout") = nb::none(),
             nb::sig("def put(self, item: _T, timeout: float | None = None) -> None"),
             Bound::bounded ? R"(Put `item` in; block this thread until there is room.

Not for coroutines: they would block their loop.

Args:
    item: Any object; `None` too.
    timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

Raises:
    TimeoutError: There was no room in time; all is as it was.
    TypeError: `timeout` is not a number.
    ValueError: `timeout` is negative or NaN.)"
                            : R"(Put `item` in, as `try_put` does: it never waits.

Args:
    item: Any object; `None` too.
    timeout: Taken, and checked, so that any container can stand here for any other.

Raises:
    MemoryError: There is no memory for it.
    TypeError: `timeout` is not a number.
    ValueError: `timeout` is negative or NaN.)")
        .def("put_many", &Bound::put_many, nb::arg("items").none(),
             nb::sig("def put_many(self, items: Sequence[_T]) -> int"),
             Bound::bounded ? R"(Put items in, in their order, until there is no more room.

Other threads may put theirs in between.

Args:
    items: A sequence, not an iterator, so that `items[accepted:]` is what was refused.

Returns:
    How many were accepted.

Raises:
    TypeError: `items` is not a sequence.)"
                            : R"(Put items in, in their order.

Other threads may put theirs in between.

Args:
    items: A sequence, not an iterator, so that `items[accepted:]` is what was refused.

Returns:
    How many were accepted: all, unless memory ran out.

Raises:
    TypeError: `items` is not a sequence.
    MemoryError: There is no memory for the first.)");
}

template <typename Bound>
void bind_gets(nb::class_<Bound>& type) {
    type.def(
            "try_get", [](Bound& self) { return self.try_get(nb::handle(Py_None)); },
            nb::sig("def try_get(self) -> _T | None"),
            R"(Take the next item, if there is one.

Returns:
    The item, or `None` when there is none. If `None` may be an item, pass a `default` of
    your own.)")
        .def("try_get", &Bound::try_get, nb::arg("default").none(),
             nb::sig("def try_get(self, default: _D) -> _T | _D"),
             R"(Take the next item, if there is one.

Args:
    default: What to return when there is none.

Returns:
    The item, or `default`.)")
        .def("get", &Bound::get, nb::arg("timeout") = nb::none(),
             nb::sig("def get(self, timeout: float | None = None) -> _T"),
             R"(Take the next item; block this thread until there is one.

Not for coroutines: they would block their loop.

Args:
    timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

Returns:
    The item.

Raises:
    TimeoutError: There was none in time.
    TypeError: `timeout` is not a number.
    ValueError: `timeout` is negative or NaN.)")
        .def("get_many", &Bound::get_many, nb::arg("max_items").none(),
             nb::sig("def get_many(self, max_items: int) -> list[_T]"),
             R"(Take up to `max_items` of the items that are there now, the next first.

Args:
    max_items: 0 or more.

Returns:
    The items; an empty list when there are none.

Raises:
    TypeError: `max_items` is not an integer.
    ValueError: `max_items` is negative.)")
        .def("__len__", &Bound::size, nb::sig("def __len__(self) -> int"),
             "How many items it holds: an estimate while other threads use it.")
        .def("_wait_for_item", &Bound::wait_for_item, nb::arg("again"),
             nb::sig("def _wait_for_item(self, again: bool) -> Waiter"),
             "A new `Waiter` in the list of those who want an item: in front if `again`.")
        .def("_waiting", &Bound::waiting, nb::sig("def _waiting(self) -> tuple[int, int]"),
             "How many wait for an item, and for room.")
        .def("_leave", &Bound::leave, nb::arg("waiter"),
             nb::sig("def _leave(self, waiter: Waiter) -> None"),
             "End of a wait: if it was notified, and there is more, wakes the next.");
}

template <typename Bound>
void bind_steals(nb::class_<Bound>& type) {
    type.def(
            "try_steal", [](Bound& self) { return self.try_steal(nb::handle(Py_None)); },
            nb::sig("def try_steal(self) -> _T | None"),
            R"(Take the oldest item, if there is one. Any thread may.

Returns:
    The item, or `None` when there is none. If `None` may be an item, pass a `default` of
    your own.)")
        .def("try_steal", &Bound::try_steal, nb::arg("default").none(),
             nb::sig("def try_steal(self, default: _D) -> _T | _D"),
             R"(Take the oldest item, if there is one. Any thread may.

Args:
    default: What to return when there is none.

Returns:
    The item, or `default`.)")
        .def("steal", &Bound::steal, nb::arg("timeout") = nb::none(),
             nb::sig("def steal(self, timeout: float | None = None) -> _T"),
             R"(Take the oldest item; block this thread until there is one. Any thread may.

Args:
    timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

Returns:
    The item.

Raises:
    TimeoutError: There was none in time.
    TypeError: `timeout` is not a number.
    ValueError: `timeout` is negative or NaN.)");
}

template <typename Store>
nb::class_<Container<Store>> bind_container(nb::module_& module, const char* name,
                                            const char* signature) {
    using Bound = Container<Store>;
    nb::class_<Bound> type(module, name, nb::type_slots(slots<Bound>), nb::is_generic(),
                           nb::is_weak_referenceable(), nb::sig(signature),
                           "The native half of the class of this name in `flowcoro.lockfree`.");
    bind_puts(type);
    bind_gets(type);
    if constexpr (Store::bounded) {
        type.def("_wait_for_room", &Bound::wait_for_room, nb::arg("again"),
                 nb::sig("def _wait_for_room(self, again: bool) -> Waiter"),
                 "A new `Waiter` in the list of those who want room: in front if `again`.")
            .def_prop_ro("capacity", &Bound::capacity, nb::sig("def capacity(self) -> int"),
                         "How many items it holds at most.");
    }
    return type;
}

template <typename Bound>
void init_with_capacity(nb::pointer_and_handle<Bound> self, nb::handle capacity) {
    new (self.p) Bound(self.h.ptr(), capacity_from(capacity));
}

template <typename Bound>
void init(nb::pointer_and_handle<Bound> self) {
    new (self.p) Bound(self.h.ptr());
}

}  // namespace

void bind_lockfree(nb::module_& module) {
    bind_container<QueueStore>(module, "Queue", "class Queue(Generic[_T])")
        .def("__init__", &init_with_capacity<Container<QueueStore>>, nb::arg("capacity").none(),
             nb::sig("def __init__(self, capacity: int) -> None"));

    bind_container<UnboundedQueueStore>(module, "UnboundedQueue",
                                        "class UnboundedQueue(Generic[_T])")
        .def("__init__", &init<Container<UnboundedQueueStore>>,
             nb::sig("def __init__(self) -> None"));

    bind_container<StackStore>(module, "Stack", "class Stack(Generic[_T])")
        .def("__init__", &init<Container<StackStore>>, nb::sig("def __init__(self) -> None"));

    bind_container<RingBufferStore>(module, "RingBuffer", "class RingBuffer(Generic[_T])")
        .def("__init__", &init_with_capacity<Container<RingBufferStore>>,
             nb::arg("capacity").none(), nb::sig("def __init__(self, capacity: int) -> None"));

    auto deque = bind_container<DequeStore>(module, "WorkStealingDeque",
                                            "class WorkStealingDeque(Generic[_T])");
    deque.def("__init__", &init_with_capacity<Container<DequeStore>>,
              nb::arg("capacity").none() = 64,
              nb::sig("def __init__(self, capacity: int = 64) -> None"));
    bind_steals(deque);
}

}  // namespace flowcoro::bindings
