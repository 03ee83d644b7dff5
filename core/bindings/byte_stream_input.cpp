// ByteStream's input: what came is kept in pieces, searched, and taken.
#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "byte_stream.hpp"
#include "interpreter.hpp"

namespace flowcoro::bindings::loop {

namespace {

std::string_view view_of(PyObject* bytes) noexcept {
    return {PyBytes_AS_STRING(bytes), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes))};
}

}  // namespace

void ByteStream::on_received(std::span<const std::byte> bytes) noexcept {
    add_received(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()),
                                           static_cast<Py_ssize_t>(bytes.size())));
}

// Something is there. Who reads whatever comes receives it when the task goes on.
void ByteStream::on_readable() noexcept {
    if (reader_ == nullptr || woken_) {
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

}  // namespace flowcoro::bindings::loop
