// The file operations as flowcoro.io sees them: methods of LoopCore that start one, the object that
// they return, and read_now().
#include <Python.h>
#include <nanobind/stl/shared_ptr.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "file_operations.hpp"

namespace flowcoro::bindings::loop {

namespace {

// One operation of the reactor's, and what it works on.
template <typename Kind>
class Work : public FileOperation {
  public:
    [[nodiscard]] Kind& part() noexcept { return part_; }

  protected:
    Work() noexcept : part_(*this) {}

    reactor::Operation& operation() noexcept override { return part_; }

    PyObject* value(std::int64_t /*result*/) noexcept override { return Py_NewRef(Py_None); }

    void let_go() noexcept override {}

  private:
    struct Part : Kind {
        explicit Part(Work& of) noexcept : Kind(&Part::handle), work(of) {}

        static void handle(reactor::Operation& self, reactor::Completion&& completion) {
            static_cast<Part&>(self).work.completed(completion.result);
        }

        Work& work;
    };

    Part part_;
};

struct Reading final : Work<reactor::ReadAt> {
    ~Reading() override { Py_XDECREF(bytes); }

    PyObject* value(std::int64_t result) noexcept override {
        PyObject* made = std::exchange(bytes, nullptr);
        if (static_cast<Py_ssize_t>(result) != PyBytes_GET_SIZE(made)) {
            _PyBytes_Resize(&made, static_cast<Py_ssize_t>(result));
        }
        return made;
    }

    void let_go() noexcept override { Py_CLEAR(bytes); }

    PyObject* bytes = nullptr;
};

struct Writing final : Work<reactor::WriteAt> {
    ~Writing() override { let_go(); }

    PyObject* value(std::int64_t result) noexcept override { return PyLong_FromLongLong(result); }

    void let_go() noexcept override {
        if (std::exchange(has_view, false)) {
            PyBuffer_Release(&view);
        }
    }

    Py_buffer view{};
    bool has_view = false;
};

struct Syncing final : Work<reactor::Fsync> {};

struct Closing final : Work<reactor::Close> {};

// With up to two paths.
template <typename Kind>
struct Naming : Work<Kind> {
    ~Naming() override { let_go(); }

    void let_go() noexcept override {
        Py_CLEAR(first);
        Py_CLEAR(second);
    }

    PyObject* first = nullptr;
    PyObject* second = nullptr;
};

struct Opening final : Naming<reactor::Open> {
    PyObject* value(std::int64_t result) noexcept override { return PyLong_FromLongLong(result); }

    void drop(std::int64_t result, LoopCore& /*core*/) noexcept override {
        ::close(static_cast<int>(result));  // which the reactor has not seen
    }
};

struct Looking final : Naming<reactor::Stat> {
    PyObject* value(std::int64_t /*result*/) noexcept override {
        const reactor::FileInfo& info = part().info;
        return Py_BuildValue("(KKKIIIILLL)", static_cast<unsigned long long>(info.size),
                             static_cast<unsigned long long>(info.inode),
                             static_cast<unsigned long long>(info.device), info.mode, info.links,
                             info.owner, info.group, static_cast<long long>(info.modified.count()),
                             static_cast<long long>(info.accessed.count()),
                             static_cast<long long>(info.changed.count()));
    }
};

struct Renaming final : Naming<reactor::Rename> {};

struct Removing final : Naming<reactor::Unlink> {};

using Started = std::shared_ptr<FileOperation>;

LoopObject* loop_of(nb::handle self) noexcept {
    return reinterpret_cast<LoopObject*>(self.ptr());
}

template <typename Kind>
Started start(nb::handle self, const std::shared_ptr<Kind>& work, nb::handle future) {
    FileOperations::of(loop_of(self)).start(work, future.ptr());
    return work;
}

void keep(PyObject*& at, const nb::bytes& path) {
    at = Py_NewRef(path.ptr());
}

Started read(nb::handle self, nb::handle future, int fd, std::size_t size, std::uint64_t offset) {
    auto work = std::make_shared<Reading>();
    work->bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
    if (work->bytes == nullptr) {
        nb::raise_python_error();
    }
    work->part().fd = fd;
    work->part().offset = offset;
    work->part().into = {reinterpret_cast<std::byte*>(PyBytes_AS_STRING(work->bytes)), size};
    return start(self, work, future);
}

Started write(nb::handle self, nb::handle future, int fd, nb::handle data, std::uint64_t offset) {
    auto work = std::make_shared<Writing>();
    if (PyObject_GetBuffer(data.ptr(), &work->view, PyBUF_SIMPLE) != 0) {
        nb::raise_python_error();
    }
    work->has_view = true;
    work->part().fd = fd;
    work->part().offset = offset;
    work->part().from = {static_cast<const std::byte*>(work->view.buf),
                         static_cast<std::size_t>(work->view.len)};
    return start(self, work, future);
}

Started sync(nb::handle self, nb::handle future, int fd, bool data_only) {
    auto work = std::make_shared<Syncing>();
    work->part().fd = fd;
    work->part().data_only = data_only;
    return start(self, work, future);
}

Started open(nb::handle self, nb::handle future, const nb::bytes& path, int flags, unsigned mode) {
    auto work = std::make_shared<Opening>();
    keep(work->first, path);
    work->part().path = path.c_str();
    work->part().flags = flags;
    work->part().mode = mode;
    return start(self, work, future);
}

Started stat(nb::handle self, nb::handle future, const nb::bytes& path, bool follow_links) {
    auto work = std::make_shared<Looking>();
    keep(work->first, path);
    work->part().path = path.c_str();
    work->part().follow_links = follow_links;
    return start(self, work, future);
}

Started rename(nb::handle self, nb::handle future, const nb::bytes& from, const nb::bytes& to) {
    auto work = std::make_shared<Renaming>();
    keep(work->first, from);
    keep(work->second, to);
    work->part().from = from.c_str();
    work->part().to = to.c_str();
    return start(self, work, future);
}

Started remove(nb::handle self, nb::handle future, const nb::bytes& path, bool directory) {
    auto work = std::make_shared<Removing>();
    keep(work->first, path);
    work->part().path = path.c_str();
    work->part().directory = directory;
    return start(self, work, future);
}

Started close(nb::handle self, nb::handle future, int fd) {
    auto work = std::make_shared<Closing>();
    work->part().fd = fd;
    return start(self, work, future);
}

// What is in the page cache, or at the end of the file; None when the disk would have to be waited
// for, or the kernel cannot tell.
nb::object read_now([[maybe_unused]] int fd, [[maybe_unused]] std::size_t size,
                    [[maybe_unused]] std::uint64_t offset) {
#if defined(RWF_NOWAIT)
    nb::object bytes = nb::steal(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
    if (!bytes.is_valid()) {
        nb::raise_python_error();
    }
    const iovec into{PyBytes_AS_STRING(bytes.ptr()), size};
    const ssize_t result = ::preadv2(fd, &into, 1, static_cast<off_t>(offset), RWF_NOWAIT);
    if (result >= 0) {
        PyObject* made = bytes.release().ptr();
        if (static_cast<std::size_t>(result) != size &&
            _PyBytes_Resize(&made, static_cast<Py_ssize_t>(result)) != 0) {
            nb::raise_python_error();
        }
        return nb::steal(made);
    }
#endif
    return nb::none();
}

}  // namespace

void add_file_operations(nb::module_& module, nb::handle loop_type) {
    nb::class_<FileOperation>(
        module, "FileOperation", nb::is_final(),
        "An operation on a file, which finishes the future that it was given.")
        .def_prop_ro("in_flight", &FileOperation::in_flight, nb::sig("def in_flight(self) -> bool"),
                     "Whether the kernel may still be at it.")
        .def("cancel", &FileOperation::cancel, nb::sig("def cancel(self) -> None"),
             "Ask for an early end, which is told as any other.")
        .def(
            "notify", [](FileOperation& self, nb::handle future) { self.notify(future.ptr()); },
            nb::arg("future"), nb::sig("def notify(self, future: Future[Any]) -> None"),
            "Have another future finished by its end.");
    const auto add = [&](const char* name, auto function, const char* signature) {
        nb::setattr(loop_type, name,
                    nb::cpp_function(function, nb::name(name), nb::scope(loop_type),
                                     nb::is_method(), nb::sig(signature)));
    };
    add("_file_read", &read,
        "def _file_read(self, future: Future[bytes], fd: int, size: int, offset: int, /) -> "
        "FileOperation");
    add("_file_write", &write,
        "def _file_write(self, future: Future[int], fd: int, data: ReadableBuffer, offset: int, "
        "/) -> FileOperation");
    add("_file_sync", &sync,
        "def _file_sync(self, future: Future[None], fd: int, data_only: bool, /) -> FileOperation");
    add("_file_open", &open,
        "def _file_open(self, future: Future[int], path: bytes, flags: int, mode: int, /) -> "
        "FileOperation");
    add("_file_stat", &stat,
        "def _file_stat(self, future: Future[tuple[int, ...]], path: bytes, follow_links: bool, "
        "/) -> FileOperation");
    add("_file_rename", &rename,
        "def _file_rename(self, future: Future[None], source: bytes, target: bytes, /) -> "
        "FileOperation");
    add("_file_remove", &remove,
        "def _file_remove(self, future: Future[None], path: bytes, directory: bool, /) -> "
        "FileOperation");
    add("_file_close", &close,
        "def _file_close(self, future: Future[None], fd: int, /) -> FileOperation");
    module.def("read_now", &read_now, nb::arg("fd"), nb::arg("size"), nb::arg("offset"),
               nb::sig("def read_now(fd: int, size: int, offset: int) -> bytes | None"),
               R"(Read what needs no wait for a disk.

Args:
    fd: A file.
    size: At most so many bytes.
    offset: Where they begin.

Returns:
    What of it is in the page cache, at the file's end nothing; None when it is not, or nobody
    can tell.)");
}

}  // namespace flowcoro::bindings::loop
