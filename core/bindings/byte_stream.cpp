#include "byte_stream.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <string_view>
#include <system_error>
#include <utility>

#include "interpreter.hpp"

namespace flowcoro::bindings::loop {

namespace {

ByteStream& of(void* context) noexcept {
    return *static_cast<ByteStream*>(context);
}

// As Python's sockets have the name of a Unix socket: a path, bytes (an abstract one, on Linux) or
// None, as of all other families. A new reference.
PyObject* unix_name(const sockaddr_storage& address, socklen_t size) noexcept {
    constexpr std::size_t begin = offsetof(sockaddr_un, sun_path);
    if (address.ss_family != AF_UNIX || size <= begin) {
        return Py_NewRef(Py_None);
    }
    const char* const path = reinterpret_cast<const sockaddr_un&>(address).sun_path;
    const std::size_t most = size - begin;
    return path[0] == '\0' ? PyBytes_FromStringAndSize(path, static_cast<Py_ssize_t>(most))
                           : PyUnicode_DecodeFSDefaultAndSize(
                                 path, static_cast<Py_ssize_t>(::strnlen(path, most)));
}

}  // namespace

const transport::Protocol ByteStream::callbacks = {
    sizeof(transport::Protocol),
    nullptr,
    [](void* context, flowcoro_transport*, const void* bytes, std::size_t size) {
        of(context).on_received({static_cast<const std::byte*>(bytes), size});
    },
    [](void* context, flowcoro_transport*) {
        of(context).feed_end();
        return 1;
    },
    [](void* context, flowcoro_transport*) { of(context).feed_above(false); },
    [](void* context, flowcoro_transport*, int error) { of(context).on_closed(error); },
    [](void* context, flowcoro_transport*) { of(context).on_readable(); }};

// What is left to close when the object is gone.
const transport::Protocol ByteStream::orphans = {
    sizeof(transport::Protocol),
    nullptr,
    [](void*, flowcoro_transport*, const void*, std::size_t) {},
    nullptr,
    nullptr,
    [](void*, flowcoro_transport*, int) {},
    nullptr};

bool ByteStream::open(LoopObject* of_loop, int fd) noexcept {
    if (loop_ != nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "the stream is open already");
        return false;
    }
    if (!of_loop->core->check_usable()) {
        return false;
    }
    core_ = of_loop->core;
    core_->reactor().distrust(fd);
    try {
        stream_ = transport::StreamTransport::adopt(core_->reactor(), fd, callbacks, this);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    } catch (const std::system_error& error) {
        errno = error.code().value();
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    loop_ = Py_NewRef(reinterpret_cast<PyObject*>(of_loop));
    core_->add(*this);
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
        std::memcpy(peer_.data(), &address, std::min<std::size_t>(size, peer_.size()));
    }
    return true;
}

bool ByteStream::open_over(PyObject* of_loop, PyObject* transport, PyObject* keeper) noexcept {
    if (loop_ != nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "the stream is open already");
        return false;
    }
    loop_ = Py_NewRef(of_loop);
    transport_ = Py_NewRef(transport);
    keeper_ = Py_NewRef(keeper);
    return true;
}

int ByteStream::descriptor() const noexcept {
    return stream_ != nullptr ? stream_->handle() : -1;
}

PyObject* ByteStream::peer() const noexcept {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    std::memcpy(&address, peer_.data(), peer_.size());
    if (address.ss_family == AF_UNIX && stream_ != nullptr &&
        ::getpeername(stream_->handle(), reinterpret_cast<sockaddr*>(&address), &size) == 0) {
        return unix_name(address, size);
    }
    return address_of(peer_);
}

PyObject* ByteStream::local() const noexcept {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    CompactAddress kept{};
    if (stream_ != nullptr &&
        ::getsockname(stream_->handle(), reinterpret_cast<sockaddr*>(&address), &size) == 0) {
        if (address.ss_family == AF_UNIX) {
            return unix_name(address, size);
        }
        std::memcpy(kept.data(), &address, std::min<std::size_t>(size, kept.size()));
    }
    return address_of(kept);
}

// Waiting.

void ByteStream::finish(PyObject* future) noexcept {
    static PyObject* const done_name = PyUnicode_InternFromString("done");
    static PyObject* const set_result_name = PyUnicode_InternFromString("set_result");
    const nb::object done = nb::steal(PyObject_CallMethodNoArgs(future, done_name));
    if (done.is_valid() && done.ptr() == Py_False) {
        const nb::object result =
            nb::steal(PyObject_CallMethodOneArg(future, set_result_name, Py_None));
    }
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(future);
    }
}

bool ByteStream::wait_to_write(PyObject* future) noexcept {
    try {
        writers_.push_back(future);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    }
    Py_INCREF(future);
    keep();
    return true;
}

bool ByteStream::wait_for_close(PyObject* future) noexcept {
    try {
        closers_.push_back(future);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    }
    Py_INCREF(future);
    keep();
    return true;
}

void ByteStream::stop_waiting(PyObject* future) noexcept {
    if (reader_ == future) {
        Py_CLEAR(reader_);
        woken_ = false;
        balance();
    }
    for (std::vector<PyObject*>* const list : {&writers_, &closers_}) {
        const auto found = std::find(list->begin(), list->end(), future);
        if (found != list->end()) {
            list->erase(found);
            Py_DECREF(future);
        }
    }
    let_go();
}

// Whoever waits for something that has not come.
bool ByteStream::is_waited_in() const noexcept {
    return (reader_ != nullptr && !woken_) || !writers_.empty() || !closers_.empty();
}

// Whoever calls has a reference.
void ByteStream::keep() noexcept {
    if (std::exchange(kept_, true)) {
        return;
    }
    if (core_ != nullptr) {
        Py_INCREF(self_);
    } else if (PyObject_SetAttrString(keeper_, "kept", self_) != 0) {
        PyErr_WriteUnraisable(keeper_);
    }
}

void ByteStream::let_go() noexcept {
    if (!kept_ || is_waited_in()) {
        return;
    }
    kept_ = false;
    if (core_ != nullptr) {
        Py_DECREF(self_);
    } else if (keeper_ != nullptr && PyObject_SetAttrString(keeper_, "kept", Py_None) != 0) {
        PyErr_WriteUnraisable(keeper_);
    }
}

// The end.

// He who waits until more of a file can be sent.
void ByteStream::wake_at_end(PyObject* future) noexcept {
    watched_ = future != nullptr ? descriptor() : -1;
    Py_XINCREF(future);
    Py_XSETREF(watcher_, future);
}

// The number of the descriptor may soon be another one's.
void ByteStream::end_watching() noexcept {
    if (watcher_ != nullptr) {
        core_->unwatch(std::exchange(watched_, -1), POLLOUT);
        const nb::object future = nb::steal(std::exchange(watcher_, nullptr));
        finish(future.ptr());
    }
}

bool ByteStream::close() noexcept {
    if (closed_) {
        return true;
    }
    if (stream_ != nullptr && !core_->check_usable()) {
        return false;
    }
    closed_ = true;
    end_watching();
    wake_all(writers_);
    if (buffered_ != 0) {
        drop_front(buffered_);
    }
    wake_reader();
    if (stream_ != nullptr) {
        stream_->close();
    } else if (transport_ != nullptr && !gone_) {
        const nb::object result = nb::steal(PyObject_CallMethod(transport_, "close", nullptr));
        if (!result.is_valid()) {
            PyErr_WriteUnraisable(self_);
        }
    }
    return true;
}

bool ByteStream::abort(bool reset) noexcept {
    if (stream_ != nullptr && !core_->check_usable()) {
        return false;
    }
    end_watching();
    if (!std::exchange(closed_, true) && buffered_ != 0) {
        drop_front(buffered_);
    }
    wake_reader();
    wake_all(writers_);
    if (stream_ != nullptr) {
        stream_->abort(reset);
    } else if (transport_ != nullptr && !gone_) {
        const nb::object result = nb::steal(PyObject_CallMethod(transport_, "abort", nullptr));
        if (!result.is_valid()) {
            PyErr_WriteUnraisable(self_);
        }
    }
    return true;
}

void ByteStream::on_closed(int error) noexcept {
    if (core_->is_closed()) {
        forget();
        return;
    }
    stream_ = nullptr;
    core_->remove(*this);
    nb::object what;
    if (error != 0) {
        what = nb::steal(PyObject_CallFunction(PyExc_OSError, "is", error, std::strerror(error)));
        PyErr_Clear();
    }
    const nb::object kept = nb::borrow(self_);
    end_watching();
    end(std::move(what));
}

void ByteStream::feed_lost(PyObject* error) noexcept {
    end(error != Py_None ? nb::borrow(error) : nb::object());
}

void ByteStream::end(nb::object error) noexcept {
    gone_ = true;
    if (error.is_valid() && lost_ == nullptr) {
        lost_ = error.release().ptr();
    }
    wake_reader();
    wake_all(writers_);
    if (stream_ == nullptr) {
        wake_all(closers_);
        let_go();
    }
}

// The loop is closed: it wakes nobody any more, and he who waits is garbage if he was not told.
void ByteStream::forget() noexcept {
    const nb::object kept = nb::borrow(self_);
    stream_ = nullptr;
    core_->remove(*this);
    gone_ = true;
    Py_CLEAR(reader_);
    Py_CLEAR(watcher_);
    for (std::vector<PyObject*>* const list : {&writers_, &closers_}) {
        for (PyObject* const each : std::exchange(*list, {})) {
            Py_DECREF(each);
        }
    }
    let_go();
}

void ByteStream::wake_all(std::vector<PyObject*>& futures) noexcept {
    const std::vector<PyObject*> now = std::exchange(futures, {});
    for (PyObject* const each : now) {
        finish(each);
        Py_DECREF(each);
    }
}

void ByteStream::end_dropped() noexcept {
    if (stream_ != nullptr) {
        core_->abort(*stream_);
    } else if (transport_ != nullptr) {
        const nb::object abort = nb::steal(PyObject_GetAttrString(transport_, "abort"));
        const nb::object result =
            abort.is_valid()
                ? nb::steal(PyObject_CallMethod(loop_, "call_soon_threadsafe", "O", abort.ptr()))
                : nb::object();
        PyErr_Clear();  // the loop is closed, and the transport with it
    }
}

void ByteStream::drop() noexcept {
    if (stream_ != nullptr) {
        core_->remove(*this);
        stream_->set_protocol(orphans, nullptr);
        core_->abort(*stream_);
        stream_ = nullptr;
    }
}

bool ByteStream::fail(const char* kind) noexcept {
    const nb::object error = nb::steal(
        PyObject_CallMethod(self_, "_error", "sO", kind, lost_ != nullptr ? lost_ : Py_None));
    if (error.is_valid()) {
        PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
    }
    return false;
}

int ByteStream::traverse(visitproc visit, void* arg) const {
    Py_VISIT(loop_);
    Py_VISIT(transport_);
    Py_VISIT(keeper_);
    Py_VISIT(watcher_);
    Py_VISIT(lost_);
    Py_VISIT(reader_);
    for (const std::vector<PyObject*>* const list : {&writers_, &closers_}) {
        for (PyObject* const each : *list) {
            Py_VISIT(each);
        }
    }
    return 0;
}

void ByteStream::clear() noexcept {
    drop();
    for (std::size_t i = first_; i < pieces_.size(); ++i) {
        Py_DECREF(pieces_[i]);
    }
    pieces_.clear();
    first_ = offset_ = buffered_ = 0;
    Py_CLEAR(transport_);
    Py_CLEAR(keeper_);
    Py_CLEAR(watcher_);
    Py_CLEAR(lost_);
    Py_CLEAR(reader_);
    for (std::vector<PyObject*>* const list : {&writers_, &closers_}) {
        for (PyObject* const each : std::exchange(*list, {})) {
            Py_DECREF(each);
        }
    }
    if (std::exchange(kept_, false) && core_ != nullptr) {
        Py_DECREF(self_);
    }
    core_ = nullptr;
    Py_CLEAR(loop_);
}

}  // namespace flowcoro::bindings::loop
