// Random reads of 4 KiB, 32 of them under way, beside fio with its io_uring engine.
//
// Both read the same file with one thread on the same processor, for the same time, in turns: with
// the file in the page cache, then past it (O_DIRECT), where the file system can.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench_tools.hpp"
#include "flowcoro/reactor/select.hpp"

namespace {

using namespace bench;
using namespace flowcoro::reactor;

constexpr std::size_t block = 4096;
constexpr std::size_t depth = 32;

// A file that is filled, flushed and, at the end, removed.
class TemporaryFile {
  public:
    explicit TemporaryFile(std::size_t size)
        : path_((std::filesystem::temp_directory_path() / "flowcoro-read-XXXXXX").string()) {
        const int fd = ::mkstemp(path_.data());
        check(fd >= 0, "mkstemp");
        std::vector<char> bytes(std::size_t{1} << 20);
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            bytes[i] = static_cast<char>(i * 31);
        }
        for (std::size_t written = 0; written < size; written += bytes.size()) {
            check(::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
                  "write");
        }
        check(::fsync(fd) == 0, "fsync");
        ::close(fd);
    }

    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;

    ~TemporaryFile() { ::unlink(path_.c_str()); }

    [[nodiscard]] const std::string& path() const noexcept { return path_; }

  private:
    std::string path_;
};

struct Job {
    std::string path;
    std::size_t size = 0;
    double seconds = 0;
    bool direct = false;
};

struct Reader {
    explicit Reader(const Job& job)
        : file(::open(job.path.c_str(), O_RDONLY | O_CLOEXEC | (job.direct ? O_DIRECT : 0))),
          blocks(job.size / block) {
        check(file >= 0, "open");
    }

    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    ~Reader() { ::close(file); }

    // xorshift: any block of the file, each as often as the others.
    std::uint64_t next_offset() noexcept {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state % blocks * block;
    }

    int file;
    std::uint64_t blocks;
    std::uint64_t state = 88172645463325252U;
    Reactor* reactor = nullptr;
    std::size_t reads = 0;
    bool over = false;
};

struct Read : ReadAt {
    Read() : ReadAt(&Read::done) {}

    static void done(Operation& self, Completion&& completion) {
        Read& read = static_cast<Read&>(self);
        check(completion.result == static_cast<std::int64_t>(block), "read_at");
        ++read.reader->reads;
        if (!read.reader->over) {
            read.next();
        }
    }

    void next() {
        offset = reader->next_offset();
        reader->reactor->start(*this);
    }

    Reader* reader = nullptr;
};

struct Rate {
    double reads = 0;      // a second
    double processor = 0;  // seconds of CPU a second
};

Rate over_reactor(const std::string& name, const Job& job) {
    const std::unique_ptr<Reactor> reactor = make_reactor(name);
    Reader reader(job);
    reader.reactor = reactor.get();
    const std::unique_ptr<std::byte, decltype(&std::free)> memory(
        static_cast<std::byte*>(std::aligned_alloc(block, depth * block)), &std::free);
    std::array<Read, depth> reads;
    for (std::size_t i = 0; i < depth; ++i) {
        reads[i].reader = &reader;
        reads[i].fd = reader.file;
        reads[i].into = std::span(memory.get() + i * block, block);
        reads[i].next();
    }
    const double before = seconds_of(CLOCK_MONOTONIC);
    const double used_before = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    double took = 0;
    while (took < job.seconds) {
        reactor->run_once();
        took = seconds_of(CLOCK_MONOTONIC) - before;
    }
    const double used = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - used_before;
    const Rate rate{static_cast<double>(reader.reads) / took, used / took};
    reader.over = true;
    while (reactor->in_flight() != 0) {
        reactor->run_once();
    }
    return rate;
}

bool has_fio() {
    return std::system("fio --version >/dev/null 2>&1") == 0;
}

// The number behind the first `"key" : ` after `from`.
double number_after(const std::string& text, const char* from, const char* key) {
    const std::size_t section = text.find(from);
    const std::size_t found =
        section == std::string::npos ? section : text.find("\"" + std::string(key) + "\"", section);
    check(found != std::string::npos, "fio's output");
    return std::strtod(text.c_str() + text.find(':', found) + 1, nullptr);
}

// With as few statistics as it can keep: it is to be as fast as it is.
Rate over_fio(const Job& job, const std::string& more) {
    const std::string command =
        "fio --name=read --filename='" + job.path +
        "' --readonly --rw=randread --ioengine=io_uring --bs=4k --iodepth=" +
        std::to_string(depth) + " --direct=" + (job.direct ? "1" : "0") +
        " --size=" + std::to_string(job.size) + " --runtime=" + std::to_string(job.seconds) +
        " --time_based --invalidate=0 --norandommap --gtod_reduce=1 --thread --cpus_allowed=0"
        " --output-format=json" +
        more + " 2>&1";
    FILE* const output = ::popen(command.c_str(), "r");
    check(output != nullptr, "popen");
    std::string text;
    std::array<char, 4096> piece{};
    while (const std::size_t size = std::fread(piece.data(), 1, piece.size(), output)) {
        text.append(piece.data(), size);
    }
    if (::pclose(output) != 0) {
        std::fprintf(stderr, "%s\n", text.c_str());
        check(false, "fio");
    }
    return {number_after(text, "\"read\" :", "iops"), (number_after(text, "\"jobs\"", "usr_cpu") +
                                                       number_after(text, "\"jobs\"", "sys_cpu")) /
                                                          100};
}

void compare(const Arguments& arguments, const char* title, const Job& job, bool with_fio) {
    if (!is_wanted(arguments, title)) {
        return;
    }
    Comparison reads;
    std::vector<std::pair<std::string, std::vector<double>>> loads;
    const auto add = [&](const std::string& name, const std::function<Rate()>& turn) {
        loads.emplace_back(name, std::vector<double>());
        reads.add(name, [&loads, turn, which = loads.size() - 1] {
            const Rate rate = turn();
            loads[which].second.push_back(rate.processor / rate.reads * 1e6);
            return rate.reads;
        });
    };
    if (with_fio) {
        add("fio", [&] { return over_fio(job, ""); });
        // As it comes, fio hands over each read by a call of its own.
        add("fio, in batches", [&] {
            return over_fio(job, " --iodepth_batch_submit=32 --iodepth_batch_complete_max=32");
        });
    }
    for (const std::string& name : available()) {
        add(name + " reactor", [&job, name] { return over_reactor(name, job); });
    }
    reads.run(arguments.rounds);
    reads.print(title, "thousands of reads a second", 1e3);
    for (const auto& [name, each] : loads) {
        const Spread load = spread_of(each);
        std::printf("    CPU for a read: %-18s %6.2f us [%.2f-%.2f]\n", name.c_str(), load.median,
                    load.low, load.high);
    }
}

bool can_be_direct(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd >= 0) {
        ::close(fd);
    }
    return fd >= 0;
}

}  // namespace

int main(int count, char** values) {
    const Arguments arguments = parse(count, values);
    const bool with_fio = has_fio();
    if (!with_fio) {
        std::printf("SKIPPED: no comparison with fio, which is not installed\n");
    }
    const std::size_t size = std::size_t{arguments.quick ? 16U : 512U} << 20;
    const TemporaryFile file(size);
    pin(0);
    Job job{file.path(), size, arguments.quick ? 0.1 : 1.0, false};
    compare(arguments, "random reads of 4 KiB, page cache", job, with_fio);
    if (can_be_direct(file.path())) {
        job.direct = true;
        compare(arguments, "random reads of 4 KiB, O_DIRECT", job, with_fio);
    } else {
        std::printf("SKIPPED: no O_DIRECT on the file system of %s\n", file.path().c_str());
    }
    return 0;
}
