// ObjectRegistry: which Python objects a pool has made, and where each of them is.
//
// Protocol: an object is `out` (with a user), `resetting` (its release is under way) or `idle` (in
// the pool's stack of idle objects, or on the way from or to it). Each change is from a state
// that the caller names, under the mutex of the object's shard, so of several releases of one
// object one only goes through. The registry owns one reference to each object; a stack
// beside it may hold plain pointers to the idle ones, as only who takes an object from there
// makes it `out` again.
//
// Nothing here runs Python code: what is removed is handed to the caller, who drops it when no
// mutex is held. With the GIL the mutexes are empty, and the GIL does their work.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "flowcoro/detail/platform.hpp"

namespace flowcoro::bindings {

class ObjectRegistry {
  public:
    enum class State : unsigned char { out, resetting, idle };

    ObjectRegistry() = default;
    ObjectRegistry(const ObjectRegistry&) = delete;
    ObjectRegistry& operator=(const ObjectRegistry&) = delete;

    // Takes note of an object that is out; false when it is known already. Throws std::bad_alloc.
    bool add(nb::handle object) {
        Shard& shard = shard_of(object.ptr());
        const nb::ft_lock_guard lock(shard.mutex);
        const bool added = shard.objects.try_emplace(object.ptr(), State::out).second;
        if (added) {
            object.inc_ref();
        }
        return added;
    }

    // Moves an object from one state to another if it is in the first; returns the state in which
    // it was, or nothing when it is not known.
    std::optional<State> change(nb::handle object, State from, State to) noexcept {
        Shard& shard = shard_of(object.ptr());
        const nb::ft_lock_guard lock(shard.mutex);
        const auto found = shard.objects.find(object.ptr());
        if (found == shard.objects.end()) {
            return std::nullopt;
        }
        const State before = found->second;
        if (before == from) {
            found->second = to;
        }
        return before;
    }

    // The user's own reference to an object that was idle and now is out.
    nb::object lend(PyObject* object) noexcept {
        Shard& shard = shard_of(object);
        const nb::ft_lock_guard lock(shard.mutex);
        shard.objects.find(object)->second = State::out;
        return nb::borrow(object);
    }

    // Forgets an object; returns the reference that the registry had.
    nb::object remove(PyObject* object) noexcept {
        Shard& shard = shard_of(object);
        const nb::ft_lock_guard lock(shard.mutex);
        shard.objects.erase(object);
        return nb::steal(object);
    }

    // Some object that is out, forgotten; null when there is none.
    nb::object remove_any_out() noexcept {
        for (Shard& shard : shards_) {
            const nb::ft_lock_guard lock(shard.mutex);
            for (auto it = shard.objects.begin(); it != shard.objects.end(); ++it) {
                if (it->second == State::out) {
                    nb::object object = nb::steal(it->first);
                    shard.objects.erase(it);
                    return object;
                }
            }
        }
        return {};
    }

    // Calls visit(PyObject*) until one is not 0. For the collector, while nobody else works.
    template <typename Visitor>
    int visit_quiescent(const Visitor& visit) const {
        for (const Shard& shard : shards_) {
            for (const auto& [object, state] : shard.objects) {
                if (const int result = visit(object); result != 0) {
                    return result;
                }
            }
        }
        return 0;
    }

  private:
    static constexpr std::size_t shards = 8;  // threads mostly meet in different ones

    struct alignas(detail::destructive_interference_size) Shard {
        nb::ft_mutex mutex;
        std::unordered_map<PyObject*, State> objects;
    };

    Shard& shard_of(const PyObject* object) noexcept {
        const auto address = reinterpret_cast<std::uintptr_t>(object);
        return shards_[(address >> 4 ^ address >> 9) % shards];
    }

    std::array<Shard, shards> shards_;
};

}  // namespace flowcoro::bindings
