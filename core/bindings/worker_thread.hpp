// WorkerThread: how a native scheduler's worker joins and leaves the interpreter.
//
// A worker has a thread state of its own from its first moment to its last. It attaches (takes the
// GIL, where there is one) when it is to run something of Python's, stays attached from one task
// to the next, and detaches before it looks for more work or sleeps.
#pragma once

#include <cstddef>

#include "bindings.hpp"
#include "flowcoro/scheduler/scheduler.hpp"

namespace flowcoro::bindings {

class WorkerThread final : public scheduler::WorkerHooks {
  public:
    void on_start(std::size_t /*worker*/) override {
        gil_state_ = PyGILState_Ensure();
        state_ = PyEval_SaveThread();
    }

    void on_stop(std::size_t /*worker*/) override {
        attach();
        PyGILState_Release(gil_state_);
        state_ = nullptr;
        attached_ = false;
    }

    void before_wait(std::size_t /*worker*/) override {
        if (attached_) {
            attached_ = false;
            PyEval_SaveThread();
        }
    }

    // On a worker, before anything of Python's.
    static void attach() {
        if (!attached_) {
            PyEval_RestoreThread(state_);
            attached_ = true;
            turns_ = 0;
        }
    }

    // On an attached worker, between two tasks. Tasks that run no bytecode never look whether
    // another thread wants the GIL; so now and then a function that does nothing is run, which
    // does. (To release the GIL unasked would be worse than nothing: who waits for it asks after
    // a while of waiting undisturbed, and each release that it is too late for begins that anew.)
    static void take_turns() {
        if (++turns_ % 64 == 0) {
            const nb::object nothing = nb::steal(PyObject_CallNoArgs(do_nothing_));
            if (!nothing.is_valid()) {
                PyErr_WriteUnraisable(do_nothing_);
            }
        }
    }

    // When the module is made.
    static void prepare() {
        do_nothing_ = nb::module_::import_("builtins").attr("eval")("lambda: None").release().ptr();
    }

  private:
    static inline thread_local PyThreadState* state_ = nullptr;
    static inline thread_local PyGILState_STATE gil_state_{};
    static inline thread_local bool attached_ = false;
    static inline thread_local unsigned turns_ = 0;
    static inline PyObject* do_nothing_ = nullptr;
};

}  // namespace flowcoro::bindings
