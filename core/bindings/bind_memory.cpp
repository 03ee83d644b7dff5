// Python classes over flowcoro/memory/buffer_pool.hpp: BufferPool and Buffer.
//
// Protocol
// --------
//   shared.holders  the Python pool and each Buffer that has not given its bytes back hold the
//                   native pool; the last one to let go deletes it. So a Buffer may outlive
//                   the Python pool, and neither refers to a Python object: no cycle can
//                   run through them.
//   buffer.exports  how many views of the bytes there are, or `released`. A view is added by a
//                   CAS from what is not `released`, a release is the CAS from 0: whichever
//                   comes first, the other one sees it, with and without the GIL.
//
// The interpreter keeps a Buffer alive as long as a view of it is, so the destructor, which gives
// the block back, comes after the last view.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <utility>

#include "arguments.hpp"
#include "bindings.hpp"
#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/memory/buffer_pool.hpp"
#include "interpreter.hpp"

namespace flowcoro::bindings {

namespace {

// More than any machine has: a mistake, and cheaper to refuse than to try.
constexpr long long max_size = 1LL << (sizeof(std::size_t) > 4 ? 40 : 24);
constexpr long long max_count = 1LL << (sizeof(std::size_t) > 4 ? 40 : 24);

// Clearing this many bytes takes long enough to let other threads run meanwhile.
constexpr std::size_t large = std::size_t{1} << 20;

class SharedPool {
  public:
    SharedPool(std::size_t size, std::size_t max_buffers) : pool_(size, max_buffers) {}

    SharedPool(const SharedPool&) = delete;
    SharedPool& operator=(const SharedPool&) = delete;

    memory::BufferPool& pool() noexcept { return pool_; }

    [[nodiscard]] const memory::BufferPool& pool() const noexcept { return pool_; }

    // One more Buffer. The caller holds the pool already.
    void hold() noexcept {
        const std::uint64_t live = holders_.fetch_add(1, detail::memory_order_relaxed);
        std::uint64_t peak = peak_.load(detail::memory_order_relaxed);
        while (peak < live && !peak_.compare_exchange_weak(peak, live, detail::memory_order_relaxed,
                                                           detail::memory_order_relaxed)) {
        }
    }

    void let_go() noexcept {
        if (holders_.fetch_sub(1, detail::memory_order_acq_rel) == 1) {
            delete this;
        }
    }

    // For the Python pool, which is a holder itself. A block goes back before its Buffer lets
    // go, so another thread may have it again already: hence the limit.
    [[nodiscard]] memory::PoolStats stats() const noexcept {
        memory::PoolStats stats = pool_.stats();
        const std::uint64_t limit = pool_.max_buffers();
        stats.live = std::min(holders_.load(detail::memory_order_relaxed) - 1, limit);
        stats.peak = std::min(peak_.load(detail::memory_order_relaxed), limit);
        return stats;
    }

  private:
    ~SharedPool() = default;

    memory::BufferPool pool_;
    detail::atomic<std::uint64_t> holders_{1};
    detail::atomic<std::uint64_t> peak_{0};
};

class PyBuffer {
  public:
    PyBuffer(SharedPool& shared, memory::Buffer buffer) noexcept
        : shared_(&shared), buffer_(std::move(buffer)), size_(buffer_.bytes().size()) {
        shared_->hold();
    }

    PyBuffer(const PyBuffer&) = delete;
    PyBuffer& operator=(const PyBuffer&) = delete;

    ~PyBuffer() {
        if (!is_released()) {
            give_back();
        }
    }

    [[nodiscard]] bool is_released() const noexcept {
        return exports_.load(detail::memory_order_acquire) == released;
    }

    // Adds a view; whether the bytes were still there to be viewed.
    bool add_view() noexcept {
        std::int64_t views = exports_.load(detail::memory_order_relaxed);
        while (views != released) {
            if (exports_.compare_exchange_weak(views, views + 1, detail::memory_order_acquire,
                                               detail::memory_order_relaxed)) {
                return true;
            }
        }
        return false;
    }

    void remove_view() noexcept { exports_.fetch_sub(1, detail::memory_order_release); }

    // Whether the bytes have gone back, now or before; not so while there are views.
    bool release() noexcept {
        std::int64_t views = 0;
        if (exports_.compare_exchange_strong(views, released, detail::memory_order_acq_rel,
                                             detail::memory_order_relaxed)) {
            give_back();
            return true;
        }
        return views == released;
    }

    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return buffer_.bytes(); }

    // What it had before a release, too.
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

  private:
    static constexpr std::int64_t released = -1;

    void give_back() noexcept {
        buffer_.reset();
        shared_->let_go();
    }

    SharedPool* shared_;
    memory::Buffer buffer_;
    const std::size_t size_;
    detail::atomic<std::int64_t> exports_{0};
};

class PyBufferPool {
  public:
    PyBufferPool(std::size_t size, std::size_t max_buffers)
        : shared_(new SharedPool(size, max_buffers)) {}

    PyBufferPool(const PyBufferPool&) = delete;
    PyBufferPool& operator=(const PyBufferPool&) = delete;

    ~PyBufferPool() { shared_->let_go(); }

    nb::object try_acquire(bool zero) {
        // The object comes first: it may run the collector, and so anything.
        nb::object result = nb::inst_alloc(nb::type<PyBuffer>());
        memory::Buffer buffer = take();
        if (!buffer) {
            return nb::none();
        }
        const std::span<std::byte> bytes = buffer.bytes();
        new (nb::inst_ptr<PyBuffer>(result)) PyBuffer(*shared_, std::move(buffer));
        nb::inst_mark_ready(result);
        if (zero) {
            clear(bytes);
        }
        return result;
    }

    [[nodiscard]] const SharedPool& shared() const noexcept { return *shared_; }

  private:
    memory::Buffer take() {
        try {
            return shared_->pool().try_acquire();
        } catch (const std::bad_alloc&) {
            PyErr_Format(PyExc_MemoryError, "there is no memory for a buffer of %zu bytes",
                         shared_->pool().buffer_size());
            nb::raise_python_error();
        }
    }

    // Nobody else has the bytes yet.
    static void clear(std::span<std::byte> bytes) {
        if (bytes.size() < large) {
            std::memset(bytes.data(), 0, bytes.size());
        } else {
            const GilReleased other_threads_run;
            std::memset(bytes.data(), 0, bytes.size());
        }
    }

    SharedPool* shared_;
};

[[noreturn]] void raise_released() {
    throw nb::value_error("the buffer was released");
}

// The slots of the buffer protocol.

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
    view->obj = nullptr;
    if (!nb::inst_ready(self)) {
        PyErr_SetString(PyExc_ValueError, "the buffer was not made by a pool");
        return -1;
    }
    PyBuffer& buffer = *nb::inst_ptr<PyBuffer>(self);
    if (!buffer.add_view()) {
        PyErr_SetString(PyExc_ValueError, "the buffer was released");
        return -1;
    }
    const std::span<std::byte> bytes = buffer.bytes();
    if (PyBuffer_FillInfo(view, self, bytes.data(), static_cast<Py_ssize_t>(bytes.size()), 0,
                          flags) != 0) {
        buffer.remove_view();
        return -1;
    }
    return 0;
}

void release_buffer(PyObject* self, Py_buffer* /*view*/) {
    nb::inst_ptr<PyBuffer>(self)->remove_view();
}

// nb::type_slots wants this shape: ended by {0, nullptr}.
const PyType_Slot buffer_slots[] = {
    {Py_bf_getbuffer, reinterpret_cast<void*>(&get_buffer)},
    {Py_bf_releasebuffer, reinterpret_cast<void*>(&release_buffer)},
    {0, nullptr},
};

void release(PyBuffer& buffer) {
    if (!buffer.release()) {
        PyErr_SetString(PyExc_BufferError,
                        "the buffer cannot be released while memoryviews of it exist");
        nb::raise_python_error();
    }
}

nb::object enter(nb::handle self) {
    if (nb::inst_ptr<PyBuffer>(self)->is_released()) {
        raise_released();
    }
    return nb::borrow(self);
}

void leave(PyBuffer& buffer, nb::handle error, nb::handle /*value*/, nb::handle /*traceback*/) {
    if (error.is_none()) {
        release(buffer);
    } else {
        buffer.release();
    }
}

void bind_pool_stats(nb::module_& module) {
    using memory::PoolStats;
    nb::class_<PoolStats>(module, "PoolStats",
                          "What a `BufferPool` counted. While threads are at work: about now.")
        .def_ro("live", &PoolStats::live, nb::sig("def live(self) -> int"),
                "How many buffers are in use.")
        .def_ro("peak", &PoolStats::peak, nb::sig("def peak(self) -> int"),
                "The most there ever were in use at a time.")
        .def_ro("hits", &PoolStats::hits, nb::sig("def hits(self) -> int"),
                "How many were served from what the calling thread had at hand.")
        .def_ro("misses", &PoolStats::misses, nb::sig("def misses(self) -> int"),
                "How many had to get more from what threads share, or from the system.")
        .def_ro("reserved_bytes", &PoolStats::reserved_bytes,
                nb::sig("def reserved_bytes(self) -> int"),
                "The memory, in bytes, that the pool has got from the system.")
        .def(
            "__repr__",
            [](const PoolStats& stats) {
                return nb::steal<nb::str>(
                    PyUnicode_FromFormat("PoolStats(live=%llu, peak=%llu, hits=%llu, misses=%llu, "
                                         "reserved_bytes=%llu)",
                                         static_cast<unsigned long long>(stats.live),
                                         static_cast<unsigned long long>(stats.peak),
                                         static_cast<unsigned long long>(stats.hits),
                                         static_cast<unsigned long long>(stats.misses),
                                         static_cast<unsigned long long>(stats.reserved_bytes)));
            },
            nb::sig("def __repr__(self) -> str"));
}

void bind_buffer(nb::module_& module) {
    nb::class_<PyBuffer>(module, "Buffer", nb::type_slots(buffer_slots), nb::is_final(),
                         nb::is_weak_referenceable(), nb::sig("@final\nclass Buffer()"),
                         R"(Bytes of a `BufferPool`, for anything that takes a bytes-like object.

`memoryview(buffer)` is a view without a copy: writable, contiguous, of format `B`. The bytes
go back to the pool when the buffer and every view of it (slices, too) are gone, and never
before. As a context manager it is released at the end; when an error leaves the block while
views exist, that error stays the one that is seen, and the bytes go back with the last view.

Any thread may call any method. What two threads do to the same bytes is theirs to order.)")
        .def("release", &release, nb::sig("def release(self) -> None"),
             R"(Give the bytes back now; nothing happens when that was done before.

Raises:
    BufferError: There are memoryviews of it.)")
        .def(
            "__len__",
            [](const PyBuffer& buffer) {
                if (buffer.is_released()) {
                    raise_released();
                }
                return buffer.size();
            },
            nb::sig("def __len__(self) -> int"), R"(How many bytes it has.

Raises:
    ValueError: It was released.)")
        .def("__enter__", &enter, nb::sig("def __enter__(self) -> Self"), R"(Return the buffer.

Raises:
    ValueError: It was released.)")
        .def("__exit__", &leave, nb::arg("exc_type").none(), nb::arg("exc").none(),
             nb::arg("traceback").none(),
             nb::sig("def __exit__(self, exc_type: type[BaseException] | None, "
                     "exc: BaseException | None, traceback: TracebackType | None) -> None"),
             R"(Release it.

Raises:
    BufferError: There are memoryviews of it, and the block ended without an error.)");
}

void bind_buffer_pool(nb::module_& module) {
    nb::class_<PyBufferPool>(module, "BufferPool", nb::is_weak_referenceable(),
                             R"(Buffers of one size that are used again.

Any thread may call any method, and no call waits. Memory that the pool has got it keeps until
it and its buffers are gone.

Args:
    size: Bytes of each buffer: 1 to 2**40. They begin at a multiple of 64.
    max_buffers: How many there may be at a time, 1 to 2**40; any number when `None`.

Raises:
    TypeError: An argument is not an integer.
    ValueError: An argument is below 1.
    OverflowError: An argument is above 2**40.)")
        .def(
            "__init__",
            [](PyBufferPool* self, nb::handle size, nb::handle max_buffers) {
                const std::size_t bytes = count_from(size, "size", max_size);
                const std::size_t most = max_buffers.is_none()
                                             ? memory::BufferPool::no_limit
                                             : count_from(max_buffers, "max_buffers", max_count);
                new (self) PyBufferPool(bytes, most);
            },
            nb::arg("size").none(), nb::arg("max_buffers").none() = nb::none(),
            nb::sig("def __init__(self, size: int, max_buffers: int | None = None) -> None"))
        .def("try_acquire", &PyBufferPool::try_acquire, nb::kw_only(), nb::arg("zero") = false,
             nb::sig("def try_acquire(self, *, zero: bool = False) -> Buffer | None"),
             R"(Take a buffer.

Its content is whatever the memory held, such as what an earlier user of the buffer wrote:
clearing costs more than the rest of the call. Ask for `zero` where bytes that were not
overwritten could get to someone who must not read them.

Args:
    zero: Whether to set every byte to 0.

Returns:
    The buffer, or `None` when `max_buffers` are in use.

Raises:
    MemoryError: There is no memory for another one.)")
        .def(
            "stats", [](const PyBufferPool& pool) { return pool.shared().stats(); },
            nb::sig("def stats(self) -> PoolStats"), "What it counted so far.")
        .def_prop_ro(
            "buffer_size",
            [](const PyBufferPool& pool) { return pool.shared().pool().buffer_size(); },
            nb::sig("def buffer_size(self) -> int"), "Bytes of each buffer.")
        .def_prop_ro(
            "max_buffers",
            [](const PyBufferPool& pool) -> nb::object {
                const std::size_t most = pool.shared().pool().max_buffers();
                if (most == memory::BufferPool::no_limit) {
                    return nb::none();
                }
                return nb::int_(most);
            },
            nb::sig("def max_buffers(self) -> int | None"),
            "How many there may be at a time; `None` when there is no limit.");
}

}  // namespace

void bind_memory(nb::module_& module) {
    bind_pool_stats(module);
    bind_buffer(module);
    bind_buffer_pool(module);
    bind_object_pool(module);
}

}  // namespace flowcoro::bindings
