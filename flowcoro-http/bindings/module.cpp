// flowcoro_http._native: only the list of what is in it.
#include "call.hpp"
#include "client.hpp"
#include "connection.hpp"
#include "engine.hpp"
#include "exchange.hpp"
#include "fetched.hpp"
#include "names.hpp"
#include "python.hpp"
#include "ready.hpp"
#include "route_table_object.hpp"
#include "runner.hpp"
#include "turn.hpp"

namespace {

int execute(PyObject* module) noexcept {
    using namespace flowcoro_http::bindings;
    const bool good = make_names() && add_ready(module) && add_runner(module) && prepare_turns() &&
                      add_exchange(module) && add_engine(module) && add_stream_protocol(module) &&
                      add_routing(module) && add_client_engine(module) && add_client(module) &&
                      add_call(module) && add_fetched(module) && add_request_text(module);
    return good ? 0 : -1;
}

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(&execute)},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    "flowcoro_http._native",
    "The native part of flowcoro_http; for its own modules only.",
    0,
    nullptr,
    slots,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__native() {
    return PyModuleDef_Init(&definition);
}
