// Heads that are kept: what they say when the bytes they were read from are gone.
#include "flowcoro_http/kept_head.hpp"

#include <memory>
#include <string>
#include <string_view>

#include "check.hpp"

namespace {

using namespace flowcoro_http;

std::unique_ptr<KeptHead> kept(const std::string& text) {
    RequestHead head;
    auto bytes = std::make_unique<char[]>(text.size());
    text.copy(bytes.get(), text.size());
    CHECK(head.parse({bytes.get(), text.size()}) == RequestHead::State::complete);
    return std::make_unique<KeptHead>(head);
}

TEST(all_of_it) {
    const auto head = kept(
        "POST /a/b?c=d HTTP/1.0\r\nHost: example\r\nContent-Length: 5\r\nEmpty:\r\nX: y z\r\n\r\n"
        "hello");
    CHECK(head->method() == "POST" && head->path() == "/a/b" && head->query() == "c=d");
    CHECK(head->host() == "example" && head->minor_version() == 0 && head->field_count() == 4);
    CHECK(head->field(0).name == "Host" && head->field(0).value == "example");
    CHECK(head->field(1).name == "Content-Length" && head->field(1).value == "5");
    CHECK(head->field(2).name == "Empty" && head->field(2).value.empty());
    CHECK(head->field(3).name == "X" && head->field(3).value == "y z");
}

TEST(none_of_what_is_not_there) {
    const auto head = kept("GET / HTTP/1.0\r\n\r\n");
    CHECK(head->method() == "GET" && head->path() == "/" && head->query().empty());
    CHECK(head->host().empty() && head->field_count() == 0);
    // A path that the target does not have lies nowhere in it.
    const auto absolute = kept("GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(absolute->path() == "/" && absolute->query() == "b" && absolute->host() == "a");
    CHECK(absolute->minor_version() == 1);
}

TEST(as_many_fields_as_there_may_be) {
    std::string text = "GET /" + std::string(4000, 'p') + " HTTP/1.0\r\n";
    for (int i = 0; i < 100; ++i) {
        text += "Name-" + std::to_string(i) + ": " + std::string(static_cast<std::size_t>(i), 'v') +
                "\r\n";
    }
    const auto head = kept(text + "\r\n");
    CHECK(head->path().size() == 4001 && head->field_count() == 100);
    for (std::size_t i = 0; i < 100; ++i) {
        CHECK(head->field(i).name == "Name-" + std::to_string(i));
        CHECK(head->field(i).value == std::string(i, 'v'));
    }
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
