#include "engine.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "handle.hpp"

namespace flowcoro::bindings {

namespace {

// Never destroyed: in the child of a fork its engines have threads that cannot be joined.
struct Registry {
    nb::ft_mutex mutex;
    std::vector<std::shared_ptr<Engine>> engines;

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
    const nb::gil_scoped_release released;
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
    auto native = make_native<scheduler::PriorityScheduler>(workers, starvation_bound,
                                                            &engine->hooks_);
    engine->priority_ = native.get();
    engine->native_ = std::move(native);
    enlist(engine);
    return engine;
}

void Engine::enlist(std::shared_ptr<Engine> engine) {
    Registry& registry = Registry::get();
    const nb::ft_lock_guard guard(registry.mutex);
    registry.engines.push_back(std::move(engine));
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
        if (forsaken_.load(detail::memory_order_seq_cst)) {
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
    if (wait && !wait_for_end(owner, deadline)) {
        raise_timed_out();
    }
    if (unfinished() == 0) {
        retire();
    }
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
    forsaken_.store(true, detail::memory_order_seq_cst);
    if (unfinished() == 0) {
        retire();
    }
}

void Engine::retire() noexcept {
    const auto end = [](const std::shared_ptr<Engine>& engine) {
        engine->timers_.stop();
        engine->native_->shutdown();
    };
    std::shared_ptr<Engine> self;
    {
        Registry& registry = Registry::get();
        const nb::ft_lock_guard guard(registry.mutex);
        const auto found = std::find_if(registry.engines.begin(), registry.engines.end(),
                                        [this](const auto& each) { return each.get() == this; });
        if (found == registry.engines.end()) {
            return;  // it is being done
        }
        self = std::move(*found);
        registry.engines.erase(found);
    }
    if (on_worker()) {
        std::thread(end, std::move(self)).detach();
    } else {
        const nb::gil_scoped_release released;
        end(self);
    }
}

void Engine::shutdown_all() {
    std::vector<std::shared_ptr<Engine>> engines;
    {
        Registry& registry = Registry::get();
        const nb::ft_lock_guard guard(registry.mutex);
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
        }
    }
}

}  // namespace flowcoro::bindings
