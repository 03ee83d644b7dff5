// What the model's cases of containers have in common.
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "model.hpp"

namespace flowcoro::model {

// What the threads of a run got, by thread.
struct Got {
    std::vector<int> numbers[3];

    void add(std::size_t thread, std::optional<Item> item) {
        if (item) {
            numbers[thread].push_back(item->number());
        }
    }

    // Whether together they are 1 to `count`, each once.
    [[nodiscard]] bool all_once(int count) const {
        std::multiset<int> all;
        for (const std::vector<int>& some : numbers) {
            all.insert(some.begin(), some.end());
        }
        std::multiset<int> expected;
        for (int i = 1; i <= count; ++i) {
            expected.insert(i);
        }
        return all == expected;
    }
};

template <typename Container>
void drain(Container& container, Got& got, std::size_t thread) {
    while (auto item = container.try_pop()) {
        got.add(thread, std::move(item));
    }
}

}  // namespace flowcoro::model
