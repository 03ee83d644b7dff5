// Idle, the scheduler's parking and waking, in the model checker (model_main.hpp).
#include <cstddef>
#include <memory>
#include <vector>

#include "check.hpp"
#include "flowcoro/scheduler/idle.hpp"
#include "model_main.hpp"

namespace {

using flowcoro::model::Engine;
using flowcoro::model::ensure;
using flowcoro::model::Model;
using flowcoro::model::Scenario;
using flowcoro::scheduler::Idle;

// Workers that search, park and wake over some pieces of work that others bring. A lost wake-up
// shows as a run in which all who are left wait.
struct Workshop {
    explicit Workshop(std::size_t workers) : idle(workers) {}

    // As a worker does: by a seq_cst store.
    void bring_as_worker() {
        local.store(1, flowcoro::detail::memory_order_seq_cst);
        idle.added_by_worker();
    }

    // As an outsider does: however.
    void bring() {
        global.store(1, flowcoro::detail::memory_order_relaxed);
        idle.added();
    }

    [[nodiscard]] bool has_work() const {
        return local.load(flowcoro::detail::memory_order_seq_cst) != 0 ||
               global.load(flowcoro::detail::memory_order_relaxed) != 0;
    }

    bool take() {
        for (flowcoro::detail::atomic<int>* const place : {&local, &global}) {
            if (place->load(flowcoro::detail::memory_order_relaxed) != 0 &&
                place->exchange(0, flowcoro::detail::memory_order_relaxed) != 0) {
                return true;
            }
        }
        return false;
    }

    // A worker's search, to the end: it ends with work, or when it is closed.
    bool find_work(std::size_t worker) {
        bool searching = idle.try_search();
        for (;;) {
            const bool last = idle.finished();
            const bool found = take();
            if (found || last) {
                if (searching && idle.stop_searching() && has_work()) {
                    idle.wake();
                }
                return found;
            }
            idle.park(worker, searching, [this] { return has_work(); });
            searching = true;
        }
    }

    Idle idle;
    flowcoro::detail::atomic<int> local{0};
    flowcoro::detail::atomic<int> global{0};
};

// A worker that has nothing, and work that comes.
Scenario idle_worker_finds(bool from_outside) {
    return [from_outside](Engine& run) {
        auto shop = std::make_shared<Workshop>(1);
        run.threads.push_back([=] { ensure(shop->find_work(0), "idle: woken without work"); });
        run.threads.push_back([=] { from_outside ? shop->bring() : shop->bring_as_worker(); });
    };
}

// While one worker searches nobody is woken for what comes: then it must see to that itself.
Scenario idle_worker_is_woken_by_a_searcher(bool from_outside) {
    return [from_outside](Engine& run) {
        auto shop = std::make_shared<Workshop>(1);  // one sleeper is enough, and the runs are few
        ensure(shop->idle.try_search(), "idle: nobody may search");
        const auto brought = [=] {
            return from_outside ? shop->global.load(flowcoro::detail::memory_order_relaxed) != 0
                                : shop->local.load(flowcoro::detail::memory_order_seq_cst) != 0;
        };
        run.threads.push_back([=] {
            if (shop->idle.stop_searching() && brought()) {
                shop->idle.wake();
            }
        });
        run.threads.push_back([=] { shop->idle.park(0, false, brought); });
        run.threads.push_back([=] { from_outside ? shop->bring() : shop->bring_as_worker(); });
    };
}

// Who is woken sees what the waker did before.
void idle_worker_sees_why(Engine& run) {
    auto shop = std::make_shared<Workshop>(1);
    run.threads.push_back([=] {
        shop->idle.park(0, false, [] { return false; });
        ensure(shop->global.load(flowcoro::detail::memory_order_relaxed) != 0,
               "idle: woken without work");
    });
    run.threads.push_back([=] {
        shop->global.store(1, flowcoro::detail::memory_order_relaxed);
        shop->idle.close();
    });
}

void idle_worker_leaves(Engine& run) {
    auto shop = std::make_shared<Workshop>(1);
    run.threads.push_back([=] { shop->idle.park(0, false, [] { return false; }); });
    run.threads.push_back([=] { shop->idle.close(); });
}

// What was accepted before the end is seen by a worker that looks after it has seen the end.
void idle_worker_leaves_nothing(Engine& run) {
    auto shop = std::make_shared<Workshop>(1);
    auto refused = std::make_shared<bool>(false);
    auto left = std::make_shared<bool>(false);
    run.threads.push_back([=] {
        if (shop->idle.finished()) {
            shop->take();
            *left = true;
        }
    });
    run.threads.push_back([=] {
        shop->global.store(1, flowcoro::detail::memory_order_relaxed);
        *refused = shop->idle.added();
    });
    run.threads.push_back([=] {
        shop->idle.close();
        shop->idle.finish();
    });
    run.after = [=] {
        ensure(!*left || *refused || shop->global.load(flowcoro::detail::memory_order_relaxed) == 0,
               "idle: accepted work was left");
    };
}

// Nobody leaves while another is at work, and all do when the last has nothing to do.
void idle_workers_leave_together(Engine& run) {
    auto shop = std::make_shared<Workshop>(2);
    shop->idle.close();
    for (std::size_t worker = 0; worker < 2; ++worker) {
        run.threads.push_back([=] {
            shop->idle.park(worker, false, [] { return false; });
            ensure(shop->idle.finished(), "idle: left too early");
        });
    }
}

}  // namespace

const std::vector<Model>& flowcoro::model::models() {
    static const std::vector<Model> all = {
        {"idle",
         {idle_worker_finds(false), idle_worker_finds(true),
          idle_worker_is_woken_by_a_searcher(false), idle_worker_is_woken_by_a_searcher(true),
          idle_worker_sees_why, idle_worker_leaves, idle_worker_leaves_nothing,
          idle_workers_leave_together}},
    };
    return all;
}

int main() {
    return flowcoro::test::run_all();
}
