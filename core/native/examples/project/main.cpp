#include <cstdio>

#include "flowcoro/scheduler/work_stealing.hpp"

int main() {
    flowcoro::scheduler::WorkStealingScheduler scheduler(2);
    scheduler.schedule([] { std::puts("Hello from a worker"); });
    scheduler.shutdown();
}
