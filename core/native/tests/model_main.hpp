// What makes a program of the model checker out of cases: it runs each protocol's cases in every
// interleaving, with every value that weak memory allows; and proves that this finds mistakes:
// each memory order in turn is weakened by one step, and some case must then fail.
//
// For one source file of a program, which defines models() and a main() that calls run_all().
#pragma once

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "check.hpp"
#include "model.hpp"
#include "model_memory.hpp"

namespace flowcoro::model {

struct Model {
    const char* name;
    std::vector<Scenario> cases;
};

const std::vector<Model>& models();

inline Outcome explored(const Scenario& scenario, std::optional<Site> weakened = std::nullopt) {
    return explore(
        [&](Engine& run) {
            kept.keeping = false;
            kept.release();
            Item::forget();
            scenario(run);
            kept.keeping = true;
        },
        weakened);
}

// Of each model, its cases as they are.
inline const std::vector<std::vector<Outcome>>& outcomes() {
    static const std::vector<std::vector<Outcome>> all = [] {
        std::vector<std::vector<Outcome>> found;
        for (const Model& model : models()) {
            found.emplace_back();
            for (const Scenario& scenario : model.cases) {
                found.back().push_back(explored(scenario));
            }
        }
        return found;
    }();
    return all;
}

TEST(every_interleaving_is_right) {
    for (std::size_t m = 0; m < models().size(); ++m) {
        for (std::size_t i = 0; i < outcomes()[m].size(); ++i) {
            const Outcome& outcome = outcomes()[m][i];
            std::printf("        %s, case %zu: %zu runs\n", models()[m].name, i + 1, outcome.runs);
            if (!outcome.failure.empty()) {
                std::printf("        %s\n", outcome.failure.c_str());
            }
            CHECK(outcome.failure.empty());
            CHECK(outcome.runs > 1);
        }
    }
}

// What the model makes of a weakened order: the failure that it found, or nothing. In a process
// of its own, since a container that is wrong may well crash.
inline std::string failure_when_weakened(const Model& model, const Site& site) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    std::fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        std::string found;
        for (const Scenario& scenario : model.cases) {
            if (found.empty()) {
                found = explored(scenario, site).failure;
            }
        }
        _exit(write(ends[1], found.data(), found.size()) == static_cast<ssize_t>(found.size()) ? 0
                                                                                               : 1);
    }
    close(ends[1]);
    std::string found;
    char part[256];
    for (ssize_t size = 0; (size = read(ends[0], part, sizeof part)) > 0;) {
        found.append(part, static_cast<std::size_t>(size));
    }
    close(ends[0]);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) ? "a crash" : found;
}

// Whether the source says that the model cannot judge an order, for reasons that it gives.
inline bool is_beyond(const Site& site) {
    std::ifstream source{std::string(site.file)};
    std::string line;
    for (std::uint32_t number = 0; number < site.line; ++number) {
        CHECK(std::getline(source, line));
    }
    return line.find("// beyond the model") != std::string::npos;
}

TEST(every_weakened_order_is_found) {
    std::map<Site, std::string> found;  // nothing where no model finds a failure
    for (std::size_t m = 0; m < models().size(); ++m) {
        std::set<Site> sites;
        for (const Outcome& outcome : outcomes()[m]) {
            for (const auto& [site, uses] : outcome.sites) {
                sites.insert(site);
            }
        }
        CHECK(!sites.empty());
        for (const Site& site : sites) {
            if (found[site].empty()) {
                found[site] = failure_when_weakened(models()[m], site);
            }
        }
    }
    bool all_found = true;
    for (const auto& [site, failure] : found) {
        const bool expected = !is_beyond(site);
        const std::string file(site.file.substr(site.file.rfind('/') + 1));
        std::printf("        %s:%u: %s\n", file.c_str(), static_cast<unsigned>(site.line),
                    !failure.empty() ? failure.c_str()
                    : expected       ? "NOT FOUND"
                                     : "beyond the model");
        all_found = all_found && failure.empty() != expected;
    }
    CHECK(all_found);
}

}  // namespace flowcoro::model
