// Files on every backend.
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "check.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;

TEST(files_are_read_and_written_anywhere) {
    on_each([](Reactor& reactor) {
        const TemporaryFile file("0123456789");
        Noting<Open> open;
        open.path = file.path().c_str();
        open.flags = O_RDWR;
        reactor.start(open);
        run_out(reactor, open);
        CHECK(open.result() >= 0);
        Fd fd(static_cast<Handle>(open.result()));
        std::array<std::byte, 4> bytes{};
        Noting<ReadAt> read;
        read.fd = fd.get();
        read.into = bytes;
        read.offset = 3;
        reactor.start(read);
        run_out(reactor, read);
        CHECK(read.result() == 4 && std::memcmp(bytes.data(), "3456", 4) == 0);
        Noting<WriteAt> write;
        write.fd = fd.get();
        write.from = bytes_of("abc");
        write.offset = 9;
        reactor.start(write);
        run_out(reactor, write);
        CHECK(write.result() == 3);
        Noting<Fsync> sync;
        sync.fd = fd.get();
        for (const bool data_only : {false, true}) {
            sync.data_only = data_only;
            reactor.start(sync);
            run_out(reactor, sync);
            CHECK(sync.result() == 0);
        }
        Noting<Stat> stat;
        stat.path = file.path().c_str();
        reactor.start(stat);
        run_out(reactor, stat);
        CHECK(stat.result() == 0 && stat.info.size == 12 && stat.info.links == 1);
        CHECK((stat.info.mode & S_IFMT) == S_IFREG && stat.info.modified > 0s);
        read.offset = 100;
        reactor.start(read);
        run_out(reactor, read);
        CHECK(read.result() == 0);
        CHECK(close_by(reactor, fd) == 0);
    });
}

TEST(files_are_renamed_and_removed) {
    on_each([](Reactor& reactor) {
        TemporaryFile file("x");
        file.close();  // Windows keeps a name until who has the file open has closed it
        const std::string other = file.path() + "-renamed";
        Noting<Rename> rename;
        rename.from = file.path().c_str();
        rename.to = other.c_str();
        reactor.start(rename);
        run_out(reactor, rename);
        CHECK(rename.result() == 0);
        reactor.start(rename);
        run_out(reactor, rename);
        CHECK(rename.result() == -ENOENT);
        Noting<Unlink> unlink;
        unlink.path = other.c_str();
        reactor.start(unlink);
        run_out(reactor, unlink);
        CHECK(unlink.result() == 0);
        Noting<Stat> stat;
        stat.path = other.c_str();
        reactor.start(stat);
        run_out(reactor, stat);
        CHECK(stat.result() == -ENOENT);
        Noting<Open> open;
        open.path = other.c_str();
        reactor.start(open);
        run_out(reactor, open);
        CHECK(open.result() == -ENOENT);
    });
}

TEST(a_file_goes_to_a_socket) {
    on_each([](Reactor& reactor) {
        const std::string content(300'000, 'z');
        const TemporaryFile file(content);
        auto [left, right] = tcp_pair();
        Noting<SendFile> send;
        send.fd = left.get();
        send.file = file.fd();
        send.size = content.size();
        std::string received;
        while (received.size() < content.size()) {
            if (!send.in_flight() && static_cast<std::size_t>(send.offset) < content.size()) {
                reactor.start(send);
            }
            reactor.run_once(1ms);
            received += read_some(right);
            if (!send.in_flight() && !send.results.empty()) {
                CHECK(send.result() > 0);
                send.offset += send.result();
                send.size -= static_cast<std::size_t>(send.result());
                send.results.clear();
            }
        }
        CHECK(received == content);
    });
}

TEST(many_file_operations_at_once_and_a_close) {
    on_each([](Reactor& reactor) {
        const TemporaryFile file(std::string(100'000, 'q'));
        Fd fd = file.open(O_RDONLY);
        std::vector<std::array<std::byte, 1000>> bytes(100);
        std::vector<std::unique_ptr<Noting<ReadAt>>> reads;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            reads.push_back(std::make_unique<Noting<ReadAt>>());
            reads[i]->fd = fd.get();
            reads[i]->into = bytes[i];
            reads[i]->offset = i * 1000;
            reactor.start(*reads[i]);
        }
        CHECK(close_by(reactor, fd) == 0);
        for (const auto& read : reads) {
            CHECK(!read->in_flight() && read->results.size() == 1);
            CHECK(read->result() == 1000 || read->result() == -ECANCELED);
        }
    });
}

// A file thread that is done just when the loop has looked must not leave it asleep.
TEST(no_file_operation_is_slept_through) {
    struct Again : ReadAt {
        Again() : ReadAt(&Again::done) {}

        static void done(Operation& self, Completion&& completion) {
            Again& read = static_cast<Again&>(self);
            CHECK(completion.result == 8);
            if (*read.left != 0) {
                --*read.left;
                read.reactor->start(read);
            }
        }

        Reactor* reactor = nullptr;
        std::size_t* left = nullptr;
        std::array<std::byte, 8> bytes{};
    };

    on_each([](Reactor& reactor) {
        const TemporaryFile file(std::string(8, 'q'));
        Fd fd = file.open(O_RDONLY);
        std::size_t left = 30'000;
        std::array<Again, 8> reads;
        for (Again& each : reads) {
            each.reactor = &reactor;
            each.left = &left;
            each.fd = fd.get();
            each.into = each.bytes;
            reactor.start(each);
        }
        while (reactor.in_flight() != 0) {
            const Clock::time_point before = Clock::now();
            reactor.run_once(30s);
            CHECK(Clock::now() - before < 30s);
        }
        CHECK(close_by(reactor, fd) == 0);
    });
}

}  // namespace

int main() {
    return run_all();
}
