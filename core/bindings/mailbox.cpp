#include "mailbox.hpp"

#include <new>
#include <utility>
#include <vector>

#include "waiter.hpp"

namespace flowcoro::bindings {

namespace {

PyTypeObject* batch_type = nullptr;

}  // namespace

// A callable Python object: what call_soon_threadsafe is given.
struct Batch {
    PyObject_HEAD std::shared_ptr<Mailbox> mailbox;
    std::vector<nb::object> waiters;  // guarded by the mailbox's mutex while it is open
    PyObject* loop;                   // so that no other loop gets its address meanwhile

    static Batch* of(PyObject* self) noexcept { return reinterpret_cast<Batch*>(self); }

    static PyObject* make(std::shared_ptr<Mailbox> mailbox, PyObject* loop, PyObject* waiter) {
        std::vector<nb::object> waiters;
        waiters.push_back(nb::borrow(waiter));
        PyObject* const self = PyType_GenericAlloc(batch_type, 0);
        if (self != nullptr) {
            Batch* const batch = of(self);
            new (&batch->mailbox) std::shared_ptr<Mailbox>(std::move(mailbox));
            new (&batch->waiters) std::vector<nb::object>(std::move(waiters));
            batch->loop = Py_NewRef(loop);
        }
        return self;
    }

    // Nobody joins it any more; what is in it is the caller's.
    std::vector<nb::object> close() noexcept {
        const nb::ft_lock_guard guard(mailbox->mutex_);
        if (mailbox->open_ == this) {
            mailbox->open_ = nullptr;
        }
        return std::exchange(waiters, {});
    }

    static PyObject* call(PyObject* self, PyObject* /*args*/, PyObject* /*kwargs*/) {
        for (const nb::object& waiter : of(self)->close()) {
            if (!Waiter::of(waiter).finish_future()) {
                Waiter::of(waiter).undelivered();
            }
        }
        Py_RETURN_NONE;
    }

    static void finalize(PyObject* self) {
        const nb::error_scope pending;
        for (const nb::object& waiter : of(self)->close()) {
            Waiter::of(waiter).undelivered();
        }
    }

    static int traverse(PyObject* self, visitproc visit, void* arg) {
        Py_VISIT(Py_TYPE(self));
        Py_VISIT(of(self)->loop);
        for (const nb::object& waiter : of(self)->waiters) {
            Py_VISIT(waiter.ptr());
        }
        return 0;
    }

    static int clear(PyObject* self) {
        of(self)->close();
        Py_CLEAR(of(self)->loop);
        return 0;
    }

    static void dealloc(PyObject* self) {
        if (PyObject_CallFinalizerFromDealloc(self) != 0) {
            return;
        }
        PyObject_GC_UnTrack(self);
        clear(self);
        std::destroy_at(&of(self)->waiters);
        std::destroy_at(&of(self)->mailbox);
        PyTypeObject* const type = Py_TYPE(self);
        type->tp_free(self);
        Py_DECREF(type);
    }
};

std::shared_ptr<Mailbox> Mailbox::of(PyObject* loop) {
    // The address alone is compared: an open batch keeps its loop alive, so a mailbox that is
    // found by the address of a loop that is gone has none.
    struct Last {
        const PyObject* loop = nullptr;
        std::shared_ptr<Mailbox> mailbox;
    };

    thread_local Last last;
    if (last.loop != loop) {
        last.mailbox = std::make_shared<Mailbox>();
        last.loop = loop;
    }
    return last.mailbox;
}

bool Mailbox::post(Waiter& waiter) noexcept try {
    {
        const nb::ft_lock_guard guard(mutex_);
        if (open_ != nullptr) {
            open_->waiters.push_back(nb::borrow(waiter.self_));
            return true;
        }
    }
    const nb::object batch = nb::steal(Batch::make(waiter.mailbox_, waiter.loop_, waiter.self_));
    if (!batch.is_valid()) {
        PyErr_Clear();
        return false;
    }
    {
        const nb::ft_lock_guard guard(mutex_);
        if (open_ == nullptr) {
            open_ = Batch::of(batch.ptr());
        }
    }
    // Should another thread have opened one meanwhile, the loop is woken twice.
    static PyObject* const name = PyUnicode_InternFromString("call_soon_threadsafe");
    const nb::object handle = nb::steal(PyObject_CallMethodOneArg(waiter.loop_, name, batch.ptr()));
    if (handle.is_valid()) {
        return true;
    }
    PyErr_Clear();
    // This waiter's notification goes back to the notifier; that of others, who joined in
    // between, on to the next.
    for (const nb::object& other : Batch::of(batch.ptr())->close()) {
        if (other.ptr() != waiter.self_) {
            Waiter::of(other).undelivered();
        }
    }
    return false;
} catch (const std::bad_alloc&) {
    return false;
}

void make_batch_type() {
    PyType_Slot slots[] = {
        {Py_tp_call, reinterpret_cast<void*>(&Batch::call)},
        {Py_tp_finalize, reinterpret_cast<void*>(&Batch::finalize)},
        {Py_tp_traverse, reinterpret_cast<void*>(&Batch::traverse)},
        {Py_tp_clear, reinterpret_cast<void*>(&Batch::clear)},
        {Py_tp_dealloc, reinterpret_cast<void*>(&Batch::dealloc)},
        {0, nullptr},
    };
    PyType_Spec spec{
        .name = "flowcoro._native.WakeUps",
        .basicsize = sizeof(Batch),
        .itemsize = 0,
        .flags = static_cast<unsigned>(Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                       Py_TPFLAGS_DISALLOW_INSTANTIATION),
        .slots = slots,
    };
    batch_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
    if (batch_type == nullptr) {
        nb::raise_python_error();
    }
}

}  // namespace flowcoro::bindings
