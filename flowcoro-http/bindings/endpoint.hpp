// Endpoint: a handler that the engine calls itself, without a Request, a Response or a coroutine of
// the router's in between.
//
// That is for handlers whose arguments are all of a kind that is read here, with no middleware and
// nothing made per request. Whatever is unusual in a request (an argument that is missing or is not
// one, an escape to decode, a body that has not come yet) goes the general way, by
// Application.handle, which reads it all again: it alone knows what to say of it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "flowcoro_http/request_head.hpp"
#include "flowcoro_http/route_table.hpp"
#include "python.hpp"

namespace flowcoro_http::bindings {

class Endpoint {
  public:
    enum class Source : unsigned char { constant, path, query, header, body };
    enum class Type : unsigned char { text, integer, number, boolean };

    struct Argument {
        Ref name;
        Source source;
        Type type;
        std::string alias;
        std::size_t index;  // of the path's parameters
        Ref value;          // the constant; or the default, if there is one; or the decoder
    };

    // From (key, handler, arguments, status, encode, its content type, the class of responses, the
    // largest body); null with a Python error.
    static Endpoint* make(PyObject* description) noexcept;

    // Calls the handler. Null without a Python error: it is to go the general way.
    [[nodiscard]] Ref call(const RequestHead& head, const Found& found,
                           std::string_view body) const noexcept;

    [[nodiscard]] bool takes_body() const noexcept { return takes_body_; }

    [[nodiscard]] PyObject* key() const noexcept { return key_.get(); }

    [[nodiscard]] unsigned status() const noexcept { return status_; }

    // What is sent of a value: the bytes, and the line of its Content-Type. Null without a Python
    // error: it is for Application.finish.
    [[nodiscard]] Ref encode(PyObject* value, std::string_view* line) const noexcept;

  private:
    [[nodiscard]] Ref read(const Argument& argument, const RequestHead& head, const Found& found,
                           std::string_view body) const noexcept;

    Ref key_;  // what Application.recover and finish know it by
    Ref handler_;
    Ref names_;  // of the arguments, as vectorcall wants them
    std::vector<Argument> arguments_;
    Ref encoder_;
    std::string encoded_line_;
    Ref response_;
    std::size_t most_body_ = 0;
    unsigned status_ = 200;
    bool takes_body_ = false;
};

}  // namespace flowcoro_http::bindings
