// The tests' own check macros: enough for tests that are functions.
//
// TEST(name) { ... } registers a case; CHECK(condition) and CHECK_THROWS(expression, type) end
// the case at the first failure. Checks throw, so they belong to the thread that runs the
// case; other threads record what they saw. One file of each program defines
// main() by `int main() { return flowcoro::test::run_all(); }`.
#pragma once

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace flowcoro::test {

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Case {
    const char* name;
    void (*body)();
};

inline std::vector<Case>& cases() {
    static std::vector<Case> all;
    return all;
}

struct Registration {
    Registration(const char* name, void (*body)()) { cases().push_back({name, body}); }
};

[[noreturn]] inline void fail(const char* file, int line, const char* text) {
    throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + text);
}

inline int run_all() {
    int failed = 0;
    for (const Case& each : cases()) {
        try {
            each.body();
            std::printf("ok      %s\n", each.name);
        } catch (const std::exception& error) {
            ++failed;
            std::printf("FAILED  %s\n        %s\n", each.name, error.what());
        }
        std::fflush(stdout);
    }
    if (cases().empty()) {
        std::printf("no test was registered\n");
        return 1;
    }
    return failed == 0 ? 0 : 1;
}

}  // namespace flowcoro::test

#define TEST(name)                                                                 \
    static void test_##name();                                                     \
    static const flowcoro::test::Registration register_##name(#name, test_##name); \
    static void test_##name()

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            flowcoro::test::fail(__FILE__, __LINE__, "CHECK(" #condition ")"); \
        }                                                                      \
    } while (false)

#define CHECK_THROWS(expression, type)                                                     \
    do {                                                                                   \
        bool thrown = false;                                                               \
        try {                                                                              \
            static_cast<void>(expression);                                                 \
        } catch (const type&) {                                                            \
            thrown = true;                                                                 \
        }                                                                                  \
        if (!thrown) {                                                                     \
            flowcoro::test::fail(__FILE__, __LINE__, #expression " did not throw " #type); \
        }                                                                                  \
    } while (false)
