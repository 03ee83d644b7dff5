// What the benchmarks of the reactor share: arguments, processors, clocks, and medians with what
// they span.
#pragma once

#include <sched.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

inline void check(bool condition, const char* what) {
    if (!condition) {
        std::fprintf(stderr, "bench: %s: %s\n", what, std::strerror(errno));
        std::exit(1);
    }
}

struct Arguments {
    bool quick = false;  // only proves that it runs
    std::size_t rounds = 11;
    std::string only;  // comparisons with this in their title
};

inline Arguments parse(int count, char** values) {
    Arguments arguments;
    for (int i = 1; i < count; ++i) {
        const std::string_view value = values[i];
        if (value == "--quick") {
            arguments.quick = true;
            arguments.rounds = 1;
        } else if (value == "--rounds" && i + 1 < count) {
            arguments.rounds = std::max<std::size_t>(std::strtoul(values[++i], nullptr, 10), 1);
        } else if (value == "--only" && i + 1 < count) {
            arguments.only = values[++i];
        } else {
            std::fprintf(stderr, "usage: %s [--quick] [--rounds N] [--only TEXT]\n", values[0]);
            std::exit(2);
        }
    }
#if !defined(NDEBUG)
    std::fprintf(stderr, "bench: not a release build; the figures mean nothing\n");
#endif
    return arguments;
}

inline bool is_wanted(const Arguments& arguments, std::string_view title) {
    return title.find(arguments.only) != std::string_view::npos;
}

// The calling thread, and what it starts.
inline void pin(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    check(::sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
}

inline void allow_descriptors(std::size_t count) {
    rlimit limit{};
    check(::getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    if (limit.rlim_cur < count) {
        limit.rlim_cur = count;
        limit.rlim_max = std::max<rlim_t>(limit.rlim_max, count);
        check(::setrlimit(RLIMIT_NOFILE, &limit) == 0, "more descriptors (ulimit -n)");
    }
}

inline double seconds_of(clockid_t clock) {
    timespec now{};
    check(::clock_gettime(clock, &now) == 0, "clock_gettime");
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// A median, and what the values span.
struct Spread {
    double median = 0;
    double low = 0;
    double high = 0;
};

inline Spread spread_of(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return {values[values.size() / 2], values.front(), values.back()};
}

// Contenders that take turns, round after round, each round beginning with another, so that what
// disturbs the machine disturbs all of them. A turn gives a rate: more is better.
class Comparison {
  public:
    void add(std::string name, std::function<double()> turn) {
        contenders_.push_back({std::move(name), std::move(turn), {}});
    }

    // The same contender under other conditions is compared with itself: `against` is the index
    // of the row that is 1.
    void add(std::string name, std::function<double()> turn, std::size_t against) {
        add(std::move(name), std::move(turn));
        contenders_.back().against = against;
    }

    void run(std::size_t rounds) {
        for (std::size_t round = 0; round < rounds; ++round) {
            for (std::size_t i = 0; i < contenders_.size(); ++i) {
                Contender& next = contenders_[(round + i) % contenders_.size()];
                next.rates.push_back(next.turn());
            }
        }
    }

    // One row each: the rate, and its ratio to the row that it is compared with, round by round.
    void print(const char* title, const char* unit, double scale) const {
        std::printf("%s, %s\n", title, unit);
        for (const Contender& each : contenders_) {
            const Spread rate = spread_of(each.rates);
            const Spread ratio = ratio_of(each, contenders_[each.against]);
            std::printf("  %-34s %8.1f [%.1f-%.1f]  x %.2f [%.2f-%.2f]\n", each.name.c_str(),
                        rate.median / scale, rate.low / scale, rate.high / scale, ratio.median,
                        ratio.low, ratio.high);
        }
        std::fflush(stdout);
    }

  private:
    struct Contender {
        std::string name;
        std::function<double()> turn;
        std::vector<double> rates;
        std::size_t against = 0;
    };

    static Spread ratio_of(const Contender& one, const Contender& other) {
        std::vector<double> ratios;
        for (std::size_t i = 0; i < one.rates.size(); ++i) {
            ratios.push_back(one.rates[i] / other.rates[i]);
        }
        return spread_of(std::move(ratios));
    }

    std::vector<Contender> contenders_;
};

}  // namespace bench
