// What only Linux can show: a disk that is really full, io_uring that is forbidden.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "check.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"

namespace {

using namespace flowcoro::reactor;
using namespace flowcoro::test;

constexpr int cannot = 77;

// Runs body() in a process of its own, whose exit code it returns.
template <typename Body>
int in_child(const Body& body) {
    std::fflush(stdout);
    const pid_t child = ::fork();
    CHECK(child >= 0);
    if (child == 0) {
        int code = 1;
        try {
            code = body();
        } catch (const std::exception& error) {
            std::fprintf(stderr, "        in the child: %s\n", error.what());
        }
        std::fflush(stderr);
        ::_exit(code);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

int fill_a_small_disk(const Backend& backend, const char* folder) {
    // Mounted for this process only, and gone with it.
    if (::unshare(::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("flowcoro-test", folder, "tmpfs", 0, "size=64k") != 0) {
        return cannot;
    }
    const std::unique_ptr<Reactor> reactor = backend.make({});
    const std::string path = std::string(folder) + "/full";
    Fd file(os::open_file(path.c_str(), O_RDWR | O_CREAT));
    const std::string text(10'000, 'x');
    Noting<WriteAt> write;
    write.fd = file.get();
    std::uint64_t offset = 0;
    bool was_short = false;
    do {
        write.from = bytes_of(text);
        write.offset = offset;
        reactor->start(write);
        run_out(*reactor, write);
        if (write.result() > 0) {
            was_short = was_short || write.result() < 10'000;
            offset += static_cast<std::uint64_t>(write.result());
        }
    } while (write.result() > 0);
    CHECK(write.result() == -ENOSPC && was_short && offset == 65'536);
    // What had been written is there, and with room again it goes on.
    Noting<Stat> stat;
    stat.path = path.c_str();
    reactor->start(stat);
    run_out(*reactor, stat);
    CHECK(stat.result() == 0 && stat.info.size == 65'536);
    CHECK(::ftruncate(file.get(), 0) == 0);
    write.offset = 0;
    reactor->start(write);
    run_out(*reactor, write);
    CHECK(write.result() == 10'000);
    return 0;
}

TEST(a_disk_that_fills_up) {
    for (const Backend& backend : usable_backends()) {
        std::array<char, 32> folder{"/tmp/flowcoro-test-XXXXXX"};
        CHECK(::mkdtemp(folder.data()) != nullptr);
        const int code = in_child([&] { return fill_a_small_disk(backend, folder.data()); });
        ::rmdir(folder.data());
        if (code == cannot) {
            std::printf("SKIPPED a_disk_that_fills_up: mount(2) is not allowed here\n");
            return;
        }
        CHECK(code == 0);
    }
}

// As container runtimes do by default.
bool forbid(int number, int with) {
    std::array<sock_filter, 4> program{{
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, static_cast<std::uint32_t>(number)},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(with)},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    }};
    const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0;
}

TEST(io_uring_that_is_forbidden_is_told_and_epoll_takes_its_place) {
    for (const int error : {EPERM, ENOSYS}) {
        const int code = in_child([error] {
            ::unsetenv("FLOWCORO_REACTOR");
            if (!forbid(__NR_io_uring_setup, error)) {
                return cannot;
            }
            CHECK(why_not("io_uring").find(std::strerror(error)) != std::string::npos);
            CHECK(available() == std::vector<std::string>{"epoll"});
            CHECK(make_reactor()->name() == std::string("epoll"));
            CHECK_THROWS(make_reactor("io_uring"), std::system_error);
            return 0;
        });
        if (code == cannot) {
            std::printf("SKIPPED io_uring_that_is_forbidden: seccomp(2) is not allowed here\n");
            return;
        }
        CHECK(code == 0);
    }
}

// A kernel that lets us have rings, but not all that is needed of them.
TEST(io_uring_without_what_is_needed_is_no_backend) {
    const int code = in_child([] {
        if (!forbid(__NR_io_uring_register, EINVAL)) {
            return cannot;
        }
        CHECK(!why_not("io_uring").empty());
        CHECK(make_reactor()->name() == std::string("epoll"));
        return 0;
    });
    CHECK(code == 0 || code == cannot);
}

}  // namespace

int main() {
    return run_all();
}
