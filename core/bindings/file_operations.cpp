#include "file_operations.hpp"

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "interpreter.hpp"

namespace flowcoro::bindings::loop {

namespace {

struct Names {
    PyObject* done = PyUnicode_InternFromString("done");
    PyObject* set_result = PyUnicode_InternFromString("set_result");
    PyObject* set_exception = PyUnicode_InternFromString("set_exception");
};

// The interpreter's for as long as it runs.
const Names& names() noexcept {
    static const Names all;
    return all;
}

bool is_done(PyObject* future) noexcept {
    const nb::object done = nb::steal(PyObject_CallMethodNoArgs(future, names().done));
    return !done.is_valid() || done.ptr() != Py_False;
}

// With a value, or with an error if there is none.
void finish(PyObject* future, nb::object value, nb::object error) noexcept {
    const nb::object result = nb::steal(
        value.is_valid() ? PyObject_CallMethodOneArg(future, names().set_result, value.ptr())
                         : PyObject_CallMethodOneArg(future, names().set_exception, error.ptr()));
    if (!result.is_valid()) {
        PyErr_WriteUnraisable(future);
    }
}

}  // namespace

void FileOperation::cancel() noexcept {
    if (of_ != nullptr && of_->core().is_usable()) {
        of_->core().reactor().cancel(operation());
        of_->core().reactor().flush();
    }
}

void FileOperation::notify(PyObject* future) noexcept {
    if (of_ == nullptr) {
        finish(future, nb::none(), {});
        return;
    }
    Py_XSETREF(future_, Py_NewRef(future));
}

void FileOperation::completed(std::int64_t result) noexcept {
    LoopCore& core = of_->core();
    of_->remove(*this);
    const std::shared_ptr<FileOperation> kept = std::move(self_);
    const nb::object future = nb::steal(std::exchange(future_, nullptr));
    core.gauges()->count_callback();
    if (core.is_closed() || is_done(future.ptr())) {
        PyErr_Clear();
        if (result >= 0) {
            drop(result, core);
        }
        let_go();
        return;
    }
    nb::object value;
    nb::object error;
    if (result < 0) {
        const int number = static_cast<int>(-result);
        error =
            nb::steal(PyObject_CallFunction(PyExc_OSError, "is", number, std::strerror(number)));
    } else {
        value = nb::steal(this->value(result));
    }
    if (!value.is_valid() && !error.is_valid()) {
        error = take_exception();
    }
    let_go();
    finish(future.ptr(), std::move(value), std::move(error));
}

FileOperations& FileOperations::of(LoopObject* loop) {
    LoopCore* const core = loop->core;
    if (core == nullptr || core->is_closed()) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        nb::raise_python_error();
    }
    if (!core->check_usable()) {
        nb::raise_python_error();
    }
    if (core->file_operations == nullptr) {
        core->file_operations = new FileOperations(loop);
        core->add(*core->file_operations);
    }
    return *core->file_operations;
}

void FileOperations::start(const std::shared_ptr<FileOperation>& operation, PyObject* future) {
    FileOperation& it = *operation;
    it.self_ = operation;
    it.of_ = this;
    it.future_ = Py_NewRef(future);
    it.after_ = std::exchange(first_, &it);
    if (it.after_ != nullptr) {
        it.after_->before_ = &it;
    }
    core().reactor().start(it.operation());
}

void FileOperations::remove(FileOperation& operation) noexcept {
    (operation.before_ != nullptr ? operation.before_->after_ : first_) = operation.after_;
    if (operation.after_ != nullptr) {
        operation.after_->before_ = operation.before_;
    }
    operation.before_ = operation.after_ = nullptr;
    operation.of_ = nullptr;
}

int FileOperations::traverse_member(visitproc visit, void* arg) const {
    for (const FileOperation* each = first_; each != nullptr; each = each->after_) {
        Py_VISIT(each->future_);
    }
    return 0;
}

// The reactor is gone: nothing completes any more, and nothing is worked on.
void FileOperations::forget() noexcept {
    core().remove(*this);
    core().file_operations = nullptr;
    while (first_ != nullptr) {
        FileOperation& each = *first_;
        remove(each);
        const std::shared_ptr<FileOperation> kept = std::move(each.self_);
        Py_CLEAR(each.future_);
        each.let_go();
    }
    delete this;
}

}  // namespace flowcoro::bindings::loop
