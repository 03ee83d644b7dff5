// Reads that end before all is read that is there, on every backend.
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "check.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::memory::BufferPool;

// Receives so many bytes, one Recv after the other; each one waits only if nothing is there.
std::string receive(Reactor& reactor, const Fd& fd, std::size_t size) {
    std::array<std::byte, 100> bytes{};
    Noting<Recv> recv;
    recv.fd = fd.get();
    recv.into = bytes;
    std::string text;
    while (text.size() < size) {
        reactor.start(recv);
        run_out(reactor, recv);
        CHECK(recv.result() > 0);
        text.append(reinterpret_cast<const char*>(bytes.data()),
                    static_cast<std::size_t>(recv.result()));
    }
    return text;
}

// So that the reactor waits for events of it.
void make_wait(Reactor& reactor, const Fd& fd, const Fd& peer) {
    std::array<std::byte, 1> byte{};
    Noting<Recv> recv;
    recv.fd = fd.get();
    recv.into = byte;
    reactor.start(recv);
    reactor.run_once(0s);
    write_all(peer, "x");
    run_out(reactor, recv);
    CHECK(recv.result() == 1);
}

void send_with_descriptor(const Fd& fd, std::string text) {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    iovec piece{text.data(), text.size()};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int sent = fd.get();
    std::memcpy(CMSG_DATA(header), &sent, sizeof sent);
    CHECK(::sendmsg(fd.get(), &message, 0) == static_cast<ssize_t>(text.size()));
}

TEST(behind_descriptors_on_a_unix_socket) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        make_wait(reactor, left, right);
        send_with_descriptor(right, "abc");
        write_all(right, "def");
        CHECK(receive(reactor, left, 6) == "abcdef");
    });
}

// Not every kqueue tells of urgent data.
#if defined(__linux__) || defined(__APPLE__)

TEST(behind_urgent_data) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        make_wait(reactor, left, right);
        write_all(right, "abc");
        CHECK(::send(right.get(), "!", 1, MSG_OOB) == 1);
        write_all(right, "def");
        CHECK(receive(reactor, left, 6) == "abcdef");
    });
}

#endif

}  // namespace

int main() {
    return run_all();
}
