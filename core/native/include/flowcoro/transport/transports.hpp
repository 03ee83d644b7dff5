// Transports: what the transports and listeners of one reactor share.
//
// It is a companion of the reactor (see reactor.hpp): made when the first transport is, told when
// the reactor goes, which ends all of them with ECANCELED, and destroyed when nothing is in flight
// any more.
//
// What a peak has taken of the pools goes back to the system when few are left: when they are a
// quarter of what they were, and when there is none any more, where it is worth its calls.
//
// Protocol: all fields are the reactor's thread's. members_ is every transport and listener whose
// descriptor is not closed yet; each takes itself out.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

#include "flowcoro/memory/buffer_pool.hpp"
#include "flowcoro/reactor/reactor.hpp"
#include "flowcoro/transport/sending.hpp"

namespace flowcoro::transport {

struct TransportsOptions {
    // Of a buffer that is received into, and of one that output is gathered in.
    std::size_t buffer_size = 16 * 1024;

    // How many may be received into at a time, those that protocols keep included.
    std::size_t max_buffers = memory::BufferPool::no_limit;
};

class Transports final : public reactor::Companion {
  public:
    // What has a descriptor and ends with the reactor.
    class Member {
      public:
        Member(const Member&) = delete;
        Member& operator=(const Member&) = delete;

      protected:
        Member() noexcept = default;
        ~Member() = default;

      private:
        friend class Transports;

        virtual void reactor_goes() noexcept = 0;

        Member* before_ = nullptr;
        Member* after_ = nullptr;
    };

    // Counted since the start.
    struct Stats {
        std::size_t open = 0;             // now: transports and listeners
        std::uint64_t no_buffers = 0;     // receives that waited for a buffer of the pool
        std::uint64_t accept_delays = 0;  // times that accepting waited for what it lacked
        std::uint64_t discarded = 0;      // bytes of buffers that went back to the system
    };

    explicit Transports(reactor::Reactor& reactor, const TransportsOptions& options = {})
        : reactor_(reactor),
          input_(std::make_unique<memory::BufferPool>(options.buffer_size, options.max_buffers)),
          output_(std::make_unique<memory::BufferPool>(options.buffer_size)) {}

    ~Transports() override {
        retire(std::move(input_));
        retire(std::move(output_));
    }

    // Those of a reactor; made if there are none, and only then with these options. Throws
    // std::bad_alloc.
    static Transports& of(reactor::Reactor& reactor, const TransportsOptions& options = {}) {
        return reactor.companion<Transports>(options);
    }

    [[nodiscard]] reactor::Reactor& reactor() noexcept { return reactor_; }

    [[nodiscard]] memory::BufferPool& input() noexcept { return *input_; }

    [[nodiscard]] memory::BufferPool& output() noexcept { return *output_; }

    // Those that no transport has at the moment.
    [[nodiscard]] SendingPool& sendings() noexcept { return sendings_; }

    [[nodiscard]] Stats& stats() noexcept { return stats_; }

    // Throws std::system_error with ECANCELED when the reactor is about to go.
    void check_going() const {
        if (stopping_) {
            throw std::system_error(ECANCELED, std::generic_category(), "the reactor goes");
        }
    }

    [[nodiscard]] bool is_stopping() const noexcept { return stopping_; }

    void add(Member& member) noexcept {
        member.before_ = nullptr;
        member.after_ = members_;
        if (members_ != nullptr) {
            members_->before_ = &member;
        }
        members_ = &member;
        ++stats_.open;
    }

    void remove(Member& member) noexcept {
        (member.before_ != nullptr ? member.before_->after_ : members_) = member.after_;
        if (member.after_ != nullptr) {
            member.after_->before_ = member.before_;
        }
        --stats_.open;
    }

    // One that receives and sends.
    void add_stream(Member& member) noexcept {
        add(member);
        ++streams_;
        most_since_none_ = std::max(most_since_none_, streams_);
        most_since_discard_ = std::max(most_since_discard_, streams_);
    }

    void remove_stream(Member& member) noexcept {
        remove(member);
        --streams_;
        if (streams_ == 0 ? most_since_none_ >= few
                          : most_since_discard_ >= many && streams_ <= most_since_discard_ / 4) {
            stats_.discarded += input_->discard_idle() + output_->discard_idle();
            most_since_discard_ = streams_;
        }
        if (streams_ == 0) {
            most_since_none_ = 0;
        }
    }

    // They begin to close, and none leaves the list before the reactor has closed its descriptor.
    void stop() noexcept override {
        stopping_ = true;
        for (Member* each = members_; each != nullptr; each = each->after_) {
            each->reactor_goes();
        }
    }

    [[nodiscard]] bool is_idle() const noexcept override { return members_ == nullptr; }

  private:
    // Whoever still has a buffer of a pool may use it: the pool stays, until it is found to be
    // unused when another one goes.
    static void retire(std::unique_ptr<memory::BufferPool> pool) noexcept {
        static std::mutex mutex;
        static auto* const retired = new std::vector<std::unique_ptr<memory::BufferPool>>();
        const std::lock_guard lock(mutex);
        std::erase_if(*retired, [](const auto& each) { return each->stats().live == 0; });
        if (pool->stats().live != 0) {
            try {
                retired->push_back(nullptr);
                retired->back() = std::move(pool);
            } catch (const std::bad_alloc&) {
                static_cast<void>(pool.release());
            }
        }
    }

    static constexpr std::size_t few = 16;
    static constexpr std::size_t many = 64;

    reactor::Reactor& reactor_;
    std::unique_ptr<memory::BufferPool> input_;
    std::unique_ptr<memory::BufferPool> output_;
    SendingPool sendings_;
    Member* members_ = nullptr;
    Stats stats_;
    std::size_t streams_ = 0;
    std::size_t most_since_none_ = 0;
    std::size_t most_since_discard_ = 0;
    bool stopping_ = false;
};

}  // namespace flowcoro::transport
