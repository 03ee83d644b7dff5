#include "engine.hpp"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "handle.hpp"
#include "interpreter.hpp"

namespace flowcoro::bindings {

namespace {

// Never destroyed: in the child of a fork its engines have threads that cannot be joined.
struct Registry {
    nb::ft_mutex mutex;
    std::vector<std::shared_ptr<Engine>> engines;
    bool over = false;  // the interpreter ends

    static Registry& get() {
        static Registry& only = *new Registry;
        return only;
    }
};

constexpr std::size_t named_at_most = 10;

// Without the GIL: when there is no thread to be had, the constructor waits for those that it has
// started, and their first act is to attach.
template <typename Native, typename... Args>
std::unique_ptr<Native> make_native(Args... args) {
    const GilReleased released;
    return std::make_unique<Native>(args...);
}

}  // namespace

std::shared_ptr<Engine> Engine::stealing(std::size_t workers) {
    const std::shared_ptr<Engine> engine(new Engine);
    auto native = make_native<scheduler::WorkStealingScheduler>(workers, &engine->hooks_);
    engine->stealing_ = native.get();
    engine->native_ = std::move(native);
    enlist(engine);
    return engine;
}

std::shared_ptr<Engine> Engine::by_priority(std::size_t workers, std::size_t starvation_bound) {
    const std::shared_ptr<Engine> engine(new Engine);
    auto native =
        make_native<scheduler::PriorityScheduler>(workers, starvation_bound, &engine->hooks_);
    engine->priority_ = native.get();
    engine->native_ = std::move(native);
    enlist(engine);
    return engine;
}

void Engine::enlist(std::shared_ptr<Engine> engine) {
    sweep();
    Registry& registry = Registry::get();
    {
        const nb::ft_lock_guard guard(registry.mutex);
        if (!registry.over) {
            registry.engines.push_back(std::move(engine));
            return;
        }
    }
    {
        const GilReleased released;
        engine->join_threads();
    }
    throw std::runtime_error("no scheduler can be made any more: the interpreter ends");
}

// Drops what has retired.
void Engine::sweep() noexcept {
    std::vector<std::shared_ptr<Engine>> retired;
    Registry& registry = Registry::get();
    const nb::ft_lock_guard guard(registry.mutex);
    const auto rest = std::stable_partition(
        registry.engines.begin(), registry.engines.end(),
        [](const auto& each) { return !each->retired_.load(detail::memory_order_acquire); });
    std::move(rest, registry.engines.end(), std::back_inserter(retired));
    registry.engines.erase(rest, registry.engines.end());
}

bool Engine::lost() const noexcept {
    return generation_ != fork_generation();
}

void Engine::check_open() const {
    if (lost()) {
        throw std::runtime_error(
            "the scheduler's workers did not survive the fork: make a new one in the child");
    }
    if (cancelling() || (closing() && !on_worker())) {
        throw std::runtime_error("the scheduler was shut down");
    }
}

void Engine::submit(Handle& handle, Place place) {
    bool accepted = true;
    if (priority_ != nullptr) {
        accepted = priority_->submit(handle, handle.priority());
    } else if (place == Place::any) {
        accepted = stealing_->submit(handle);
    } else if (place == Place::local) {
        stealing_->submit_local(handle);
    } else if (place == Place::next) {
        accepted = stealing_->submit_next(handle);
    } else {
        accepted = stealing_->submit_global(handle);
    }
    if (!accepted) {
        throw std::runtime_error("the scheduler was shut down");
    }
}

void Engine::add(Handle& handle) noexcept {
    unfinished_.fetch_add(1, detail::memory_order_relaxed);
    const nb::ft_lock_guard guard(mutex_);
    handle.after_ = tasks_;
    if (tasks_ != nullptr) {
        tasks_->before_ = &handle;
    }
    tasks_ = &handle;
}

void Engine::remove(Handle& handle) noexcept {
    {
        const nb::ft_lock_guard guard(mutex_);
        (handle.before_ != nullptr ? handle.before_->after_ : tasks_) = handle.after_;
        if (handle.after_ != nullptr) {
            handle.after_->before_ = handle.before_;
        }
        handle.before_ = handle.after_ = nullptr;
    }
    if (unfinished_.fetch_sub(1, detail::memory_order_seq_cst) == 1) {
        ended_.notify(static_cast<std::size_t>(-1));
        if (unattended_.load(detail::memory_order_seq_cst)) {
            retire();
        }
    }
}

std::vector<nb::object> Engine::unfinished_handles() {
    std::vector<nb::object> handles;
    const nb::ft_lock_guard guard(mutex_);
    for (Handle* handle = tasks_; handle != nullptr; handle = handle->after_) {
        handles.push_back(nb::borrow(handle->self()));
    }
    std::reverse(handles.begin(), handles.end());  // the oldest first
    return handles;
}

void Engine::cancel_all() {
    for (const nb::object& handle : unfinished_handles()) {
        Handle::of(handle).cancel();
    }
}

bool Engine::wait_for_end(PyObject* owner, const Deadline& deadline) {
    while (unfinished() != 0) {
        const nb::object waiter = Waiter::make();
        ended_.join(Waiter::of(waiter), owner, WaitList::End::back);
        bool in_time = true;
        try {
            if (unfinished() != 0) {
                in_time = Waiter::of(waiter).wait(deadline);
            }
        } catch (...) {
            ended_.leave(Waiter::of(waiter));
            throw;
        }
        ended_.leave(Waiter::of(waiter));
        if (!in_time) {
            return unfinished() == 0;
        }
    }
    return true;
}

void Engine::shutdown(PyObject* owner, bool wait, bool cancel_pending, const Deadline& deadline) {
    if (lost()) {
        return;
    }
    if (wait && on_worker()) {
        throw std::runtime_error("shutdown() on a worker would wait for itself: pass wait=False");
    }
    closing_.store(true, detail::memory_order_seq_cst);
    if (cancel_pending) {
        cancelling_.store(true, detail::memory_order_seq_cst);
        cancel_all();
    }
    if (!wait) {
        leave_unattended();
        return;
    }
    bool ended = false;
    try {
        ended = wait_for_end(owner, deadline);
    } catch (...) {
        leave_unattended();
        throw;
    }
    if (!ended) {
        leave_unattended();
        raise_timed_out();
    }
    retire();
    const GilReleased released;
    join_threads();  // whoever else retires it
}

void Engine::raise_timed_out() {
    const std::vector<nb::object> left = unfinished_handles();
    std::string message = std::to_string(left.size()) +
                          (left.size() == 1 ? " task has" : " tasks have") +
                          " not ended within the timeout: ";
    for (std::size_t i = 0; i < std::min(left.size(), named_at_most); ++i) {
        const Handle& handle = Handle::of(left[i]);
        message += (i == 0 ? "" : ", ") + handle.name() + " (" + handle.status() + ")";
    }
    if (left.size() > named_at_most) {
        message += " and others";
    }
    PyErr_SetString(PyExc_TimeoutError, message.c_str());
    nb::raise_python_error();
}

void Engine::forsaken() noexcept {
    if (lost()) {
        return;
    }
    closing_.store(true, detail::memory_order_seq_cst);
    leave_unattended();
}

void Engine::leave_unattended() noexcept {
    unattended_.store(true, detail::memory_order_seq_cst);
    if (unfinished_.load(detail::memory_order_seq_cst) == 0) {
        retire();
    }
}

void Engine::retire() noexcept {
    if (lost() || retiring_.exchange(true, detail::memory_order_acq_rel)) {
        return;
    }
    if (!on_worker()) {
        {
            const GilReleased released;
            join_threads();
        }
        retired_.store(true, detail::memory_order_release);
        sweep();
        return;
    }
    try {
        // The registry keeps it alive up to the thread's last act.
        std::thread([this] {
            join_threads();
            retired_.store(true, detail::memory_order_release);
        }).detach();
    } catch (const std::system_error&) {
        retiring_.store(false, detail::memory_order_release);  // at the latest with the interpreter
    }
}

void Engine::join_threads() noexcept {
    timers_.stop();
    native_->shutdown();
}

void Engine::shutdown_all() {
    std::vector<std::shared_ptr<Engine>> engines;
    {
        Registry& registry = Registry::get();
        const nb::ft_lock_guard guard(registry.mutex);
        registry.over = true;
        engines = registry.engines;
    }
    for (const std::shared_ptr<Engine>& engine : engines) {
        if (!engine->lost()) {
            engine->closing_.store(true, detail::memory_order_seq_cst);
            engine->ending_.store(true, detail::memory_order_seq_cst);
            for (const nb::object& handle : engine->unfinished_handles()) {
                if (Handle::of(handle).is_suspended()) {
                    Handle::of(handle).cancel();
                }
            }
            engine->wait_for_end(Py_None, std::nullopt);
            engine->retire();
            const GilReleased released;
            engine->join_threads();
        }
    }
}

}  // namespace flowcoro::bindings
