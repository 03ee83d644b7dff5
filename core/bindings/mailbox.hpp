// Mailbox: brings waiters that were set elsewhere to the thread of their asyncio loop. The
// protocol is in waiter.hpp.
#pragma once

#include <memory>

#include "bindings.hpp"

namespace flowcoro::bindings {

class Waiter;
struct Batch;

class Mailbox {
  public:
    // The mailbox of a loop, asked for on the loop's thread.
    //
    // Each thread remembers the last; another loop gets another mailbox. Should a loop get a
    // second one, that costs a wake-up more now and then.
    static std::shared_ptr<Mailbox> of(PyObject* loop);

    // Any thread. Has the loop finish the waiter's future. False: the loop is closed.
    bool post(Waiter& waiter) noexcept;

  private:
    friend struct Batch;

    // The batch that the loop has yet to call; borrowed, and taken back by the batch itself.
    Batch* open_ = nullptr;
    nb::ft_mutex mutex_;
};

// The type of batches.
void make_batch_type();

}  // namespace flowcoro::bindings
