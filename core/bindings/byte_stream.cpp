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

// As many bytes are better sent from where they are, at once, than copied first.
constexpr std::size_t worth_a_call = std::size_t{32} * 1024;

// Writes wait from so many unsent bytes on, until there are so few.
constexpr std::size_t high = std::size_t{64} * 1024;
constexpr std::size_t low = std::size_t{16} * 1024;

std::string_view view_of(PyObject* bytes) noexcept {
    return {PyBytes_AS_STRING(bytes), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes))};
}

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

// Sets its result, unless it has one.
void finish(PyObject* future) noexcept {
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

// Input.

void ByteStream::on_received(std::span<const std::byte> bytes) noexcept {
    add_received(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()),
                                           static_cast<Py_ssize_t>(bytes.size())));
}

// Something is there. Who reads whatever comes receives it when the task goes on.
void ByteStream::on_readable() noexcept {
    if (reader_ == nullptr) {
        stream_->peek();  // the end is noticed all the same
        return;
    }
    if (needed_.kind != Need::Kind::some) {
        pull_for(needed_);
    }
    wake_reader();
}

// A new reference; null when nothing is there, or with an error set.
PyObject* ByteStream::pull(std::size_t most) noexcept {
    if (stream_ == nullptr || !stream_->may_receive()) {
        return nullptr;
    }
    const std::span<std::byte> room = core_->received.room(std::min(most, stream_->expected()));
    const std::int64_t size = room.empty() ? 0 : stream_->receive(room);
    if (size <= 0) {
        return nullptr;
    }
    received += static_cast<std::uint64_t>(size);
    return core_->received.take(static_cast<std::size_t>(size));
}

// Until it is there, or there is nothing more.
void ByteStream::pull_for(const Need& need) noexcept {
    try {
        while (!has(need)) {
            pieces_.push_back(nullptr);  // room for it, before it is taken from the kernel
            PyObject* const data =
                pull(need.kind == Need::Kind::exactly ? need.size - buffered_ : need.size);
            if (data == nullptr) {
                pieces_.pop_back();
                break;
            }
            pieces_.back() = data;
            buffered_ += static_cast<std::size_t>(PyBytes_GET_SIZE(data));
        }
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    }
    if (PyErr_Occurred()) {
        end(take_exception());
        abort(false);
    }
}

// Takes the reference over; null: an error is set.
void ByteStream::add_received(PyObject* data) noexcept {
    core_->gauges()->count_callback();
    if (data == nullptr) {
        end(take_exception());
        stream_->abort();
        return;
    }
    add_piece(data);
}

bool ByteStream::feed(PyObject* data) noexcept {
    PyObject* const bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes != nullptr) {
        add_piece(bytes);
    }
    return bytes != nullptr;
}

void ByteStream::add_piece(PyObject* data) noexcept {
    const auto size = static_cast<std::size_t>(PyBytes_GET_SIZE(data));
    if (closed_ || size == 0) {
        Py_DECREF(data);
        return;
    }
    try {
        pieces_.push_back(data);
    } catch (const std::bad_alloc&) {
        Py_DECREF(data);
        PyErr_NoMemory();
        end(take_exception());
        if (!abort(false)) {
            PyErr_WriteUnraisable(self_);
        }
        return;
    }
    received += size;
    buffered_ += size;
    if (reader_ != nullptr) {
        wake_reader();
    }
    balance();
}

void ByteStream::feed_end() noexcept {
    ended_ = true;
    wake_reader();
}

// Nothing is received while more is kept than the limit, and a reader does not wait for more.
void ByteStream::balance() noexcept {
    // A piece costs more than its bytes: a peer that sends one by one must not fill the memory.
    constexpr std::size_t cost = 128;
    const std::size_t held = buffered_ + (pieces_.size() - first_) * cost;
    const bool wanted = reader_ != nullptr && !woken_;
    const bool pause = !wanted && held >= limit_;
    const bool resume = wanted || held <= limit_ / 2;
    if (!is_open() || (paused_ ? !resume : !pause)) {
        return;
    }
    paused_ = !paused_;
    if (stream_ != nullptr) {
        if (paused_) {
            stream_->pause_reading();
        } else {
            stream_->resume_reading();
        }
        return;
    }
    const nb::object result = nb::steal(
        PyObject_CallMethod(transport_, paused_ ? "pause_reading" : "resume_reading", nullptr));
    if (!result.is_valid()) {
        PyErr_WriteUnraisable(self_);
    }
}

PyObject* ByteStream::take(std::size_t size) noexcept {
    PyObject* const front = pieces_[first_];
    const std::size_t at_front = view_of(front).size() - offset_;
    if (offset_ == 0 && at_front == size) {
        PyObject* const whole = Py_NewRef(front);
        drop_front(size);
        return whole;
    }
    PyObject* const made = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
    if (made == nullptr) {
        return nullptr;
    }
    char* to = PyBytes_AS_STRING(made);
    std::size_t from = offset_;
    std::size_t left = size;
    for (std::size_t i = first_; left != 0; ++i) {
        const std::string_view piece = view_of(pieces_[i]).substr(from, left);
        std::memcpy(to, piece.data(), piece.size());
        to += piece.size();
        left -= piece.size();
        from = 0;
    }
    drop_front(size);
    return made;
}

void ByteStream::drop_front(std::size_t size) noexcept {
    buffered_ -= size;
    scanned_ = 0;
    while (size != 0) {
        const std::size_t at_front = view_of(pieces_[first_]).size() - offset_;
        if (size < at_front) {
            offset_ += size;
            break;
        }
        size -= at_front;
        offset_ = 0;
        Py_DECREF(pieces_[first_++]);
    }
    if (first_ == pieces_.size()) {
        pieces_.clear();
        first_ = 0;
        if (pieces_.capacity() > 16) {
            std::vector<PyObject*>().swap(pieces_);
        }
    } else if (first_ >= 64 && first_ * 2 >= pieces_.size()) {
        pieces_.erase(pieces_.begin(), pieces_.begin() + static_cast<std::ptrdiff_t>(first_));
        first_ = 0;
    }
    if (paused_) {
        balance();
    }
}

// How many bytes there are up to its end.
std::optional<std::size_t> ByteStream::find(PyObject* separator) noexcept {
    const std::string_view wanted = view_of(separator);
    const std::size_t overlap = wanted.size() - 1;
    std::size_t begin = 0;  // of the piece, among what is buffered
    std::string before;     // the last bytes before the piece
    for (std::size_t i = first_; i < pieces_.size(); ++i) {
        const std::string_view piece = view_of(pieces_[i]).substr(i == first_ ? offset_ : 0);
        if (begin + piece.size() > scanned_) {
            if (!before.empty()) {
                const std::string across = before + std::string(piece.substr(0, overlap));
                if (const auto at = across.find(wanted); at != std::string::npos) {
                    return begin - before.size() + at + wanted.size();
                }
            }
            if (const auto at = piece.find(wanted); at != std::string_view::npos) {
                return begin + at + wanted.size();
            }
        }
        begin += piece.size();
        if (overlap != 0) {
            before += piece.substr(piece.size() - std::min(overlap, piece.size()));
            before.erase(0, before.size() - std::min(overlap, before.size()));
        }
    }
    scanned_ = buffered_ - std::min(buffered_, overlap);
    return std::nullopt;
}

ByteStream::State ByteStream::try_take(const Need& need, PyObject*& value) noexcept {
    if (closed_) {
        fail("closed");
        return State::failed;
    }
    if (stream_ != nullptr && stream_->may_receive()) {
        if (need.kind != Need::Kind::some) {
            pull_for(need);
        } else if (buffered_ == 0) {
            value = pull(need.size);
            if (value != nullptr || PyErr_Occurred()) {
                return value != nullptr ? State::done : State::failed;
            }
        }
    }
    std::size_t size = 0;
    bool there = false;
    if (need.kind == Need::Kind::some) {
        size = std::min(need.size, buffered_);
        there = size != 0;
    } else if (need.kind == Need::Kind::exactly) {
        size = need.size;
        there = buffered_ >= size;
    } else {
        try {
            const std::optional<std::size_t> found = find(need.separator);
            size = found.value_or(0);
            there = found && size <= need.size;
            if (!there && (found || buffered_ >= need.size)) {
                fail("limit");
                return State::failed;
            }
        } catch (const std::bad_alloc&) {
            PyErr_NoMemory();
            return State::failed;
        }
    }
    if (there) {
        value = size == 0 ? PyBytes_FromStringAndSize(nullptr, 0) : take(size);
        return value != nullptr ? State::done : State::failed;
    }
    if (!ended_ && is_open()) {
        return State::waits;
    }
    if (need.kind == Need::Kind::some && lost_ == nullptr) {
        value = PyBytes_FromStringAndSize(nullptr, 0);
        return value != nullptr ? State::done : State::failed;
    }
    fail(lost_ != nullptr ? "broken" : "incomplete");
    return State::failed;
}

bool ByteStream::wait_for(const Need& need, PyObject* future) noexcept {
    if (reader_ != nullptr) {
        return fail("busy");
    }
    reader_ = Py_NewRef(future);
    woken_ = false;
    needed_ = need;
    keep();
    if (paused_) {
        balance();
    }
    return true;
}

// Whether it is there, or more than was to come before it. Throws std::bad_alloc.
bool ByteStream::has(const Need& need) {
    switch (need.kind) {
        case Need::Kind::some:
            return buffered_ != 0;
        case Need::Kind::exactly:
            return buffered_ >= need.size;
        case Need::Kind::until:
            return buffered_ >= need.size || find(need.separator).has_value();
    }
    return false;
}

// When it has what it waits for, or never will.
void ByteStream::wake_reader() noexcept {
    if (reader_ == nullptr || woken_) {
        return;
    }
    bool there = ended_ || closed_ || !is_open() || needed_.kind == Need::Kind::some;
    try {
        there = there || has(needed_);
    } catch (const std::bad_alloc&) {
        there = true;  // it fails on its own
    }
    if (there) {
        woken_ = true;
        const nb::object future = nb::borrow(reader_);
        finish(future.ptr());
    }
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

// Output.

std::size_t ByteStream::unsent() const noexcept {
    return stream_ != nullptr ? stream_->unsent() : 0;
}

int ByteStream::descriptor() const noexcept {
    return stream_ != nullptr ? stream_->handle() : -1;
}

// Whether bytes may be sent. False, with an error set.
bool ByteStream::check_writable() noexcept {
    if (closed_ || write_ended_) {
        return fail(closed_ ? "closed" : "ended");
    }
    if (held_) {
        return fail("busy");
    }
    if (!is_open()) {
        return fail("broken");
    }
    return stream_ == nullptr || core_->check_usable();
}

bool ByteStream::hold_writes() noexcept {
    if (!check_writable()) {
        return false;
    }
    held_ = true;
    return true;
}

bool ByteStream::write(std::span<const std::byte> bytes, PyObject* object) noexcept {
    if (!check_writable()) {
        return false;
    }
    if (bytes.empty()) {
        return true;
    }
    const std::size_t size = bytes.size();
    if (stream_ == nullptr) {
        // What may change must be copied: the transport may keep it.
        const nb::object kept =
            PyBytes_CheckExact(object)
                ? nb::borrow(object)
                : nb::steal(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()),
                                                      static_cast<Py_ssize_t>(size)));
        if (!kept.is_valid()) {
            return false;
        }
        const nb::object result =
            nb::steal(PyObject_CallMethod(transport_, "write", "O", kept.ptr()));
        sent += result.is_valid() ? size : 0;
        return result.is_valid();
    }
    if (size >= worth_a_call && stream_->unsent() == 0) {
#if defined(MSG_NOSIGNAL)
        constexpr int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
#else
        constexpr int flags = MSG_DONTWAIT;
#endif
        // An error is told by the next send.
        const ssize_t gone = ::send(stream_->handle(), bytes.data(), size, flags);
        bytes = bytes.subspan(static_cast<std::size_t>(std::max<ssize_t>(gone, 0)));
    }
    if (!bytes.empty()) {
        const int result = stream_->write(bytes);
        if (result == -ENOMEM) {
            PyErr_NoMemory();
            return false;
        }
        if (result < 0) {
            return fail("broken");
        }
        above_ = result == transport::StreamTransport::above_high_water;
    }
    sent += size;
    return true;
}

ByteStream::State ByteStream::try_drain() noexcept {
    if (closed_ || !is_open()) {
        fail(closed_ ? "closed" : "broken");
        return State::failed;
    }
    return above_ && !write_ended_ ? State::waits : State::done;
}

ByteStream::State ByteStream::try_flush() noexcept {
    if (closed_ || !is_open()) {
        fail(closed_ ? "closed" : "broken");
        return State::failed;
    }
    if (write_ended_) {
        fail("ended");
        return State::failed;
    }
    if (stream_ == nullptr || stream_->unsent() == 0) {
        return State::done;
    }
    flushing_ = true;
    stream_->set_limits(high, 0);
    stream_->tell_writable();
    return State::waits;
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

void ByteStream::cork() noexcept {
    if (stream_ != nullptr) {
        stream_->cork();
    }
}

void ByteStream::uncork() noexcept {
    if (stream_ != nullptr) {
        stream_->uncork();
    }
}

bool ByteStream::end_writing() noexcept {
    if (closed_) {
        return fail("closed");
    }
    if (!is_open()) {
        return fail("broken");
    }
    if (write_ended_) {
        return true;
    }
    if (held_) {
        return fail("busy");
    }
    if (stream_ != nullptr && !core_->check_usable()) {
        return false;
    }
    write_ended_ = true;
    if (stream_ != nullptr) {
        stream_->shutdown_write();
        wake_all(writers_);  // nothing more can be written: they need not wait
        return true;
    }
    return nb::steal(PyObject_CallMethod(transport_, "write_eof", nullptr)).is_valid();
}

void ByteStream::feed_above(bool above) noexcept {
    above_ = above;
    if (flushing_ && stream_ != nullptr) {
        flushing_ = false;
        stream_->set_limits(high, low);
    }
    if (!above) {
        wake_all(writers_);
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
        if (core_->is_usable()) {  // else it is ended by drop(), or with the loop
            stream_->abort();
            core_->nudge();  // the collector may run on any thread
        }
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
        if (core_->is_usable()) {
            stream_->abort();
            core_->nudge();  // the collector may run on any thread
        }
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
