// Python classes ObjectPool and Lease: Python objects that are used again.
//
// The idle objects are in a lockfree::Stack, so that the one that was used last, and whose memory
// is warm, comes first. Which objects are the pool's is in an ObjectRegistry (see there), which
// owns them. The factory and `reset` are Python code: they are called with no lock held and
// with the pool in a state in which any method may be called, by them too.
//
// Order of a release: out -> resetting, reset(), a place among the idle is reserved, resetting ->
// idle, push. From `idle` on whoever pops the object may lend it, so nothing is done with it
// after the push. Of an acquire: pop, the place is free again, idle -> out.
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <utility>

#include "arguments.hpp"
#include "bindings.hpp"
#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/lockfree/stack.hpp"
#include "object_registry.hpp"
#include "references.hpp"

namespace flowcoro::bindings {

namespace {

using State = ObjectRegistry::State;

constexpr long long max_max_idle = 1LL << 31;

// What an ObjectPool counted.
struct ObjectPoolStats {
    std::uint64_t live = 0;
    std::uint64_t peak = 0;
    std::uint64_t hits = 0;
    std::uint64_t misses = 0;
    std::uint64_t idle = 0;
    std::uint64_t dropped = 0;
    std::uint64_t failed_resets = 0;
};

class PyObjectPool {
  public:
    PyObjectPool(nb::object factory, nb::object reset, std::size_t max_idle) noexcept
        : factory_(std::move(factory)), reset_(std::move(reset)), max_idle_(max_idle) {}

    PyObjectPool(const PyObjectPool&) = delete;
    PyObjectPool& operator=(const PyObjectPool&) = delete;

    ~PyObjectPool() { clear(); }

    nb::object acquire() {
        if (const std::optional<PyObject*> idle = idle_.try_pop()) {
            places_taken_.fetch_sub(1, detail::memory_order_relaxed);
            nb::object object = registry_.lend(*idle);
            count(hits_);
            count_out();
            return object;
        }
        const nb::object factory = factory_;  // the collector may come meanwhile
        if (!factory.is_valid()) {
            PyErr_SetString(PyExc_RuntimeError, "the pool was cleared by the garbage collector");
            nb::raise_python_error();
        }
        nb::object made = nb::steal(PyObject_CallNoArgs(factory.ptr()));
        if (!made.is_valid()) {
            nb::raise_python_error();
        }
        if (!registry_.add(made)) {
            PyErr_Format(PyExc_RuntimeError,
                         "the factory returned a '%.200s' object that the pool has already; it "
                         "must make a new one each time",
                         Py_TYPE(made.ptr())->tp_name);
            nb::raise_python_error();
        }
        count(misses_);
        count_out();
        return made;
    }

    void give_back(nb::handle object) {
        const std::optional<State> found = registry_.change(object, State::out, State::resetting);
        if (found != State::out) {
            raise_not_out(object, found);
        }
        const nb::object reset = reset_;
        if (reset.is_valid()) {
            const nb::object result = nb::steal(PyObject_CallOneArg(reset.ptr(), object.ptr()));
            if (!result.is_valid()) {
                nb::python_error error;  // out of the way of finalizers
                count(failed_resets_);
                drop(object.ptr());
                throw error;
            }
        }
        if (!take_place()) {
            drop(object.ptr());
            return;
        }
        registry_.change(object, State::resetting, State::idle);
        live_.fetch_sub(1, detail::memory_order_relaxed);
        try {
            idle_.push(object.ptr());
        } catch (const std::bad_alloc&) {
            // It is in no stack, so nobody else can have it.
            places_taken_.fetch_sub(1, detail::memory_order_relaxed);
            count(dropped_);
            release(registry_.remove(object.ptr()));
        }
    }

    [[nodiscard]] ObjectPoolStats stats() const noexcept {
        return {read(live_),         read(peak_),    read(hits_),         read(misses_),
                read(places_taken_), read(dropped_), read(failed_resets_)};
    }

    [[nodiscard]] std::size_t max_idle() const noexcept { return max_idle_; }

    int traverse(visitproc visit, void* arg) const {
        Py_VISIT(factory_.ptr());
        Py_VISIT(reset_.ptr());
        return registry_.visit_quiescent(
            [visit, arg](PyObject* object) { return visit(object, arg); });
    }

    // Drops all that the pool holds. Finalizers may use the pool meanwhile: what they give back
    // after its turn stays until the pool is destroyed.
    void clear() noexcept {
        for (std::uint64_t left = read(places_taken_); left > 0; --left) {
            const std::optional<PyObject*> idle = idle_.try_pop();
            if (!idle) {
                break;
            }
            places_taken_.fetch_sub(1, detail::memory_order_relaxed);
            release(registry_.remove(*idle));
        }
        for (std::uint64_t left = read(live_); left > 0; --left) {
            nb::object object = registry_.remove_any_out();
            if (!object.is_valid()) {
                break;
            }
            live_.fetch_sub(1, detail::memory_order_relaxed);
            release(std::move(object));
        }
        release(std::exchange(factory_, nb::object()));
        release(std::exchange(reset_, nb::object()));
    }

  private:
    using Counter = detail::atomic<std::uint64_t>;

    static std::uint64_t read(const Counter& counter) noexcept {
        return counter.load(detail::memory_order_relaxed);
    }

    static void count(Counter& counter) noexcept {
        counter.fetch_add(1, detail::memory_order_relaxed);
    }

    void count_out() noexcept {
        const std::uint64_t live = live_.fetch_add(1, detail::memory_order_relaxed) + 1;
        std::uint64_t peak = read(peak_);
        while (peak < live && !peak_.compare_exchange_weak(peak, live, detail::memory_order_relaxed,
                                                           detail::memory_order_relaxed)) {
        }
    }

    // Whether one more may become idle; then its place is reserved.
    bool take_place() noexcept {
        std::uint64_t taken = read(places_taken_);
        while (taken < max_idle_) {
            if (places_taken_.compare_exchange_weak(taken, taken + 1, detail::memory_order_relaxed,
                                                    detail::memory_order_relaxed)) {
                return true;
            }
        }
        return false;
    }

    // Lets go of an object that is out of everybody's reach (`resetting`).
    void drop(PyObject* object) noexcept {
        count(dropped_);
        live_.fetch_sub(1, detail::memory_order_relaxed);
        release(registry_.remove(object));
    }

    [[noreturn]] static void raise_not_out(nb::handle object, std::optional<State> state) {
        const char* const type = Py_TYPE(object.ptr())->tp_name;
        if (!state) {
            PyErr_Format(PyExc_ValueError,
                         "this '%.200s' object is not of this pool: the pool did not make it, or "
                         "has dropped it since",
                         type);
        } else if (*state == State::idle) {
            PyErr_Format(PyExc_ValueError, "this '%.200s' object was released already", type);
        } else {
            PyErr_Format(PyExc_ValueError, "this '%.200s' object is being released by another call",
                         type);
        }
        nb::raise_python_error();
    }

    nb::object factory_;
    nb::object reset_;
    const std::size_t max_idle_;
    ObjectRegistry registry_;
    lockfree::Stack<PyObject*> idle_;
    Counter places_taken_{0};
    Counter live_{0};
    Counter peak_{0};
    Counter hits_{0};
    Counter misses_{0};
    Counter dropped_{0};
    Counter failed_resets_{0};
};

// A `with` block's hold on an object. `object_` is null outside of the block; it is set and
// taken by atomic exchange, so that two threads cannot both enter or both leave.
class Lease {
  public:
    explicit Lease(nb::object pool) noexcept : pool_(std::move(pool)) {}

    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    ~Lease() { clear(); }

    nb::object enter() {
        PyObjectPool& pool = this->pool();
        nb::object object = pool.acquire();
        nb::object ours = object;  // comes first: another thread may leave at once
        PyObject* none = nullptr;
        if (!object_.compare_exchange_strong(none, object.ptr(), detail::memory_order_acq_rel,
                                             detail::memory_order_relaxed)) {
            pool.give_back(object);
            PyErr_SetString(PyExc_RuntimeError, "the lease is in use: one `with` block at a time");
            nb::raise_python_error();
        }
        ours.release();
        return object;
    }

    void leave() {
        const nb::object object = take();
        if (!object.is_valid()) {
            PyErr_SetString(PyExc_RuntimeError, "the lease is not in use");
            nb::raise_python_error();
        }
        pool().give_back(object);
    }

    int traverse(visitproc visit, void* arg) const {
        Py_VISIT(pool_.ptr());
        Py_VISIT(object_.load(detail::memory_order_relaxed));
        return 0;
    }

    void clear() noexcept {
        release(take());
        release(std::exchange(pool_, nb::object()));
    }

  private:
    nb::object take() noexcept {
        return nb::steal(object_.exchange(nullptr, detail::memory_order_acq_rel));
    }

    PyObjectPool& pool() const {
        if (!pool_.is_valid()) {
            PyErr_SetString(PyExc_RuntimeError, "the lease was cleared by the garbage collector");
            nb::raise_python_error();
        }
        return *nb::inst_ptr<PyObjectPool>(pool_);
    }

    nb::object pool_;
    detail::atomic<PyObject*> object_{nullptr};
};

// The collector may come between __new__ and __init__, hence inst_ready.
template <typename T>
int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    return nb::inst_ready(self) ? nb::inst_ptr<T>(self)->traverse(visit, arg) : 0;
}

template <typename T>
int clear(PyObject* self) {
    if (nb::inst_ready(self)) {
        nb::inst_ptr<T>(self)->clear();
    }
    return 0;
}

// nb::type_slots wants this shape: ended by {0, nullptr}.
template <typename T>
const PyType_Slot collector_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(&traverse<T>)},
    {Py_tp_clear, reinterpret_cast<void*>(&clear<T>)},
    {0, nullptr},
};

nb::object callable_from(nb::handle value, const char* expected) {
    if (PyCallable_Check(value.ptr()) == 0) {
        raise_wrong_type(expected, value);
    }
    return nb::borrow(value);
}

void bind_stats(nb::module_& module) {
    using Stats = ObjectPoolStats;
    nb::class_<Stats>(module, "ObjectPoolStats",
                      "What an `ObjectPool` counted. While threads are at work: about now.")
        .def_ro("live", &Stats::live, nb::sig("def live(self) -> int"),
                "How many objects are in use: acquired and not released.")
        .def_ro("peak", &Stats::peak, nb::sig("def peak(self) -> int"),
                "The most there ever were in use at a time.")
        .def_ro("hits", &Stats::hits, nb::sig("def hits(self) -> int"),
                "How many times an idle object was there.")
        .def_ro("misses", &Stats::misses, nb::sig("def misses(self) -> int"),
                "How many times the factory made one.")
        .def_ro("idle", &Stats::idle, nb::sig("def idle(self) -> int"),
                "How many objects wait to be used again.")
        .def_ro("dropped", &Stats::dropped, nb::sig("def dropped(self) -> int"),
                "How many it did not keep at their release: `max_idle` were idle, or "
                "`reset` failed.")
        .def_ro("failed_resets", &Stats::failed_resets, nb::sig("def failed_resets(self) -> int"),
                "How many times `reset` raised.")
        .def(
            "__repr__",
            [](const Stats& stats) {
                using Number = unsigned long long;
                return nb::steal<nb::str>(PyUnicode_FromFormat(
                    "ObjectPoolStats(live=%llu, peak=%llu, hits=%llu, misses=%llu, idle=%llu, "
                    "dropped=%llu, failed_resets=%llu)",
                    Number{stats.live}, Number{stats.peak}, Number{stats.hits},
                    Number{stats.misses}, Number{stats.idle}, Number{stats.dropped},
                    Number{stats.failed_resets}));
            },
            nb::sig("def __repr__(self) -> str"));
}

void bind_lease(nb::module_& module) {
    nb::class_<Lease>(module, "Lease", nb::type_slots(collector_slots<Lease>), nb::is_final(),
                      nb::is_generic(), nb::is_weak_referenceable(),
                      nb::sig("@final\nclass Lease(Generic[_T])"),
                      R"(What `ObjectPool.lease` returns: a context manager that holds an object.

It may be used again after its block, and then holds another object.)")
        .def("__enter__", &Lease::enter, nb::sig("def __enter__(self) -> _T"),
             R"(Acquire an object.

Raises:
    RuntimeError: It holds one already.)")
        .def(
            "__exit__",
            [](Lease& lease, nb::handle /*type*/, nb::handle /*error*/, nb::handle /*traceback*/) {
                lease.leave();
            },
            nb::arg("exc_type").none(), nb::arg("exc").none(), nb::arg("traceback").none(),
            nb::sig("def __exit__(self, exc_type: type[BaseException] | None, "
                    "exc: BaseException | None, traceback: TracebackType | None) -> None"),
            R"(Release the object, as `ObjectPool.release` does.

Raises:
    RuntimeError: It holds none.
    ValueError: The object was released within the block.)");
}

}  // namespace

void bind_object_pool(nb::module_& module) {
    bind_stats(module);
    bind_lease(module);
    nb::class_<PyObjectPool>(module, "ObjectPool", nb::type_slots(collector_slots<PyObjectPool>),
                             nb::is_generic(), nb::is_weak_referenceable(),
                             nb::sig("class ObjectPool(Generic[_T])"),
                             R"(Python objects that are made once and used many times.

Any thread may call any method, and no call waits. An object that is released goes to whoever
acquires next, so the most recently used one is used again first. The pool refers to every
object that is in use: one that is never released is never gone, and counts as `live`.

Args:
    factory: Makes a new object, without arguments, when none is idle. Another one each time:
        neither `None` nor a constant will do.
    reset: Called with an object at its release, to put it in order; nothing when `None`.
    max_idle: How many objects it keeps for later, 1 to 2**31. What is released beyond that is
        dropped.

Raises:
    TypeError: `factory` or `reset` cannot be called, or `max_idle` is not an integer.
    ValueError: `max_idle` is below 1.
    OverflowError: `max_idle` is above 2**31.)")
        .def(
            "__init__",
            [](PyObjectPool* self, nb::handle factory, nb::handle reset, nb::handle max_idle) {
                nb::object make = callable_from(factory, "factory must be callable");
                nb::object put_in_order =
                    reset.is_none() ? nb::object()
                                    : callable_from(reset, "reset must be callable or None");
                const std::size_t most = count_from(max_idle, "max_idle", max_max_idle);
                new (self) PyObjectPool(std::move(make), std::move(put_in_order), most);
            },
            nb::arg("factory").none(), nb::kw_only(), nb::arg("reset").none() = nb::none(),
            nb::arg("max_idle").none() = 64,
            nb::sig("def __init__(self, factory: Callable[[], _T], *, "
                    "reset: Callable[[_T], object] | None = None, max_idle: int = 64) -> None"))
        .def("acquire", &PyObjectPool::acquire, nb::sig("def acquire(self) -> _T"),
             R"(Take an idle object, or let the factory make one.

Returns:
    The object, which is the caller's until `release`.

Raises:
    RuntimeError: The factory returned an object that the pool has already.
    Exception: What the factory raises; the pool is then as it was.)")
        .def("release", &PyObjectPool::give_back, nb::arg("object").none(),
             nb::sig("def release(self, object: _T) -> None"),
             R"(Give an object back; it must not be used any more.

Args:
    object: What `acquire` returned.

Raises:
    ValueError: The object is not of this pool, or was released already.
    Exception: What `reset` raises; the object is then dropped, and is not in use any more.)")
        .def(
            "lease", [](nb::handle self) { return new Lease(nb::borrow(self)); },
            nb::sig("def lease(self) -> Lease[_T]"),
            R"(Hold an object for a `with` block.

`with pool.lease() as object:` acquires at its start and releases at its end, however
it ends.

Returns:
    The context manager.)")
        .def("stats", &PyObjectPool::stats, nb::sig("def stats(self) -> ObjectPoolStats"),
             "What it counted so far.")
        .def_prop_ro("max_idle", &PyObjectPool::max_idle, nb::sig("def max_idle(self) -> int"),
                     "How many objects it keeps for later at most.");
}

}  // namespace flowcoro::bindings
