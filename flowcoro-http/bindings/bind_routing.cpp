// `_native.RouteTable` and `_native.split_path`.
#include <array>
#include <exception>
#include <new>
#include <stdexcept>

#include "route_match.hpp"
#include "route_table_object.hpp"

#if PY_VERSION_HEX < 0x030D0000
// There is one critical section: the GIL.
#    define Py_BEGIN_CRITICAL_SECTION(object) {
#    define Py_END_CRITICAL_SECTION() }
#endif

namespace flowcoro_http::bindings {

namespace {

PyTypeObject* table_type = nullptr;

RouteTableObject* of(PyObject* self) noexcept {
    return reinterpret_cast<RouteTableObject*>(self);
}

// -- life ------------------------------------------------------------------------------------

PyObject* construct(PyTypeObject* type, PyObject* arguments, PyObject* keywords) noexcept {
    static std::array<const char*, 3> names = {"miss", "malformed", nullptr};
    PyObject* miss = nullptr;
    PyObject* malformed = nullptr;
    if (PyArg_ParseTupleAndKeywords(arguments, keywords, "OO:RouteTable",
                                    const_cast<char**>(names.data()), &miss, &malformed) == 0) {
        return nullptr;
    }
    Ref made = Ref::steal(type->tp_alloc(type, 0));
    if (!made) {
        return nullptr;
    }
    RouteTableObject* const self = of(made.get());
    ::new (&self->frozen) std::atomic<bool>(false);
    self->miss = Py_NewRef(miss);
    self->malformed = Py_NewRef(malformed);
    try {
        self->routes = new Routes;
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return nullptr;
    }
    return made.release();
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(of(self)->miss);
    Py_VISIT(of(self)->malformed);
    if (of(self)->routes != nullptr) {
        for (const RouteEntry& entry : of(self)->routes->entries) {
            Py_VISIT(entry.value.get());
            Py_VISIT(entry.names.get());
        }
    }
    return 0;
}

// Values alone make cycles. All else stays: who is destroyed with the table may still ask it.
int clear(PyObject* self) noexcept {
    if (of(self)->routes != nullptr) {
        for (RouteEntry& entry : of(self)->routes->entries) {
            entry.value = Ref::borrow(Py_None);
        }
    }
    return 0;
}

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    delete of(self)->routes;
    Py_XDECREF(of(self)->miss);
    Py_XDECREF(of(self)->malformed);
    type->tp_free(self);
    Py_DECREF(type);
}

// -- adding ----------------------------------------------------------------------------------

bool read_text(PyObject* object, std::string_view& text) noexcept {
    Py_ssize_t size = 0;
    const char* const data = PyUnicode_AsUTF8AndSize(object, &size);
    if (data == nullptr) {
        return false;
    }
    text = {data, static_cast<std::size_t>(size)};
    return true;
}

bool read_converter(PyObject* name, Converter& converter) noexcept {
    constexpr std::array<std::string_view, 5> names = {"int", "uuid", "float", "str", "path"};
    std::string_view text;
    if (!read_text(name, text)) {
        return false;
    }
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (names[i] == text) {
            converter = static_cast<Converter>(i);
            return true;
        }
    }
    PyErr_Format(PyExc_ValueError, "no converter %R", name);
    return false;
}

// A literal, or (converter, prefix, suffix).
bool read_segment(PyObject* object, Segment& segment) noexcept {
    if (!PyTuple_Check(object)) {
        segment.is_parameter = false;
        return read_text(object, segment.prefix);
    }
    if (PyTuple_GET_SIZE(object) != 3) {
        PyErr_SetString(PyExc_TypeError, "expected (converter, prefix, suffix)");
        return false;
    }
    segment.is_parameter = true;
    return read_converter(PyTuple_GET_ITEM(object, 0), segment.converter) &&
           read_text(PyTuple_GET_ITEM(object, 1), segment.prefix) &&
           read_text(PyTuple_GET_ITEM(object, 2), segment.suffix);
}

bool read_segments(PyObject* tuple, std::vector<Segment>& segments, std::size_t& parameters) {
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "segments: expected a tuple");
        return false;
    }
    segments.resize(static_cast<std::size_t>(PyTuple_GET_SIZE(tuple)));
    for (std::size_t i = 0; i < segments.size(); ++i) {
        if (!read_segment(PyTuple_GET_ITEM(tuple, static_cast<Py_ssize_t>(i)), segments[i])) {
            return false;
        }
        parameters += segments[i].is_parameter ? 1 : 0;
    }
    return true;
}

bool check_names(PyObject* names, std::size_t count) noexcept {
    if (!PyTuple_Check(names) || PyTuple_GET_SIZE(names) != static_cast<Py_ssize_t>(count)) {
        PyErr_SetString(PyExc_TypeError, "names: expected a tuple of the parameters' names");
        return false;
    }
    return true;
}

PyObject* add_to(RouteTableObject* self, PyObject* const* arguments) {
    std::vector<Segment> segments;
    std::size_t parameters = 0;
    std::string_view method;
    if (!read_segments(arguments[0], segments, parameters) ||
        !check_names(arguments[1], parameters) || !read_text(arguments[2], method)) {
        return nullptr;
    }
    if (self->frozen.load(std::memory_order_relaxed)) {
        PyErr_SetString(PyExc_RuntimeError, "routes are added before the first is looked for");
        return nullptr;
    }
    std::vector<RouteEntry>& entries = self->routes->entries;
    entries.push_back({Ref::borrow(arguments[3]), Ref::borrow(arguments[1])});
    std::optional<std::size_t> there;
    try {
        there = self->routes->table.add(segments, method, entries.size() - 1);
    } catch (...) {
        entries.pop_back();
        throw;
    }
    if (there) {
        entries.pop_back();
        return PyLong_FromSize_t(*there);
    }
    Py_RETURN_NONE;
}

bool check_count(const char* method, Py_ssize_t expected, Py_ssize_t got) noexcept {
    if (expected != got) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments (%zd given)", method, expected,
                     got);
    }
    return expected == got;
}

PyObject* add(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    if (!check_count("add", 4, count)) {
        return nullptr;
    }
    PyObject* result = nullptr;
    Py_BEGIN_CRITICAL_SECTION(self);
    try {
        result = add_to(of(self), arguments);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
    }
    Py_END_CRITICAL_SECTION();
    return result;
}

// -- matching --------------------------------------------------------------------------------

void freeze(PyObject* self) noexcept {
    if (!of(self)->frozen.load(std::memory_order_acquire)) {
        Py_BEGIN_CRITICAL_SECTION(self);
        of(self)->frozen.store(true, std::memory_order_release);
        Py_END_CRITICAL_SECTION();
    }
}

PyObject* raise_malformed(PyObject* type, PathFault fault) noexcept {
    if (fault == PathFault::no_memory) {
        return PyErr_NoMemory();
    }
    PyErr_SetString(type, words(fault));
    return nullptr;
}

PyObject* missed(const RouteTableObject* self, MethodSet allowed) noexcept {
    const RouteTable& table = self->routes->table;
    const Ref methods = Ref::steal(PyFrozenSet_New(nullptr));
    if (!methods) {
        return nullptr;
    }
    for (std::size_t i = 0; i < table.method_count(); ++i) {
        const auto id = static_cast<MethodId>(i);
        if (allowed.has(id)) {
            const Ref name = text(table.method_name(id));
            if (!name || PySet_Add(methods.get(), name.get()) < 0) {
                return nullptr;
            }
        }
    }
    return PyObject_CallOneArg(self->miss, methods.get());
}

PyObject* found_by(const RouteTableObject* self, const Found& found) noexcept {
    const RouteEntry& entry = self->routes->entries[found.value()];
    Ref raw;
    Ref params;
    if (!read_parameters(found, entry, raw, params)) {
        // An integer of so many digits that this process does not read it, so it is none.
        if (PyErr_ExceptionMatches(PyExc_ValueError) != 0) {
            PyErr_Clear();
            return missed(self, MethodSet());
        }
        return nullptr;
    }
    return make_route_match(entry.value, std::move(raw), std::move(params)).release();
}

PyObject* match(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    if (!check_count("match", 2, count)) {
        return nullptr;
    }
    std::string_view method;
    if (!read_text(arguments[0], method)) {
        return nullptr;
    }
    if (!PyBytes_Check(arguments[1])) {
        PyErr_Format(PyExc_TypeError, "raw_path: expected bytes, not %s",
                     Py_TYPE(arguments[1])->tp_name);
        return nullptr;
    }
    freeze(self);
    const RouteTable& table = of(self)->routes->table;
    Found found;
    switch (table.match(table.method_id(method), view(arguments[1]), found)) {
        case Outcome::found:
            return found_by(of(self), found);
        case Outcome::missed:
            return missed(of(self), found.allowed());
        default:
            return raise_malformed(of(self)->malformed, found.fault());
    }
}

// -- split_path --------------------------------------------------------------------------------

// One segment after the other: a path may have more than a RequestPath knows the places of.
bool append_segments(PyObject* list, std::string_view raw, PathScratch& scratch) noexcept {
    RequestPath path;
    while (!raw.empty()) {
        const std::string_view part = raw.substr(0, raw.find('/', 1));
        raw.remove_prefix(part.size());
        path.read(part, scratch);
        const Ref segment = text(path.segment(0));
        if (!segment || PyList_Append(list, segment.get()) < 0) {
            return false;
        }
    }
    return true;
}

PyObject* split_path(PyObject* /*module*/, PyObject* const* arguments, Py_ssize_t count) noexcept {
    if (!check_count("split_path", 2, count)) {
        return nullptr;
    }
    if (!PyBytes_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "raw_path: expected bytes");
        return nullptr;
    }
    PathScratch scratch;
    RequestPath path;
    const PathFault fault = path.read(view(arguments[0]), scratch);
    if (fault != PathFault::none) {
        return raise_malformed(arguments[1], fault);
    }
    Ref segments = Ref::steal(PyList_New(0));
    if (!segments || !append_segments(segments.get(), view(arguments[0]), scratch)) {
        return nullptr;
    }
    return segments.release();
}

// -- the type ------------------------------------------------------------------------------------

PyCFunction fast(PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t) noexcept) noexcept {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function));
}

std::array<PyMethodDef, 3> methods_of_table = {
    PyMethodDef{"add", fast(&add), METH_FASTCALL,
                "add($self, segments, names, method, value, /)\n--\n\n"
                "Add a route; return the index of the one that is there already, if one is."},
    PyMethodDef{"match", fast(&match), METH_FASTCALL,
                "match($self, method, raw_path, /)\n--\n\n"
                "Find what answers a method on a path, and add no more routes."},
    PyMethodDef{nullptr, nullptr, 0, nullptr},
};

std::array<PyMethodDef, 2> functions = {
    PyMethodDef{"split_path", fast(&split_path), METH_FASTCALL,
                "split_path(raw_path, malformed, /)\n--\n\n"
                "Split a path at its slashes and decode it; raise `malformed` where that fails."},
    PyMethodDef{nullptr, nullptr, 0, nullptr},
};

std::array<PyType_Slot, 7> slots = {
    PyType_Slot{Py_tp_doc, const_cast<char*>("RouteTable(miss, malformed)\n--\n\n"
                                             "Finds what was added for a method and a path.")},
    PyType_Slot{Py_tp_new, reinterpret_cast<void*>(&construct)},
    PyType_Slot{Py_tp_dealloc, reinterpret_cast<void*>(&dealloc)},
    PyType_Slot{Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
    PyType_Slot{Py_tp_clear, reinterpret_cast<void*>(&clear)},
    PyType_Slot{Py_tp_methods, methods_of_table.data()},
    PyType_Slot{0, nullptr},
};

PyType_Spec spec = {"flowcoro_http._native.RouteTable", sizeof(RouteTableObject), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                    slots.data()};

}  // namespace

const Routes* routes_of(PyObject* object) noexcept {
    if (Py_TYPE(object) != table_type) {
        PyErr_Format(PyExc_TypeError, "expected a RouteTable, not '%s'", Py_TYPE(object)->tp_name);
        return nullptr;
    }
    freeze(object);
    return of(object)->routes;
}

const RouteTable* route_table_of(PyObject* object) noexcept {
    const Routes* const routes = routes_of(object);
    return routes != nullptr ? &routes->table : nullptr;
}

bool add_routing(PyObject* module) noexcept {
    table_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
    return table_type != nullptr && PyModule_AddType(module, table_type) == 0 &&
           PyModule_AddFunctions(module, functions.data()) == 0 && add_route_match(module) &&
           make_route_values();
}

}  // namespace flowcoro_http::bindings
