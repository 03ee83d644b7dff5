// StreamConnection, and the asyncio protocol that it is behind: for TLS, whose machinery is
// asyncio's, and for loops that have no reactor of FlowCoro's.
//
// What is written is gathered and given to the transport when the callback, or the step of a task,
// is over.
#include <algorithm>
#include <new>
#include <string>

#include "connection.hpp"
#include "names.hpp"

namespace flowcoro_http::bindings {

namespace {

class StreamConnection;

PyTypeObject* type = nullptr;

struct StreamProtocol {
    PyObject_HEAD PyObject* engine;
    StreamConnection* connection;  // owned, from connection_made to connection_lost
};

StreamProtocol* of(PyObject* self) noexcept {
    return reinterpret_cast<StreamProtocol*>(self);
}

class StreamConnection final : public Connection {
  public:
    StreamConnection(Engine& owner, PyObject* protocol, PyObject* transport) noexcept
        : Connection(owner), protocol_(protocol), transport_(Ref::borrow(transport)) {
        const Ref object =
            Ref::steal(PyObject_CallMethod(transport, "get_extra_info", "s", "ssl_object"));
        secure_ = object && object.get() != Py_None;
        PyErr_Clear();
    }

    char* prepare(std::size_t size) noexcept override {
        begin_ = pending_.size();
        try {
            pending_.resize(begin_ + size);
        } catch (const std::bad_alloc&) {
            return nullptr;
        }
        return pending_.data() + begin_;
    }

    void commit(std::size_t size) noexcept override {
        pending_.resize(begin_ + size);
        flush_unless_corked();
    }

    void write(std::string_view bytes) noexcept override {
        try {
            pending_.append(bytes);
        } catch (const std::bad_alloc&) {
            abort();
            return;
        }
        flush_unless_corked();
    }

    [[nodiscard]] bool is_full() const noexcept override { return full_; }

    [[nodiscard]] std::size_t unsent() const noexcept override {
        const Ref size =
            Ref::steal(PyObject_CallMethodNoArgs(transport_.get(), names.get_write_buffer_size));
        const long buffered = size ? PyLong_AsLong(size.get()) : 0;
        PyErr_Clear();
        return pending_.size() + (buffered > 0 ? static_cast<std::size_t>(buffered) : 0);
    }

    void pause_reading() noexcept override {
        kept_ = Ref::borrow(protocol_);
        call(names.pause_reading);
    }

    void resume_reading() noexcept override {
        call(names.resume_reading);
        if (!ended_) {
            kept_.reset();
        }
    }

    // The peer sends no more: whether the transport is to stay. It is not read from any more.
    bool end() noexcept {
        ended_ = http.ended() && !secure_;
        if (ended_) {
            kept_ = Ref::borrow(protocol_);
        }
        return ended_;
    }

    void shutdown_write() noexcept override {
        flush();
        const Ref can =
            Ref::steal(PyObject_CallMethodNoArgs(transport_.get(), names.can_write_eof));
        PyErr_Clear();
        if (can && can.get() == Py_True) {
            call(names.write_eof);
        }
        // TLS has no half of a close: its peer sees the end when all is closed.
    }

    void close() noexcept override {
        flush();
        call(names.close);
    }

    void abort() noexcept override {
        pending_.clear();
        // What asyncio aborts, the kernel goes on sending, for ever to a peer that takes nothing.
        const Ref& reset = engine.hooks.reset;
        const Ref done =
            Ref::steal(reset ? PyObject_CallOneArg(reset.get(), transport_.get()) : nullptr);
        PyErr_Clear();
        if (!done) {
            call(names.abort);
        }
    }

    void cork() noexcept override { ++corks_; }

    void uncork() noexcept override {
        if (--corks_ == 0) {
            flush();
            if (lost_) {
                delete this;
            }
        }
    }

    // Its transport is gone; and this, as soon as nobody is in the midst of it.
    void lose() noexcept {
        http.lost();
        lost_ = true;
        cork();
        uncork();
    }

    [[nodiscard]] Ref peer() noexcept override { return address("peername"); }

    [[nodiscard]] Ref local() noexcept override { return address("sockname"); }

    [[nodiscard]] bool is_secure() const noexcept override { return secure_; }

    void set_full(bool full) noexcept { full_ = full; }

    [[nodiscard]] const Ref& transport() const noexcept { return transport_; }

  private:
    void call(PyObject* method) noexcept {
        const Ref result = Ref::steal(PyObject_CallMethodNoArgs(transport_.get(), method));
        if (!result) {
            PyErr_Clear();  // it is closing already
        }
    }

    void flush_unless_corked() noexcept {
        if (corks_ == 0 || pending_.size() >= most_pending) {
            flush();
        }
    }

    void flush() noexcept {
        if (pending_.empty()) {
            return;
        }
        const Ref content = bytes(pending_);
        pending_.clear();
        const Ref result = content ? Ref::steal(PyObject_CallMethodOneArg(
                                         transport_.get(), names.write, content.get()))
                                   : Ref();
        if (!result) {
            engine.report("a response could not be written", take_error());
            abort();
        }
    }

    Ref address(const char* name) noexcept {
        Ref found = Ref::steal(PyObject_CallMethod(transport_.get(), "get_extra_info", "s", name));
        if (found && PyTuple_Check(found.get()) && PyTuple_GET_SIZE(found.get()) > 2) {
            return Ref::steal(PyTuple_GetSlice(found.get(), 0, 2));  // of IPv6
        }
        return found && PyTuple_Check(found.get()) ? std::move(found) : Ref::borrow(Py_None);
    }

    // Then the transport is told, which tells when it is too much.
    static constexpr std::size_t most_pending = 64 * 1024;

    PyObject* protocol_;
    Ref transport_;
    // Of the protocol. A loop knows a transport that it reads from, or writes to; one that does
    // neither for now, nobody may know but its protocol, and it would be collected as garbage.
    Ref kept_;
    std::string pending_;
    std::size_t begin_ = 0;
    int corks_ = 0;
    bool full_ = false;
    bool secure_ = false;
    bool ended_ = false;
    bool lost_ = false;
};

Engine& engine_of(PyObject* self) noexcept {
    return *engine_in(of(self)->engine);
}

// Within a callback of asyncio's.
class Called {
  public:
    explicit Called(PyObject* self) noexcept
        : self_(Ref::borrow(self)), entered_(engine_of(self)), connection_(of(self)->connection) {
        connection_->cork();
    }

    Called(const Called&) = delete;
    Called& operator=(const Called&) = delete;

    ~Called() { connection_->uncork(); }

    StreamConnection* operator->() const noexcept { return connection_; }

  private:
    const Ref self_;
    const Entered entered_;
    StreamConnection* const connection_;
};

PyObject* connection_made(PyObject* self, PyObject* transport) noexcept {
    Engine& engine = engine_of(self);
    const Entered entered(engine);
    const bool full = engine.is_full();
    auto* const made = new (std::nothrow) StreamConnection(engine, self, transport);
    if (made == nullptr) {
        return PyErr_NoMemory();
    }
    of(self)->connection = made;
    if (full) {
        made->abort();
    } else {
        made->http.connected();
    }
    Py_RETURN_NONE;
}

PyObject* data_received(PyObject* self, PyObject* data) noexcept {
    if (of(self)->connection == nullptr) {
        Py_RETURN_NONE;
    }
    Py_buffer buffer{};
    if (PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE) != 0) {
        return nullptr;
    }
    {
        const Called called(self);
        called->http.received(
            {static_cast<const char*>(buffer.buf), static_cast<std::size_t>(buffer.len)});
    }
    PyBuffer_Release(&buffer);
    Py_RETURN_NONE;
}

PyObject* eof_received(PyObject* self, PyObject* /*unused*/) noexcept {
    if (of(self)->connection == nullptr) {
        Py_RETURN_NONE;
    }
    const Called called(self);
    return PyBool_FromLong(called->end());
}

PyObject* connection_lost(PyObject* self, PyObject* /*error*/) noexcept {
    StreamConnection* const connection = std::exchange(of(self)->connection, nullptr);
    if (connection != nullptr) {
        const Entered entered(engine_of(self));
        connection->lose();
    }
    Py_RETURN_NONE;
}

PyObject* pause_writing(PyObject* self, PyObject* /*unused*/) noexcept {
    if (of(self)->connection != nullptr) {
        of(self)->connection->set_full(true);
    }
    Py_RETURN_NONE;
}

PyObject* resume_writing(PyObject* self, PyObject* /*unused*/) noexcept {
    if (of(self)->connection != nullptr) {
        of(self)->connection->set_full(false);
        const Called called(self);
        called->http.writable();
    }
    Py_RETURN_NONE;
}

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const own = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (StreamConnection* const connection = std::exchange(of(self)->connection, nullptr)) {
        const KeptError kept;
        connection->lose();  // its transport is gone without a word
    }
    Py_XDECREF(of(self)->engine);
    own->tp_free(self);
    Py_DECREF(own);
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(of(self)->engine);
    if (of(self)->connection != nullptr) {
        Py_VISIT(of(self)->connection->transport().get());
    }
    return 0;
}

PyMethodDef methods[] = {
    {"connection_made", connection_made, METH_O, nullptr},
    {"data_received", data_received, METH_O, nullptr},
    {"eof_received", eof_received, METH_NOARGS, nullptr},
    {"connection_lost", connection_lost, METH_O, nullptr},
    {"pause_writing", pause_writing, METH_NOARGS, nullptr},
    {"resume_writing", resume_writing, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

template <typename Function>
void* slot(Function* function) noexcept {
    return reinterpret_cast<void*>(function);
}

}  // namespace

Ref make_stream_protocol(Engine& engine) noexcept {
    PyObject* const made = type->tp_alloc(type, 0);
    if (made != nullptr) {
        of(made)->engine = Py_NewRef(engine.self());
    }
    return Ref::steal(made);
}

bool add_stream_protocol(PyObject* module) noexcept {
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, slot(dealloc)},
        {Py_tp_traverse, slot(traverse)},
        {Py_tp_methods, methods},
        {Py_tp_doc, const_cast<char*>("An asyncio protocol: a server's side of one connection.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {
        "flowcoro_http._native.StreamProtocol", sizeof(StreamProtocol), 0,
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    const Ref asyncio = Ref::steal(PyImport_ImportModule("asyncio"));
    const Ref base =
        asyncio ? Ref::steal(PyObject_GetAttrString(asyncio.get(), "Protocol")) : Ref();
    type =
        base ? reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, base.get()))
             : nullptr;
    return type != nullptr && PyModule_AddType(module, type) == 0;
}

}  // namespace flowcoro_http::bindings
