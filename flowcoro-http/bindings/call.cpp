#include "call.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <string_view>

#include "client.hpp"
#include "fetched.hpp"

namespace flowcoro_http::bindings {

namespace {

PyTypeObject* type = nullptr;
PyObject* set_result = nullptr;
PyObject* create_future = nullptr;
PyObject* done = nullptr;

// A chunk goes out with its frame in one piece, if it is no longer.
constexpr std::size_t largest_together = 64 * 1024;

CallState& of(PyObject* self) noexcept {
    return reinterpret_cast<Call*>(self)->state;
}

PyObject* as_object(Call& call) noexcept {
    return reinterpret_cast<PyObject*>(&call);
}

// What waits goes on later, and is late no more.
void wake(CallState& state) noexcept {
    if (const Ref waiter = std::move(state.waiter)) {
        if (state.client != nullptr) {
            state.client->deadline = std::numeric_limits<double>::infinity();
        }
        const Ref result = Ref::steal(PyObject_CallMethodOneArg(waiter.get(), set_result, Py_None));
        if (!result) {
            PyErr_Clear();  // it is cancelled
        }
    }
}

// The connection goes with it, if nothing has come to its end yet.
void give_up(CallState& state) noexcept {
    const Ref kept = std::move(state.connection);
    if (Client* const client = std::exchange(state.client, nullptr)) {
        client->forget_call();
    }
}

bool is_over(const CallState& state) noexcept {
    return state.whole && state.next_piece == state.pieces.size();
}

PyObject* raise(const CallState& state) noexcept {
    set_error(state.error);
    return nullptr;
}

// The next piece of the body, or None: none is there.
PyObject* take(PyObject* self, PyObject* /*unused*/) noexcept {
    CallState& state = of(self);
    if (state.next_piece == state.pieces.size()) {
        return state.error ? raise(state) : Py_NewRef(Py_None);
    }
    Ref piece = std::move(state.pieces[state.next_piece]);
    if (++state.next_piece == state.pieces.size()) {
        state.pieces.clear();
        state.next_piece = 0;
    }
    state.queued -= static_cast<std::size_t>(PyBytes_GET_SIZE(piece.get()));
    if (state.client != nullptr && state.queued < CallState::least_queued) {
        state.client->resume_reading();
    }
    return piece.release();
}

// A future that is set when something is new.
PyObject* wait(PyObject* self, PyObject* deadline) noexcept {
    CallState& state = of(self);
    const double until = PyFloat_AsDouble(deadline);
    if (until == -1.0 && PyErr_Occurred() != nullptr) {
        return nullptr;
    }
    if (state.waiter) {
        const Ref over = Ref::steal(PyObject_CallMethodNoArgs(state.waiter.get(), done));
        if (!over) {
            return nullptr;
        }
        if (over.get() != Py_True) {
            PyErr_SetString(PyExc_RuntimeError, "somebody waits for it already");
            return nullptr;
        }
    }
    state.waiter = Ref::steal(PyObject_CallMethodNoArgs(state.loop.get(), create_future));
    if (!state.waiter) {
        return nullptr;
    }
    const Ref waiter = state.waiter;
    if (state.client != nullptr) {
        state.client->deadline = until;
    } else {
        wake(state);
    }
    return Py_NewRef(waiter.get());
}

bool write_chunk(Client& client, PyObject* piece) noexcept {
    const std::string_view content = view(piece);
    char frame[20];
    char* const end = frame + sizeof frame;
    char* at = end - 2;
    std::memcpy(at, "\r\n", 2);
    for (std::size_t left = content.size(); left != 0; left /= 16) {
        *--at = "0123456789abcdef"[left % 16];
    }
    const std::string_view head(at, static_cast<std::size_t>(end - at));
    if (content.size() > largest_together) {
        return client.write(head) && client.write_object(piece) && client.write("\r\n");
    }
    const Ref together = Ref::steal(PyBytes_FromStringAndSize(
        nullptr, static_cast<Py_ssize_t>(head.size() + content.size() + 2)));
    if (!together) {
        return false;
    }
    char* to = PyBytes_AS_STRING(together.get());
    std::memcpy(to, head.data(), head.size());
    std::memcpy(to + head.size(), content.data(), content.size());
    std::memcpy(to + head.size() + content.size(), "\r\n", 2);
    return client.write_object(together.get());
}

// A piece of the request's body. Whether it is better to wait before the next.
PyObject* write(PyObject* self, PyObject* piece) noexcept {
    CallState& state = of(self);
    if (!PyBytes_Check(piece)) {
        PyErr_SetString(PyExc_TypeError, "a request's body is bytes");
        return nullptr;
    }
    const auto size = static_cast<std::uint64_t>(PyBytes_GET_SIZE(piece));
    if (!state.chunked && size > state.left) {
        PyErr_SetString(PyExc_ValueError, "the body is longer than its Content-Length");
        return nullptr;
    }
    if (!state.chunked) {
        state.left -= size;
    }
    if (state.client == nullptr || size == 0) {
        Py_RETURN_FALSE;
    }
    const Ref kept = state.connection;
    Client& client = *state.client;
    if (!(state.chunked ? write_chunk(client, piece) : client.write_object(piece))) {
        return nullptr;
    }
    if (!state.chunked && state.left == 0) {
        client.request_over();
    }
    return PyBool_FromLong(client.is_full());
}

// The request's body is.
PyObject* end(PyObject* self, PyObject* /*unused*/) noexcept {
    CallState& state = of(self);
    if (!state.chunked && state.left != 0) {
        PyErr_SetString(PyExc_ValueError, "the body is shorter than its Content-Length");
        return nullptr;
    }
    if (state.client != nullptr && state.chunked) {
        const Ref kept = state.connection;
        if (!state.client->write("0\r\n\r\n")) {
            return nullptr;
        }
        state.client->request_over();
    }
    Py_RETURN_NONE;
}

PyObject* close(PyObject* self, PyObject* /*unused*/) noexcept {
    CallState& state = of(self);
    give_up(state);
    state.pieces.clear();
    state.next_piece = 0;
    state.queued = 0;
    wake(state);
    Py_RETURN_NONE;
}

PyObject* get_head(PyObject* self, void* /*unused*/) noexcept {
    const CallState& state = of(self);
    if (state.head) {
        return Py_NewRef(state.head.get());
    }
    return state.error ? raise(state) : Py_NewRef(Py_None);
}

PyObject* get_over(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(is_over(of(self)));
}

// Whether the connection takes nothing more of it: the response is complete, or there will be none.
PyObject* get_done(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(of(self).client == nullptr);
}

PyObject* get_full(PyObject* self, void* /*unused*/) noexcept {
    const Client* const client = of(self).client;
    return PyBool_FromLong(client != nullptr && client->is_full());
}

// The kind of the failure, or None.
PyObject* get_failure(PyObject* self, void* /*unused*/) noexcept {
    const Ref& error = of(self).error;
    if (!error) {
        Py_RETURN_NONE;
    }
    const Ref all = Ref::steal(PyObject_GetAttrString(error.get(), "args"));
    return all ? PySequence_GetItem(all.get(), 0) : nullptr;
}

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const own = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Ref error = take_error();
    give_up(of(self));
    of(self).~CallState();
    own->tp_free(self);
    Py_DECREF(own);
    if (error) {
        set_error(std::move(error));
    }
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    const CallState& state = of(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(state.connection.get());
    Py_VISIT(state.loop.get());
    Py_VISIT(state.head.get());
    Py_VISIT(state.waiter.get());
    Py_VISIT(state.error.get());
    return 0;
}

int clear(PyObject* self) noexcept {
    CallState& state = of(self);
    give_up(state);
    state.waiter.reset();
    state.error.reset();
    return 0;
}

PyMethodDef methods[] = {
    {"take", take, METH_NOARGS, nullptr},   {"wait", wait, METH_O, nullptr},
    {"write", write, METH_O, nullptr},      {"end", end, METH_NOARGS, nullptr},
    {"close", close, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef attributes[] = {
    {"head", get_head, nullptr, nullptr, nullptr},
    {"over", get_over, nullptr, nullptr, nullptr},
    {"done", get_done, nullptr, nullptr, nullptr},
    {"full", get_full, nullptr, nullptr, nullptr},
    {"failure", get_failure, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

template <typename Function>
void* slot(Function* function) noexcept {
    return reinterpret_cast<void*>(function);
}

}  // namespace

Call* make_call(PyObject* connection, PyObject* loop, long long length) noexcept {
    PyObject* const self = type->tp_alloc(type, 0);
    if (self == nullptr) {
        return nullptr;
    }
    CallState& state = *new (&of(self)) CallState;
    state.client = &client_in(connection);
    state.connection = Ref::borrow(connection);
    state.loop = Ref::borrow(loop);
    state.chunked = length < 0;
    state.left = length < 0 ? 0 : static_cast<std::uint64_t>(length);
    return reinterpret_cast<Call*>(self);
}

void take_head(Call& call, const ResponseHead& head) noexcept {
    const Ref fields = fields_of(head);
    const Ref reason = bytes(head.reason());
    if (fields && reason) {
        call.state.head = Ref::steal(Py_BuildValue("(IOOi)", head.status(), fields.get(),
                                                   reason.get(), head.minor_version()));
    }
    if (!call.state.head) {
        PyErr_Clear();
        call.state.client->abort("memory", "");
        return;
    }
    wake(call.state);
}

void take_piece(Call& call, std::string_view content) noexcept {
    CallState& state = call.state;
    Ref piece = bytes(content);
    bool good = static_cast<bool>(piece);
    if (good) {
        try {
            state.pieces.push_back(std::move(piece));
        } catch (const std::bad_alloc&) {
            good = false;
        }
    }
    if (!good) {
        PyErr_Clear();
        state.client->abort("memory", "");
        return;
    }
    state.queued += content.size();
    if (state.queued > CallState::most_queued) {
        state.client->pause_reading();
    }
    wake(state);
}

void take_over(Call& call) noexcept {
    const Ref kept = Ref::borrow(as_object(call));
    call.state.client = nullptr;
    call.state.connection.reset();
    call.state.whole = true;
    wake(call.state);
}

void take_failure(Call& call, Ref error) noexcept {
    const Ref kept = Ref::borrow(as_object(call));
    call.state.client = nullptr;
    call.state.connection.reset();
    call.state.error = std::move(error);
    wake(call.state);
}

void take_writable(Call& call) noexcept {
    wake(call.state);
}

bool add_call(PyObject* module) noexcept {
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, slot(dealloc)},
        {Py_tp_traverse, slot(traverse)},
        {Py_tp_clear, slot(clear)},
        {Py_tp_methods, methods},
        {Py_tp_getset, attributes},
        {Py_tp_doc, const_cast<char*>("A request and its response, by pieces.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {"flowcoro_http._native.Call", sizeof(Call), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                   Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
                               slots};
    set_result = PyUnicode_InternFromString("set_result");
    create_future = PyUnicode_InternFromString("create_future");
    done = PyUnicode_InternFromString("done");
    type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, nullptr));
    return done != nullptr && type != nullptr && PyModule_AddType(module, type) == 0;
}

}  // namespace flowcoro_http::bindings
