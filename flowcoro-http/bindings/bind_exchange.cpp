// The Python type of Exchange: its attributes, its table of methods, its place in the module.
#include <algorithm>
#include <string_view>

#include "connection.hpp"
#include "engine.hpp"
#include "exchange_methods.hpp"
#include "messages.hpp"
#include "names.hpp"

namespace flowcoro_http::bindings {

namespace {

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const own = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    ExchangeState& state = exchange_of(self).state;
    if (state.engine != nullptr) {
        forget_pieces(state);
    }
    state.~ExchangeState();
    own->tp_free(self);
    Py_DECREF(own);
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    const ExchangeState& state = exchange_of(self).state;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(state.engine_object.get());
    Py_VISIT(state.task.get());
    Py_VISIT(state.state.get());
    Py_VISIT(state.headers.get());
    Py_VISIT(state.start_headers.get());
    for (const auto* each : {&state.readers, &state.writers}) {
        for (const Ref& future : *each) {
            Py_VISIT(future.get());
        }
    }
    return 0;
}

int clear(PyObject* self) noexcept {
    ExchangeState& state = exchange_of(self).state;
    state.task.reset();
    state.state.reset();
    state.headers.reset();
    state.start_headers.reset();
    state.readers.clear();
    state.writers.clear();
    return 0;
}

// What the request is.

PyObject* get_method(PyObject* self, void* /*unused*/) noexcept {
    return method_of(exchange_of(self).state.head->method()).release();
}

PyObject* get_path(PyObject* self, void* /*unused*/) noexcept {
    return decoded_path(exchange_of(self).state.head->path()).release();
}

PyObject* get_raw_path(PyObject* self, void* /*unused*/) noexcept {
    return bytes(exchange_of(self).state.head->path()).release();
}

PyObject* get_query_string(PyObject* self, void* /*unused*/) noexcept {
    return bytes(exchange_of(self).state.head->query()).release();
}

PyObject* get_headers(PyObject* self, void* /*unused*/) noexcept {
    ExchangeState& state = exchange_of(self).state;
    if (!state.headers) {
        state.headers = fields_of(*state.head);
    }
    return Ref(state.headers).release();
}

PyObject* get_http_version(PyObject* self, void* /*unused*/) noexcept {
    return Py_NewRef(exchange_of(self).state.head->minor_version() == 1 ? names.http_1_1
                                                                        : names.http_1_0);
}

PyObject* get_client(PyObject* self, void* /*unused*/) noexcept {
    return Ref(exchange_of(self).state.client).release();
}

PyObject* get_scope(PyObject* self, void* /*unused*/) noexcept {
    return make_scope(exchange_of(self), names.http).release();
}

PyObject* get_scheme(PyObject* self, void* /*unused*/) noexcept {
    PyObject* const scope = exchange_of(self).state.engine->hooks.scope.get();
    PyObject* const scheme = PyDict_GetItemWithError(scope, names.scheme);
    return Py_XNewRef(scheme);
}

PyObject* get_root_path(PyObject* self, void* /*unused*/) noexcept {
    PyObject* const scope = exchange_of(self).state.engine->hooks.scope.get();
    PyObject* const root = PyDict_GetItemWithError(scope, names.root_path);
    return Py_NewRef(root != nullptr ? root : names.empty_text);
}

PyObject* get_cancels(PyObject* self, void* /*unused*/) noexcept {
    const Kind kind = exchange_of(self).state.kind;
    return PyBool_FromLong(kind == Kind::application || kind == Kind::direct);
}

PyObject* get_state(PyObject* self, void* /*unused*/) noexcept {
    PyObject* const scope = exchange_of(self).state.engine->hooks.scope.get();
    PyObject* const state = PyDict_GetItemWithError(scope, names.state);
    return state != nullptr ? PyDict_Copy(state) : PyDict_New();
}

PyObject* get_readable(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(is_readable(exchange_of(self).state));
}

PyObject* get_full(PyObject* self, void* /*unused*/) noexcept {
    const ExchangeState& state = exchange_of(self).state;
    return PyBool_FromLong(state.connection != nullptr && state.connection->http.is_full());
}

PyObject* get_disconnected(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(exchange_of(self).state.gone);
}

PyObject* get_complete(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(exchange_of(self).state.connection == nullptr);
}

PyObject* get_begun(PyObject* self, void* /*unused*/) noexcept {
    const ExchangeState& state = exchange_of(self).state;
    return PyBool_FromLong(state.connection == nullptr || state.connection->http.has_begun());
}

template <typename Function>
PyCFunction fast(Function* function) noexcept {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function));
}

PyMethodDef method_table[] = {
    {"take", methods::take, METH_NOARGS,
     "take($self, /)\n--\n\nThe next piece of the body and whether more follows; None when there "
     "is no more to come."},
    {"take_message", methods::take_message, METH_NOARGS,
     "take_message($self, /)\n--\n\nThe same as a message of ASGI."},
    {"read", methods::read, METH_NOARGS, "read($self, /)\n--\n\nAwaits what take() gives."},
    {"receive", methods::receive, METH_NOARGS, "receive($self, /)\n--\n\nASGI's receive."},
    {"send", methods::send, METH_O, "send($self, message, /)\n--\n\nASGI's send."},
    {"wait_readable", methods::wait_readable, METH_NOARGS,
     "wait_readable($self, /)\n--\n\nA future that is set when there is something to take."},
    {"wait_writable", methods::wait_writable, METH_NOARGS,
     "wait_writable($self, /)\n--\n\nA future that is set when more can be written."},
    {"respond", fast(methods::respond), METH_FASTCALL,
     "respond($self, status, headers, body, /)\n--\n\nA whole response."},
    {"start", fast(methods::start), METH_FASTCALL,
     "start($self, status, headers, /)\n--\n\nThe head of a response."},
    {"write", methods::write, METH_O,
     "write($self, piece, /)\n--\n\nA piece of its body; to be awaited, for room for more."},
    {"end", methods::end, METH_NOARGS, "end($self, /)\n--\n\nThe response is complete."},
    {"abort", methods::abort, METH_NOARGS,
     "abort($self, /)\n--\n\nIt will never be: cuts the connection."},
    {"upgrade", methods::upgrade, METH_NOARGS,
     "upgrade($self, /)\n--\n\nThe connection speaks something else from now on."},
    {"write_raw", methods::write_raw, METH_O, "write_raw($self, piece, /)\n--\n\nThen: as write."},
    {"close", methods::close, METH_NOARGS,
     "close($self, /)\n--\n\nThen: closes when all has gone."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef attributes[] = {
    {"method", get_method, nullptr, "The method.", nullptr},
    {"path", get_path, nullptr, "The path, percent-decoded.", nullptr},
    {"raw_path", get_raw_path, nullptr, "The path as it came.", nullptr},
    {"query_string", get_query_string, nullptr, "The query as it came.", nullptr},
    {"headers", get_headers, nullptr, "The fields, names in lower case.", nullptr},
    {"http_version", get_http_version, nullptr, "1.0 or 1.1.", nullptr},
    {"scheme", get_scheme, nullptr, "http or https.", nullptr},
    {"client", get_client, nullptr, "The peer's address and port.", nullptr},
    {"root_path", get_root_path, nullptr, "The prefix that the application is mounted at.",
     nullptr},
    {"cancels", get_cancels, nullptr, "Whether the task is cancelled when the peer goes.", nullptr},
    {"state", get_state, nullptr, "What the lifespan left, a copy.", nullptr},
    {"scope", get_scope, nullptr, "ASGI's scope, made anew.", nullptr},
    {"readable", get_readable, nullptr, "Whether take() has something to give.", nullptr},
    {"full", get_full, nullptr, "Whether it is better to wait before more is written.", nullptr},
    {"disconnected", get_disconnected, nullptr, "Whether the peer has gone.", nullptr},
    {"complete", get_complete, nullptr, "Whether nothing more can be written.", nullptr},
    {"begun", get_begun, nullptr, "Whether a response has begun.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

template <typename Function>
void* slot(Function* function) noexcept {
    return reinterpret_cast<void*>(function);
}

PyMethodDef* method_called(const char* name) noexcept {
    return std::find_if(
        std::begin(method_table), std::end(method_table),
        [&](const PyMethodDef& each) { return std::string_view(each.ml_name) == name; });
}

}  // namespace

Ref receive_of(Exchange& exchange) noexcept {
    static PyMethodDef* const method = method_called("receive");
    return Ref::steal(PyCFunction_New(method, as_object(&exchange)));
}

Ref send_of(Exchange& exchange) noexcept {
    static PyMethodDef* const method = method_called("send");
    return Ref::steal(PyCFunction_New(method, as_object(&exchange)));
}

bool add_exchange(PyObject* module) noexcept {
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, slot(dealloc)},
        {Py_tp_traverse, slot(traverse)},
        {Py_tp_clear, slot(clear)},
        {Py_tp_methods, method_table},
        {Py_tp_getset, attributes},
        {Py_tp_doc, const_cast<char*>("A request and its response.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {"flowcoro_http._native.Exchange", sizeof(Exchange), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                   Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
                               slots};
    exchange_type =
        reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, nullptr));
    return exchange_type != nullptr && PyModule_AddType(module, exchange_type) == 0 &&
           make_gone_error(module);
}

}  // namespace flowcoro_http::bindings
