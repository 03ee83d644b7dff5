// A socket's address as it is kept for each connection, and as Python has it.
#pragma once

#include <Python.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

namespace flowcoro::bindings::loop {

// A sockaddr_in or sockaddr_in6; all zero without one.
using CompactAddress = std::array<std::byte, sizeof(sockaddr_in6)>;

// A new reference: host and port, and with IPv6 flow label and scope; None of other families.
inline PyObject* address_of(const CompactAddress& kept) noexcept {
    sockaddr_storage address{};
    std::memcpy(&address, kept.data(), kept.size());
    std::array<char, INET6_ADDRSTRLEN> host{};
    if (address.ss_family == AF_INET) {
        const auto& four = reinterpret_cast<const sockaddr_in&>(address);
        ::inet_ntop(AF_INET, &four.sin_addr, host.data(), host.size());
        return Py_BuildValue("si", host.data(), int{ntohs(four.sin_port)});
    }
    if (address.ss_family == AF_INET6) {
        const auto& six = reinterpret_cast<const sockaddr_in6&>(address);
        ::inet_ntop(AF_INET6, &six.sin6_addr, host.data(), host.size());
        return Py_BuildValue("siII", host.data(), int{ntohs(six.sin6_port)},
                             static_cast<unsigned>(ntohl(six.sin6_flowinfo)),
                             static_cast<unsigned>(six.sin6_scope_id));
    }
    return Py_NewRef(Py_None);
}

// A peer's address, for as many as there are connections: most are IPv4's.
class PeerAddress {
  public:
    // Of a family without ports, and without memory: none.
    void set(const sockaddr_storage& address) noexcept {
        if (address.ss_family == AF_INET) {
            const auto& four = reinterpret_cast<const sockaddr_in&>(address);
            host_ = four.sin_addr;
            port_ = four.sin_port;
            is_four_ = true;
        } else if (address.ss_family == AF_INET6) {
            six_.reset(new (std::nothrow) CompactAddress);
            if (six_ != nullptr) {
                std::memcpy(six_->data(), &address, six_->size());
            }
        }
    }

    // A new reference, as from address_of().
    [[nodiscard]] PyObject* to_python() const noexcept {
        CompactAddress kept{};
        if (six_ != nullptr) {
            kept = *six_;
        } else if (is_four_) {
            sockaddr_in four{};
            four.sin_family = AF_INET;
            four.sin_addr = host_;
            four.sin_port = port_;
            std::memcpy(kept.data(), &four, sizeof four);
        }
        return address_of(kept);
    }

  private:
    std::unique_ptr<CompactAddress> six_;
    in_addr host_{};
    in_port_t port_ = 0;
    bool is_four_ = false;
};

}  // namespace flowcoro::bindings::loop
