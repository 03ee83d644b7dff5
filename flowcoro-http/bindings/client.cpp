#include "client.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "call.hpp"
#include "fetched.hpp"

namespace flowcoro_http::bindings {

namespace {

PyObject* error_type = nullptr;

constexpr double never = std::numeric_limits<double>::infinity();

// With the head in one piece: one write instead of two.
constexpr std::size_t largest_together = 64 * 1024;

// Of a body that a server announces, room is made for so much before anything has come.
constexpr std::size_t largest_ahead = 1024 * 1024;

struct OwnNames {
    PyObject* set_result;
    PyObject* set_exception;
    PyObject* create_future;
    PyObject* write;
    PyObject* close;
    PyObject* abort;
    PyObject* pause_reading;
    PyObject* resume_reading;
};

OwnNames own_names;

bool make_own_names() noexcept {
    const auto intern = [](const char* name) { return PyUnicode_InternFromString(name); };
    own_names = {intern("set_result"),    intern("set_exception"), intern("create_future"),
                 intern("write"),         intern("close"),         intern("abort"),
                 intern("pause_reading"), intern("resume_reading")};
    return PyErr_Occurred() == nullptr;
}

// One that is cancelled has its end already.
void set(const Ref& future, PyObject* method, PyObject* value) noexcept {
    const Ref result = Ref::steal(PyObject_CallMethodOneArg(future.get(), method, value));
    if (!result) {
        PyErr_Clear();
    }
}

}  // namespace

Ref exchange_error(const char* kind, const char* reason) noexcept {
    return Ref::steal(PyObject_CallFunction(error_type, "ss", kind, reason));
}

const char* kind_of(Failed how) noexcept {
    switch (how) {
        case Failed::silent:
            return "silent";
        case Failed::cut:
            return "cut";
        case Failed::invalid:
            return "invalid";
        case Failed::memory:
            break;
    }
    return "memory";
}

Client::Client(PyObject* self, ClientEngine* of) noexcept
    : deadline(never), self_(self), engine_(of), http_(*of->shared, *this) {
    Py_INCREF(reinterpret_cast<PyObject*>(of));
}

Client::~Client() {
    clear();
    Py_DECREF(reinterpret_cast<PyObject*>(engine_));
}

int Client::traverse(visitproc visit, void* arg) const noexcept {
    Py_VISIT(reinterpret_cast<PyObject*>(engine_));
    Py_VISIT(transport_.get());
    Py_VISIT(write_.get());
    Py_VISIT(future_.get());
    Py_VISIT(origin.get());
    return 0;
}

void Client::clear() noexcept {
    http_.abandon();
    transport_.reset();
    write_.reset();
    future_.reset();
    origin.reset();
    head_.reset();
    Py_CLEAR(body_);
}

bool Client::made(PyObject* transport) noexcept {
    transport_ = Ref::borrow(transport);
    write_ = Ref::steal(PyObject_GetAttr(transport, own_names.write));
    if (gone_) {  // nobody has waited for it
        call_transport(own_names.abort);
    }
    return static_cast<bool>(write_);
}

bool Client::is_usable() const noexcept {
    return transport_ && !gone_ && http_.is_idle();
}

void Client::received(std::string_view bytes) noexcept {
    http_.received(bytes);
}

void Client::ended() noexcept {
    if (http_.is_until_end() && !is_authentic_end()) {
        http_.lost();
    } else {
        http_.ended();
    }
}

// Whether it was the server who ended the connection. Over TLS it says so itself (RFC 8446, 6.1),
// which asyncio does not tell apart from somebody else's cutting it: a read then finds nothing,
// instead of the end.
bool Client::is_authentic_end() noexcept {
    const Ref object =
        transport_
            ? Ref::steal(PyObject_CallMethod(transport_.get(), "get_extra_info", "s", "ssl_object"))
            : Ref();
    bool authentic = object && object.get() == Py_None;
    if (object && !authentic) {
        const Ref read = Ref::steal(PyObject_CallMethod(object.get(), "read", "i", 1));
        authentic = read && PyBytes_Check(read.get()) && PyBytes_GET_SIZE(read.get()) == 0;
    }
    PyErr_Clear();
    return authentic;
}

void Client::lost() noexcept {
    if (std::exchange(lost_, true)) {
        return;
    }
    http_.lost();
    tell_gone();
    transport_.reset();
    write_.reset();
    tell(engine_->lost);
}

void Client::set_full(bool full) noexcept {
    full_ = full;
    if (!full && call_ != nullptr) {
        take_writable(*call_);
    }
}

bool Client::write_object(PyObject* content) noexcept {
    if (!write_) {
        return true;  // it is lost, as whoever waits is told
    }
    const Ref result = Ref::steal(PyObject_CallOneArg(write_.get(), content));
    return static_cast<bool>(result);
}

bool Client::write(std::string_view content) noexcept {
    const Ref object = bytes(content);
    return object && write_object(object.get());
}

bool Client::start(std::string_view head, PyObject* body, bool whole, bool of_head,
                   bool closes) noexcept {
    if (!is_usable()) {
        PyErr_SetString(PyExc_RuntimeError, "the connection is in use, or closed");
        return false;
    }
    ++uses;
    marks = 0;
    closes_ = closes;
    http_.begin(of_head);
    if (send(head, body != nullptr ? view(body) : std::string_view(), body)) {
        if (whole) {
            http_.request_over();
        }
        return true;
    }
    Ref error = take_error();
    abort("memory", "");
    set_error(std::move(error));
    return false;
}

bool Client::send(std::string_view head, std::string_view content, PyObject* body) noexcept {
    if (content.empty()) {
        return write(head);
    }
    if (content.size() > largest_together) {
        return write(head) && write_object(body);
    }
    const Ref together = Ref::steal(
        PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(head.size() + content.size())));
    if (!together) {
        return false;
    }
    char* const at = PyBytes_AS_STRING(together.get());
    std::memcpy(at, head.data(), head.size());
    std::memcpy(at + head.size(), content.data(), content.size());
    return write_object(together.get());
}

Ref Client::fetch(std::string_view head, PyObject* body, bool of_head, bool closes,
                  double until) noexcept {
    Ref future = Ref::steal(PyObject_CallMethodNoArgs(engine_->loop, own_names.create_future));
    if (!future || !start(head, body, true, of_head, closes)) {
        return {};
    }
    future_ = future;
    deadline = until;
    return future;
}

bool Client::begin(Call* call, std::string_view head, PyObject* body, bool whole, bool of_head,
                   bool closes) noexcept {
    if (!start(head, body, whole, of_head, closes)) {
        return false;
    }
    call_ = call;
    return true;
}

void Client::abandon(PyObject* future) noexcept {
    if (future_ && future_.get() == future) {
        future_.reset();
        http_.abandon();
        tell_gone();
        call_transport(own_names.abort);
    }
}

void Client::forget_call() noexcept {
    if (std::exchange(call_, nullptr) != nullptr) {
        http_.abandon();
        tell_gone();
        call_transport(own_names.abort);
    }
}

void Client::abort(const char* kind, const char* reason) noexcept {
    const Ref kept = Ref::borrow(self_);
    http_.abandon();
    fail(kind, reason);
    tell_gone();
    call_transport(own_names.abort);
}

void Client::close() noexcept {
    http_.abandon();
    tell_gone();
    call_transport(own_names.close);
}

void Client::pause_reading() noexcept {
    paused_ = true;
    call_transport(own_names.pause_reading);
}

void Client::resume_reading() noexcept {
    if (std::exchange(paused_, false)) {
        call_transport(own_names.resume_reading);
    }
}

void Client::call_transport(PyObject* method) noexcept {
    if (transport_) {
        const Ref kept = transport_;
        const Ref result = Ref::steal(PyObject_CallMethodNoArgs(kept.get(), method));
        if (!result) {
            PyErr_Clear();  // it is closing already
        }
    }
}

void Client::head(const ResponseHead& head, BodyEnd body_end) noexcept {
    if (call_ != nullptr) {
        take_head(*call_, head);
        return;
    }
    if (!future_) {
        return;
    }
    status_ = head.status();
    coded_ = head.is_coded();
    head_ = bytes(head.text());
    size_ = 0;
    Py_CLEAR(body_);
    std::size_t room = 0;
    if (body_end == BodyEnd::length) {
        if (head.content_length() > engine_->max_body) {
            abort("large", "the response's body is larger than max_body_bytes");
            return;
        }
        room = std::min(static_cast<std::size_t>(head.content_length()), largest_ahead);
    }
    body_ = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(room));
    if (!head_ || body_ == nullptr) {
        PyErr_Clear();
        abort("memory", "");
    }
}

// False: it failed.
bool Client::gather(std::string_view piece) noexcept {
    const auto room = static_cast<std::size_t>(PyBytes_GET_SIZE(body_));
    const std::size_t needed = size_ + piece.size();
    if (needed > engine_->max_body) {
        abort("large", "the response's body is larger than max_body_bytes");
        return false;
    }
    if (needed > room &&
        _PyBytes_Resize(&body_, static_cast<Py_ssize_t>(std::max(needed, 2 * room))) != 0) {
        PyErr_Clear();
        abort("memory", "");
        return false;
    }
    std::memcpy(PyBytes_AS_STRING(body_) + size_, piece.data(), piece.size());
    size_ = needed;
    return true;
}

void Client::body(std::string_view piece) noexcept {
    if (call_ != nullptr) {
        take_piece(*call_, piece);
    } else if (future_ && body_ != nullptr) {
        gather(piece);
    }
}

// The future of a fetch gets its response.
void Client::settle() noexcept {
    const Ref future = std::move(future_);
    deadline = never;
    if (static_cast<std::size_t>(PyBytes_GET_SIZE(body_)) != size_ &&
        _PyBytes_Resize(&body_, static_cast<Py_ssize_t>(size_)) != 0) {
        PyErr_Clear();
    }
    const Ref response =
        body_ != nullptr ? make_fetched(engine_->response_type, status_, coded_, std::move(head_),
                                        Ref::steal(std::exchange(body_, nullptr)))
                         : Ref();
    if (response) {
        set(future, own_names.set_result, response.get());
        return;
    }
    PyErr_Clear();
    if (const Ref error = exchange_error("memory", "")) {
        set(future, own_names.set_exception, error.get());
    }
}

void Client::over(bool reusable) noexcept {
    const Ref kept = Ref::borrow(self_);
    if (Call* const call = std::exchange(call_, nullptr)) {
        deadline = never;
        resume_reading();
        take_over(*call);
    } else if (future_) {
        settle();
    }
    if (reusable && !closes_) {
        tell(engine_->released);
    } else if (http_.is_request_over()) {
        close();
    } else {
        useless();  // the server may never take the rest of it
    }
}

void Client::failed(Failed how, const Refusal* why) noexcept {
    abort(kind_of(how), why != nullptr ? why->reason : "");
}

void Client::useless() noexcept {
    tell_gone();
    call_transport(own_names.abort);
}

void Client::fail(const char* kind, const char* reason) noexcept {
    deadline = never;
    const Ref future = std::move(future_);
    future_.reset();
    head_.reset();
    Py_CLEAR(body_);
    Call* const call = std::exchange(call_, nullptr);
    if (!future && call == nullptr) {
        return;
    }
    Ref error = exchange_error(kind, reason);
    if (!error) {
        error = take_error();
    }
    if (future) {
        set(future, own_names.set_exception, error.get());
    } else {
        take_failure(*call, std::move(error));
    }
}

void Client::tell(PyObject* function) noexcept {
    if (function == nullptr) {
        return;
    }
    const Ref result = Ref::steal(PyObject_CallOneArg(function, self_));
    if (!result) {
        PyErr_WriteUnraisable(function);
    }
}

void Client::tell_gone() noexcept {
    if (!std::exchange(gone_, true)) {
        tell(engine_->gone);
    }
}

bool make_client_names(PyObject* module) noexcept {
    error_type = PyErr_NewExceptionWithDoc("flowcoro_http._native.ExchangeError",
                                           "Why there is no response: its kind, and a reason.",
                                           PyExc_Exception, nullptr);
    return make_own_names() && error_type != nullptr &&
           PyModule_AddObjectRef(module, "ExchangeError", error_type) == 0;
}

}  // namespace flowcoro_http::bindings
