// Files of Windows: how they are opened, renamed and removed, and their paths.
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "check.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"

namespace {

using namespace flowcoro::reactor;
using namespace flowcoro::test;

// Of one Open.
std::int64_t open_by(Reactor& reactor, const std::string& path, int flags, unsigned mode = 0666) {
    Noting<Open> open;
    open.path = path.c_str();
    open.flags = flags;
    open.mode = mode;
    reactor.start(open);
    run_out(reactor, open);
    return open.result();
}

std::int64_t unlink_by(Reactor& reactor, const std::string& path, bool directory = false) {
    Noting<Unlink> unlink;
    unlink.path = path.c_str();
    unlink.directory = directory;
    reactor.start(unlink);
    run_out(reactor, unlink);
    return unlink.result();
}

// Lives to the end of the expression.
Noting<Stat>& stat_by(Reactor& reactor, const std::string& path, Noting<Stat>&& stat = {}) {
    stat.path = path.c_str();
    reactor.start(stat);
    run_out(reactor, stat);
    return stat;
}

std::int64_t rename_by(Reactor& reactor, const std::string& from, const std::string& to) {
    Noting<Rename> rename;
    rename.from = from.c_str();
    rename.to = to.c_str();
    reactor.start(rename);
    run_out(reactor, rename);
    return rename.result();
}

std::int64_t write_by(Reactor& reactor, Handle file, std::string_view text,
                      std::uint64_t offset = 0) {
    Noting<WriteAt> write;
    write.fd = file;
    write.from = bytes_of(text);
    write.offset = offset;
    reactor.start(write);
    run_out(reactor, write);
    return write.result();
}

// A folder that is gone with the test, once it is empty.
struct TemporaryFolder {
    TemporaryFolder() : path(os::temporary_path()) {
        CHECK(::CreateDirectoryA(path.c_str(), nullptr));
    }

    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    ~TemporaryFolder() { ::RemoveDirectoryA(path.c_str()); }

    std::string path;
};

TEST(files_are_opened_as_was_asked) {
    on_each([](Reactor& reactor) {
        const TemporaryFolder folder;
        const std::string path = folder.path + "\\file";
        CHECK(open_by(reactor, path, O_RDWR) == -ENOENT);
        CHECK(open_by(reactor, "", O_RDWR) == -ENOENT);
        CHECK(open_by(reactor, "\xFF", O_RDWR) == -EILSEQ);
        CHECK(open_by(reactor, folder.path + "\\none\\file", O_CREAT | O_RDWR) == -ENOENT);
        CHECK(open_by(reactor, folder.path, O_RDWR) == -EISDIR);
        Fd inside(open_by(reactor, folder.path, O_RDONLY));
        CHECK(close_by(reactor, inside) == 0);
        Fd fd(open_by(reactor, path, O_CREAT | O_EXCL | O_RDWR));
        CHECK(!os::is_inherited(fd.get()));
        CHECK(write_by(reactor, fd.get(), "0123456789") == 10);
        CHECK(close_by(reactor, fd) == 0);
        CHECK(open_by(reactor, path, O_CREAT | O_EXCL | O_RDWR) == -EEXIST);
        for (const int flags : {O_CREAT | O_RDWR, O_RDONLY}) {
            fd = Fd(open_by(reactor, path, flags));
            CHECK(read_by(reactor, fd.get()) == "0123456789");
            CHECK(close_by(reactor, fd) == 0);
        }
        fd = Fd(open_by(reactor, path, O_APPEND | O_RDWR));
        CHECK(write_by(reactor, fd.get(), "ab", 3) == 2);
        CHECK(read_by(reactor, fd.get()) == "0123456789ab");
        CHECK(close_by(reactor, fd) == 0);
        for (const int flags : {O_TRUNC | O_RDWR, O_CREAT | O_TRUNC | O_RDWR}) {
            fd = Fd(open_by(reactor, path, flags));
            CHECK(read_by(reactor, fd.get()).empty());
            CHECK(write_by(reactor, fd.get(), "new") == 3);
            CHECK(close_by(reactor, fd) == 0);
        }
        fd = Fd(open_by(reactor, path, O_RDONLY));
        CHECK(write_by(reactor, fd.get(), "new") == -EACCES);
        CHECK(close_by(reactor, fd) == 0);
        CHECK(unlink_by(reactor, path) == 0);
        fd = Fd(open_by(reactor, path, O_CREAT | O_RDWR, 0444));
        CHECK(close_by(reactor, fd) == 0);
        CHECK((stat_by(reactor, path).info.mode & 0777U) == 0444U);
        CHECK(::SetFileAttributesA(path.c_str(), FILE_ATTRIBUTE_NORMAL));
        CHECK(unlink_by(reactor, path) == 0);
    });
}

TEST(a_rename_replaces_and_an_unlink_tells_files_from_folders) {
    on_each([](Reactor& reactor) {
        const TemporaryFolder folder;
        const std::string one = folder.path + "\\one";
        const std::string two = folder.path + "\\two";
        for (const std::string& each : {one, two}) {
            Fd fd(open_by(reactor, each, O_CREAT | O_RDWR));
            CHECK(write_by(reactor, fd.get(), each) == static_cast<std::int64_t>(each.size()));
            CHECK(close_by(reactor, fd) == 0);
        }
        CHECK(rename_by(reactor, one, two) == 0);
        CHECK(rename_by(reactor, one, two) == -ENOENT);
        Fd fd(open_by(reactor, two, O_RDONLY));
        CHECK(read_by(reactor, fd.get()) == one);
        CHECK(rename_by(reactor, two, one) == 0);  // open as it is
        CHECK(close_by(reactor, fd) == 0);
        CHECK(stat_by(reactor, two).result() == -ENOENT);
        CHECK((stat_by(reactor, folder.path).info.mode & S_IFMT) == S_IFDIR);
        CHECK(unlink_by(reactor, folder.path) == -EISDIR);
        CHECK(unlink_by(reactor, folder.path, true) == -ENOTEMPTY);
        CHECK(unlink_by(reactor, one, true) == -ENOTDIR);
        CHECK(unlink_by(reactor, one) == 0);
        CHECK(unlink_by(reactor, one) == -ENOENT);
        CHECK(unlink_by(reactor, folder.path, true) == 0);
    });
}

TEST(paths_are_utf8_and_as_long_as_they_like) {
    on_each([](Reactor& reactor) {
        const TemporaryFolder folder;
        const std::string name = "\xC3\xA4\xE6\xBC\xA2\xF0\x9F\x90\x8D";  // ä, a kanji, a snake
        const std::string path = folder.path + "\\" + name;
        Fd fd(open_by(reactor, path, O_CREAT | O_RDWR));
        CHECK(close_by(reactor, fd) == 0);
        const std::wstring wide =
            std::wstring(folder.path.begin(), folder.path.end()) + L"\\\u00E4\u6F22\U0001F40D";
        CHECK(::GetFileAttributesW(wide.c_str()) != INVALID_FILE_ATTRIBUTES);
        CHECK(stat_by(reactor, path).result() == 0 && unlink_by(reactor, path) == 0);

        const std::string middle = folder.path + "\\" + std::string(200, 'd');
        const std::string end = middle + "/" + std::string(200, 'f');  // and either slash
        CHECK(::CreateDirectoryA(middle.c_str(), nullptr));
        fd = Fd(open_by(reactor, end, O_CREAT | O_RDWR));
        CHECK(write_by(reactor, fd.get(), "deep") == 4);
        CHECK(close_by(reactor, fd) == 0);
        CHECK(stat_by(reactor, end).info.size == 4);
        CHECK(rename_by(reactor, end, end + "2") == 0);
        CHECK(unlink_by(reactor, end + "2") == 0 && unlink_by(reactor, middle, true) == 0);
    });
}

TEST(files_that_are_not_overlapped_are_read_and_written) {
    on_each([](Reactor& reactor) {
        const TemporaryFile file("content");
        Fd fd(reinterpret_cast<Handle>(
            ::CreateFileA(file.path().c_str(), GENERIC_READ | GENERIC_WRITE,
                          FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                          OPEN_EXISTING, 0, nullptr)));
        CHECK(write_by(reactor, fd.get(), "C") == 1);
        CHECK(read_by(reactor, fd.get()) == "Content");
        std::array<std::byte, 10> bytes{};
        Noting<ReadAt> read;
        read.fd = fd.get();
        read.into = bytes;
        read.offset = 100;
        reactor.start(read);
        CHECK(close_by(reactor, fd) == 0);
        CHECK(read.results.size() == 1 && (read.result() == 0 || read.result() == -ECANCELED));
    });
}

}  // namespace

int main() {
    return run_all();
}
