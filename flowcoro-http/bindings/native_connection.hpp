// NativeConnection: on a transport of FlowCoro's reactor.
#pragma once

#include "connection.hpp"

namespace flowcoro_http::bindings {

class NativeConnection final : public Connection {
  public:
    NativeConnection(Engine& of, flowcoro_transport* transport) noexcept
        : Connection(of), transport_(transport) {}

    char* prepare(std::size_t size) noexcept override;
    void commit(std::size_t size) noexcept override;
    void write(std::string_view bytes) noexcept override;

    [[nodiscard]] bool is_full() const noexcept override { return full_; }

    [[nodiscard]] std::size_t unsent() const noexcept override;
    void pause_reading() noexcept override;
    void resume_reading() noexcept override;
    void shutdown_write() noexcept override;
    void close() noexcept override;
    void abort() noexcept override;
    void cork() noexcept override;
    void uncork() noexcept override;
    [[nodiscard]] Ref peer() noexcept override;
    [[nodiscard]] Ref local() noexcept override;

    [[nodiscard]] bool is_secure() const noexcept override { return false; }

    // From the transport: what was written has gone.
    void has_room() noexcept;

    static const flowcoro_protocol protocol;

  private:
    void note(int written) noexcept;

    flowcoro_transport* transport_;
    bool full_ = false;
};

}  // namespace flowcoro_http::bindings
