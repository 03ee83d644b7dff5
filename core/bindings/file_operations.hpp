// FileOperations: the file operations of a loop that are in flight, each with the future that it
// finishes.
//
// What belongs here: what flowcoro.io asks a loop's reactor for. Paths in messages, retries of
// short writes and what is done on other loops is Python's.
//
// Protocol
// --------
//   An operation is started when it is made, and owns what the kernel works on (the path, the
//   bytes) until its completion. Then it finishes its future, if that is not done, and lets go of
//   all. Nobody frees it before: it is in the list of its loop's, whoever has let go of it in
//   Python. cancel() asks only; the completion still comes, and tells notify()'s future. A file
//   that was opened for somebody who gave up is closed again.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "bindings.hpp"
#include "flowcoro/reactor/operation.hpp"
#include "loop_core.hpp"

namespace flowcoro::bindings::loop {

class FileOperations;

class FileOperation : public std::enable_shared_from_this<FileOperation> {
  public:
    FileOperation(const FileOperation&) = delete;
    FileOperation& operator=(const FileOperation&) = delete;
    virtual ~FileOperation() = default;

    [[nodiscard]] bool in_flight() const noexcept { return of_ != nullptr; }

    // Asks for an early end.
    void cancel() noexcept;

    // Has a future finished by the completion, instead of the one before. At once if that was.
    void notify(PyObject* future) noexcept;

  protected:
    FileOperation() noexcept = default;

    virtual reactor::Operation& operation() noexcept = 0;

    // A new reference to what was made of it; null with an error set. `result` is not negative.
    virtual PyObject* value(std::int64_t result) noexcept = 0;

    // The same, for nobody.
    virtual void drop(std::int64_t /*result*/, LoopCore& /*core*/) noexcept {}

    // What the kernel worked on.
    virtual void let_go() noexcept = 0;

    void completed(std::int64_t result) noexcept;

  private:
    friend class FileOperations;

    FileOperations* of_ = nullptr;  // while it is in flight
    PyObject* future_ = nullptr;    // owned
    FileOperation* before_ = nullptr;
    FileOperation* after_ = nullptr;
    std::shared_ptr<FileOperation> self_;  // while it is in flight
};

class FileOperations final : public LoopCore::Member {
  public:
    // The loop's, made when it is first asked for. Raises.
    static FileOperations& of(LoopObject* loop);

    // Takes a reference to the future.
    void start(const std::shared_ptr<FileOperation>& operation, PyObject* future);

    [[nodiscard]] LoopCore& core() const noexcept { return *loop_->core; }

    // LoopCore::Member.
    int traverse_member(visitproc visit, void* arg) const override;

    void batch_ended() noexcept override {}

    void forget() noexcept override;

  private:
    friend class FileOperation;

    explicit FileOperations(LoopObject* loop) noexcept : loop_(loop) {}

    void remove(FileOperation& operation) noexcept;

    LoopObject* const loop_;
    FileOperation* first_ = nullptr;
};

// Makes the type of operations, puts the methods into the loop's class, and read_now() into the
// module. Raises.
void add_file_operations(nb::module_& module, nb::handle loop_type);

}  // namespace flowcoro::bindings::loop
