// Wire: where a connection's bytes go, be it a socket or a test.
#pragma once

#include <cstddef>
#include <string_view>

namespace flowcoro_http {

// Where a connection's bytes go. Whatever fails ends in lost().
class Wire {
  public:
    // Room for so many bytes, written by commit() before anything else is; null: use write().
    virtual char* prepare(std::size_t size) noexcept = 0;
    virtual void commit(std::size_t size) noexcept = 0;

    // Copies them.
    virtual void write(std::string_view bytes) noexcept = 0;

    // Whether it is better to wait for writable() before more is written.
    [[nodiscard]] virtual bool is_full() const noexcept = 0;

    // Bytes that were written and have not gone yet.
    [[nodiscard]] virtual std::size_t unsent() const noexcept = 0;

    virtual void pause_reading() noexcept = 0;
    virtual void resume_reading() noexcept = 0;

    // The peer gets the end, when all has gone.
    virtual void shutdown_write() noexcept = 0;

    // When all has gone.
    virtual void close() noexcept = 0;

    virtual void abort() noexcept = 0;

  protected:
    ~Wire() = default;
};

}  // namespace flowcoro_http
