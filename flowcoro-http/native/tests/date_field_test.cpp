// The Date field: against known dates, and against the C library over a thousand years.
#include "flowcoro_http/date_field.hpp"

#include <cstdint>
#include <ctime>
#include <string>
#include <string_view>

#include "check.hpp"

namespace {

using flowcoro_http::DateField;

std::string by_the_library(std::int64_t seconds) {
    const auto time = static_cast<std::time_t>(seconds);
    std::tm parts{};
#if defined(_WIN32)
    gmtime_s(&parts, &time);
#else
    gmtime_r(&time, &parts);
#endif
    char text[64];
    // No locale was set, so names are English.
    const std::size_t size =
        std::strftime(text, sizeof text, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts);
    return {text, size};
}

TEST(known_dates) {
    DateField date;
    CHECK(date.at(784111777) == "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");  // RFC 9110, 5.6.7
    CHECK(date.at(0) == "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
    CHECK(date.at(951782399) == "Date: Mon, 28 Feb 2000 23:59:59 GMT\r\n");
    CHECK(date.at(951782400) == "Date: Tue, 29 Feb 2000 00:00:00 GMT\r\n");
    CHECK(date.at(951868800) == "Date: Wed, 01 Mar 2000 00:00:00 GMT\r\n");
    CHECK(date.at(2147483648) == "Date: Tue, 19 Jan 2038 03:14:08 GMT\r\n");
    CHECK(date.at(4107542400) == "Date: Mon, 01 Mar 2100 00:00:00 GMT\r\n");
    CHECK(date.at(253402300799) == "Date: Fri, 31 Dec 9999 23:59:59 GMT\r\n");
}

TEST(every_day_of_a_thousand_years) {
    constexpr std::int64_t day = 24 * 60 * 60;
    DateField date;
    for (std::int64_t seconds = 0; seconds < 365'243 * day; seconds += day) {
        const std::int64_t within = seconds * 7919 % day;
        CHECK(date.at(seconds + within) == by_the_library(seconds + within));
    }
}

TEST(every_second_of_a_day) {
    DateField date;
    for (std::int64_t seconds = 1709164800; seconds < 1709251200; ++seconds) {
        CHECK(date.at(seconds) == by_the_library(seconds));
        CHECK(date.at(seconds).data() == date.at(seconds).data());
    }
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
