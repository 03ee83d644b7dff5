// Responder: who answers the requests of a connection.
#pragma once

#include <string_view>

#include "flowcoro_http/refusal.hpp"
#include "flowcoro_http/request_head.hpp"

namespace flowcoro_http {

class Responder {
  public:
    // A request. The views of the head are valid until this returns. `body`: what has come of it;
    // `whole`: that is all. Not whole: body() and body_over() follow.
    virtual void request(const RequestHead& head, std::string_view body, bool whole) noexcept = 0;

    // A piece of the body, or, after upgrade(), of whatever the connection speaks.
    virtual void body(std::string_view piece) noexcept = 0;

    // The body has come; after upgrade(): the peer has sent all.
    virtual void body_over() noexcept = 0;

    // Nobody is left to answer, or nothing can be sent any more; for a request only whose response
    // is not complete.
    virtual void gone() noexcept = 0;

    // is_full() has become untrue.
    virtual void writable() noexcept = 0;

    // Something that is no request was answered with its refusal.
    virtual void refused(const Refusal& why) noexcept = 0;

    // The next request has come already: proceed() is to be called, though not from within this.
    virtual void behind() noexcept = 0;

  protected:
    ~Responder() = default;
};

}  // namespace flowcoro_http
