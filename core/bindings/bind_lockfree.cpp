// Python classes over flowcoro/lockfree/: the native half of flowcoro.lockfree.
#include <cstddef>
#include <type_traits>

#include "arguments.hpp"
#include "bindings.hpp"
#include "container_methods.hpp"
#include "containers.hpp"
#include "fast_method.hpp"
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
void add_item_methods(nb::handle type) {
    using TryPut =
        std::conditional_t<Bound::bounded, methods::TryPutBounded, methods::TryPutUnbounded>;
    using Put = std::conditional_t<Bound::bounded, methods::PutBounded, methods::PutUnbounded>;
    add_fast_method<Bound, TryPut>(type);
    add_fast_method<Bound, Put>(type);
    add_fast_method<Bound, methods::TryGet>(type);
    add_fast_method<Bound, methods::Get>(type);
    if constexpr (std::is_same_v<Bound, Container<DequeStore>>) {
        add_fast_method<Bound, methods::TrySteal>(type);
        add_fast_method<Bound, methods::Steal>(type);
    }
}

template <typename Bound>
bool own_methods_of(nb::handle derived) {
    const auto base = reinterpret_cast<PyTypeObject*>(nb::type<Bound>().ptr());
    if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(derived.ptr()), base)) {
        return false;
    }
    add_item_methods<Bound>(derived);
    return true;
}

template <typename... Stores>
nb::object own_methods(nb::handle derived) {
    if (!PyType_Check(derived.ptr()) || !(own_methods_of<Container<Stores>>(derived) || ...)) {
        raise_wrong_type("derived must be a class derived from a container", derived);
    }
    return nb::borrow(derived);
}

template <typename Bound>
void bind_puts(nb::class_<Bound>& type) {
    type.def("put_many", &Bound::put_many, nb::arg("items").none(),
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
    type.def("get_many", &Bound::get_many, nb::arg("max_items").none(),
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

template <typename Store>
nb::class_<Container<Store>> bind_container(nb::module_& module, const char* name,
                                            const char* signature) {
    using Bound = Container<Store>;
    nb::class_<Bound> type(module, name, nb::type_slots(slots<Bound>), nb::is_generic(),
                           nb::is_weak_referenceable(), nb::sig(signature),
                           "The native half of the class of this name in `flowcoro.lockfree`.");
    add_item_methods<Bound>(type);
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

    bind_container<DequeStore>(module, "WorkStealingDeque", "class WorkStealingDeque(Generic[_T])")
        .def("__init__", &init_with_capacity<Container<DequeStore>>,
             nb::arg("capacity").none() = 64,
             nb::sig("def __init__(self, capacity: int = 64) -> None"));

    module.def(
        "own_methods",
        &own_methods<QueueStore, UnboundedQueueStore, StackStore, RingBufferStore, DequeStore>,
        nb::arg("derived").none(), nb::sig("def own_methods(derived: _D) -> _D"),
        R"(Give a class derived from a container its own `try_put`, `get` and the like.

Calls are faster so. For use as a decorator.

Args:
    derived: The class.

Returns:
    The class.

Raises:
    TypeError: It is no such class.)");
}

}  // namespace flowcoro::bindings
