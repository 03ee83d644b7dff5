// ByteStream as Python sees it: the base class of flowcoro.net.Connection.
#include <Python.h>
#include <structmember.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "bindings.hpp"
#include "byte_stream.hpp"
#include "loop_core.hpp"
#include "stream_call.hpp"

namespace flowcoro::bindings::loop {

namespace {

PyObject* none_if(bool good) noexcept {
    return good ? Py_NewRef(Py_None) : nullptr;
}

// Of an argument that must be a size: at least `least`. False, with an error set.
bool read_size(PyObject* argument, const char* name, std::size_t least, std::size_t& size) {
    const Py_ssize_t value = PyNumber_AsSsize_t(argument, PyExc_OverflowError);
    if (value == -1 && PyErr_Occurred()) {
        return false;
    }
    if (value < static_cast<Py_ssize_t>(least)) {
        PyErr_Format(PyExc_ValueError, "%s must be at least %zd, not %zd", name,
                     static_cast<Py_ssize_t>(least), value);
        return false;
    }
    size = static_cast<std::size_t>(value);
    return true;
}

// The one argument, by position or by this name. Null with an error set when there are others;
// `otherwise` when there is none.
PyObject* only_argument(const char* method, const char* name, PyObject* const* arguments,
                        Py_ssize_t count, PyObject* keywords, PyObject* otherwise) noexcept {
    const Py_ssize_t named = keywords != nullptr ? PyTuple_GET_SIZE(keywords) : 0;
    if (named != 0 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), name) != 0) {
        return PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", method,
                            PyTuple_GET_ITEM(keywords, 0));
    }
    if (count + named > 1 || (count + named == 0 && otherwise == nullptr)) {
        return PyErr_Format(PyExc_TypeError, "%s() takes 1 argument (%zd given)", method,
                            count + named);
    }
    return count + named == 1 ? arguments[0] : otherwise;
}

PyObject* read(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
               PyObject* keywords) noexcept {
    ByteStream::Need need{ByteStream::Need::Kind::some, std::size_t{64} * 1024, nullptr};
    PyObject* const size = only_argument("read", "max_bytes", arguments, count, keywords, Py_None);
    if (size == nullptr || (size != Py_None && !read_size(size, "max_bytes", 1, need.size))) {
        return nullptr;
    }
    return make_call(self, StreamCall::read, need);
}

PyObject* read_exactly(PyObject* self, PyObject* size) noexcept {
    ByteStream::Need need{ByteStream::Need::Kind::exactly, 0, nullptr};
    return read_size(size, "size", 0, need.size) ? make_call(self, StreamCall::read, need)
                                                 : nullptr;
}

PyObject* read_until(PyObject* self, PyObject* arguments) noexcept {
    ByteStream::Need need{ByteStream::Need::Kind::until, 0, nullptr};
    PyObject* size = nullptr;
    if (!PyArg_ParseTuple(arguments, "SO:_read_until", &need.separator, &size)) {
        return nullptr;
    }
    if (PyBytes_GET_SIZE(need.separator) == 0) {
        PyErr_SetString(PyExc_ValueError, "the separator must not be empty");
        return nullptr;
    }
    return read_size(size, "max_bytes", 1, need.size) ? make_call(self, StreamCall::read, need)
                                                      : nullptr;
}

bool write_one(PyObject* self, PyObject* data) noexcept {
    if (PyBytes_CheckExact(data)) [[likely]] {
        return stream_of(self).write({reinterpret_cast<const std::byte*>(PyBytes_AS_STRING(data)),
                                      static_cast<std::size_t>(PyBytes_GET_SIZE(data))},
                                     data);
    }
    Py_buffer view;
    if (PyUnicode_Check(data) || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) != 0) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "bytes are needed, not %.200s", Py_TYPE(data)->tp_name);
        return false;
    }
    const bool good = stream_of(self).write(
        {static_cast<const std::byte*>(view.buf), static_cast<std::size_t>(view.len)}, data);
    PyBuffer_Release(&view);
    return good;
}

PyObject* written(PyObject* self) noexcept {
    return stream_of(self).is_above() ? make_call(self, StreamCall::drain) : make_done_call();
}

PyObject* write(PyObject* self, PyObject* data) noexcept {
    return write_one(self, data) ? written(self) : nullptr;
}

PyObject* write_many(PyObject* self, PyObject* pieces) noexcept {
    const nb::object sequence = nb::steal(PySequence_Fast(pieces, "pieces of bytes are needed"));
    if (!sequence.is_valid()) {
        return nullptr;
    }
    // All of them, before any is sent.
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(sequence.ptr()); ++i) {
        PyObject* const piece = PySequence_Fast_GET_ITEM(sequence.ptr(), i);
        if (PyObject_CheckBuffer(piece) == 0) {
            return PyErr_Format(PyExc_TypeError, "piece %zd: bytes are needed, not %.200s", i,
                                Py_TYPE(piece)->tp_name);
        }
    }
    ByteStream& stream = stream_of(self);
    bool good = true;
    stream.cork();
    for (Py_ssize_t i = 0; good && i < PySequence_Fast_GET_SIZE(sequence.ptr()); ++i) {
        const nb::object piece = nb::borrow(PySequence_Fast_GET_ITEM(sequence.ptr(), i));
        good = write_one(self, piece.ptr());
    }
    stream.uncork();
    return good ? written(self) : nullptr;
}

PyObject* open(PyObject* self, PyObject* arguments) noexcept {
    PyObject* loop = nullptr;
    int fd = -1;
    if (!PyArg_ParseTuple(arguments, "Oi:_open", &loop, &fd)) {
        return nullptr;
    }
    return none_if(stream_of(self).open(reinterpret_cast<LoopObject*>(loop), fd));
}

PyObject* open_over(PyObject* self, PyObject* arguments) noexcept {
    PyObject* loop = nullptr;
    PyObject* transport = nullptr;
    PyObject* keeper = nullptr;
    if (!PyArg_ParseTuple(arguments, "OOO:_open_over", &loop, &transport, &keeper)) {
        return nullptr;
    }
    return none_if(stream_of(self).open_over(loop, transport, keeper));
}

PyObject* feed(PyObject* self, PyObject* data) noexcept {
    return none_if(stream_of(self).feed(data));
}

PyObject* feed_end(PyObject* self, PyObject* /*unused*/) noexcept {
    stream_of(self).feed_end();
    Py_RETURN_TRUE;  // as eof_received(): the transport stays open for writing
}

PyObject* feed_lost(PyObject* self, PyObject* error) noexcept {
    stream_of(self).feed_lost(error);
    Py_RETURN_NONE;
}

PyObject* pause_writing(PyObject* self, PyObject* /*unused*/) noexcept {
    stream_of(self).feed_above(true);
    Py_RETURN_NONE;
}

PyObject* resume_writing(PyObject* self, PyObject* /*unused*/) noexcept {
    stream_of(self).feed_above(false);
    Py_RETURN_NONE;
}

PyObject* end_writing(PyObject* self, PyObject* /*unused*/) noexcept {
    return none_if(stream_of(self).end_writing());
}

PyObject* close(PyObject* self, PyObject* /*unused*/) noexcept {
    return none_if(stream_of(self).close());
}

PyObject* abort(PyObject* self, PyObject* reset) noexcept {
    const int value = PyObject_IsTrue(reset);
    return none_if(value >= 0 && stream_of(self).abort(value != 0));
}

PyObject* flush(PyObject* self, PyObject* /*unused*/) noexcept {
    return make_call(self, StreamCall::flush);
}

PyObject* hold_writes(PyObject* self, PyObject* held) noexcept {
    if (held == Py_True) {
        return none_if(stream_of(self).hold_writes());
    }
    stream_of(self).allow_writes();
    Py_RETURN_NONE;
}

PyObject* wake_at_end(PyObject* self, PyObject* future) noexcept {
    stream_of(self).wake_at_end(future != Py_None ? future : nullptr);
    Py_RETURN_NONE;
}

PyObject* count_sent(PyObject* self, PyObject* size) noexcept {
    const std::uint64_t value = PyLong_AsUnsignedLongLong(size);
    if (!PyErr_Occurred()) {
        stream_of(self).sent += value;
    }
    return none_if(!PyErr_Occurred());
}

PyObject* peer(PyObject* self, void* /*unused*/) noexcept {
    return stream_of(self).peer();
}

PyObject* local(PyObject* self, void* /*unused*/) noexcept {
    return stream_of(self).local();
}

PyObject* wait_closed(PyObject* self, PyObject* /*unused*/) noexcept {
    return make_call(self, StreamCall::closed);
}

PyObject* set_limit(PyObject* self, PyObject* limit) noexcept {
    std::size_t size = 0;
    if (!read_size(limit, "limit", 1, size)) {
        return nullptr;
    }
    stream_of(self).set_limit(size);
    Py_RETURN_NONE;
}

template <auto method>
PyObject* truth(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong((stream_of(self).*method)());
}

template <auto method>
PyObject* number(PyObject* self, void* /*unused*/) noexcept {
    return PyLong_FromSsize_t(static_cast<Py_ssize_t>((stream_of(self).*method)()));
}

PyObject* received(PyObject* self, void* /*unused*/) noexcept {
    return PyLong_FromUnsignedLongLong(stream_of(self).received);
}

PyObject* sent(PyObject* self, void* /*unused*/) noexcept {
    return PyLong_FromUnsignedLongLong(stream_of(self).sent);
}

PyObject* make(PyTypeObject* type, PyObject* /*arguments*/, PyObject* /*keywords*/) noexcept {
    PyObject* const self = type->tp_alloc(type, 0);
    if (self != nullptr) {
        new (&stream_of(self)) ByteStream(self);
    }
    return self;
}

int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    return stream_of(self).traverse(visit, arg);
}

int clear(PyObject* self) {
    stream_of(self).clear();
    return 0;
}

// Nobody has it any more.
void finalize(PyObject* self) {
    ByteStream& stream = stream_of(self);
    if (!stream.is_left_open()) [[likely]] {
        return;
    }
    PyObject* type = nullptr;
    PyObject* value = nullptr;
    PyObject* traceback = nullptr;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_ResourceWarning(self, 1, "unclosed %R", self) != 0) {
        PyErr_WriteUnraisable(self);
    }
    stream.end_dropped();
    PyErr_Restore(type, value, traceback);
}

void dealloc(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    // That of a subclass has called it.
    if (type->tp_dealloc == &dealloc && PyObject_CallFinalizerFromDealloc(self) != 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    if (reinterpret_cast<StreamObject*>(self)->weak_references != nullptr) {
        PyObject_ClearWeakRefs(self);
    }
    stream_of(self).clear();
    stream_of(self).~ByteStream();
    type->tp_free(self);
    Py_DECREF(type);
}

template <typename Function>
PyCFunction fast(Function function) noexcept {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function));
}

PyMethodDef methods[] = {
    {"read", fast(read), METH_FASTCALL | METH_KEYWORDS,
     "read($self, max_bytes=65536)\n--\n\n"
     "Bytes that came, at most so many; none at the peer's end."},
    {"read_exactly", read_exactly, METH_O,
     "read_exactly($self, size, /)\n--\n\nExactly so many bytes."},
    {"_read_until", read_until, METH_VARARGS, nullptr},
    {"write", write, METH_O,
     "write($self, data, /)\n--\n\n"
     "Send the bytes, in their order; awaited, wait while too much is unsent."},
    {"write_many", write_many, METH_O,
     "write_many($self, pieces, /)\n--\n\nSend several pieces of bytes by as few calls as can be."},
    {"_open", open, METH_VARARGS, nullptr},
    {"_open_over", open_over, METH_VARARGS, nullptr},
    {"_feed", feed, METH_O, nullptr},
    {"_feed_end", feed_end, METH_NOARGS, nullptr},
    {"_feed_lost", feed_lost, METH_O, nullptr},
    {"_pause_writing", pause_writing, METH_NOARGS, nullptr},
    {"_resume_writing", resume_writing, METH_NOARGS, nullptr},
    {"_end_writing", end_writing, METH_NOARGS, nullptr},
    {"_close", close, METH_NOARGS, nullptr},
    {"_abort", abort, METH_O, nullptr},
    {"_flush", flush, METH_NOARGS, nullptr},
    {"_hold_writes", hold_writes, METH_O, nullptr},
    {"_wake_at_end", wake_at_end, METH_O, nullptr},
    {"_count_sent", count_sent, METH_O, nullptr},
    {"_wait_closed", wait_closed, METH_NOARGS, nullptr},
    {"_set_limit", set_limit, METH_O, nullptr},
    {}};

PyGetSetDef properties[] = {
    {"_is_open", truth<&ByteStream::is_open>, nullptr, nullptr, nullptr},
    {"_is_closed", truth<&ByteStream::is_closed>, nullptr, nullptr, nullptr},
    {"_has_ended", truth<&ByteStream::has_ended>, nullptr, nullptr, nullptr},
    {"_buffered", number<&ByteStream::buffered>, nullptr, nullptr, nullptr},
    {"_unsent", number<&ByteStream::unsent>, nullptr, nullptr, nullptr},
    {"_peer", peer, nullptr, nullptr, nullptr},
    {"_local", local, nullptr, nullptr, nullptr},
    {"_fd", number<&ByteStream::descriptor>, nullptr, nullptr, nullptr},
    {"bytes_received", received, nullptr, "Bytes that came so far.", nullptr},
    {"bytes_sent", sent, nullptr, "Bytes that were written so far.", nullptr},
    {}};

PyMemberDef members[] = {{"__weaklistoffset__", T_PYSSIZET, sizeof(PyObject), READONLY, nullptr},
                         {}};

PyType_Slot slots[] = {{Py_tp_doc, const_cast<char*>("The native part of a connection.")},
                       {Py_tp_new, reinterpret_cast<void*>(make)},
                       {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
                       {Py_tp_finalize, reinterpret_cast<void*>(finalize)},
                       {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                       {Py_tp_clear, reinterpret_cast<void*>(clear)},
                       {Py_tp_methods, methods},
                       {Py_tp_getset, properties},
                       {Py_tp_members, members},
                       {}};

PyType_Spec spec{"flowcoro._native.ByteStream", sizeof(StreamObject), 0,
                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, slots};

}  // namespace

void add_byte_stream_types(PyObject* module) {
    add_stream_call_type(module);
    Py_DECREF(add_stream_type(module, spec, "ByteStream"));
}

}  // namespace flowcoro::bindings::loop
