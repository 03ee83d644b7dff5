// DateField: the Date field of responses (RFC 9110, 6.6.1), made once in a second.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace flowcoro_http {

class DateField {
  public:
    // "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", for seconds since 1970.
    std::string_view at(std::int64_t seconds) noexcept {
        if (seconds != seconds_) {
            seconds_ = seconds;
            make(seconds);
        }
        return {text_.data(), text_.size()};
    }

  private:
    static constexpr std::int64_t day = 24 * 60 * 60;

    void make(std::int64_t seconds) noexcept {
        static constexpr char weekdays[] = "ThuFriSatSunMonTueWed";  // 1970 began with a Thursday
        static constexpr char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        const std::int64_t days = seconds / day;
        const auto within = static_cast<unsigned>(seconds % day);

        // The civil calendar from a count of days, in eras of 400 years that begin in March
        // (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
        const std::int64_t shifted = days + 719468;
        const std::int64_t era = shifted / 146097;
        const auto of_era = static_cast<unsigned>(shifted % 146097);
        const unsigned year_of_era =
            (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
        const unsigned of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        const unsigned from_march = (5 * of_year + 2) / 153;
        const unsigned month = from_march < 10 ? from_march + 2 : from_march - 10;  // from 0
        const auto year = static_cast<unsigned>(era * 400 + year_of_era + (month < 2 ? 1U : 0U));

        std::memcpy(&text_[6], &weekdays[days % 7 * 3], 3);
        put(11, of_year - (153 * from_march + 2) / 5 + 1);
        std::memcpy(&text_[14], &months[std::size_t{month} * 3], 3);
        put(18, year / 100 % 100);
        put(20, year % 100);
        put(23, within / 3600);
        put(26, within / 60 % 60);
        put(29, within % 60);
    }

    void put(std::size_t at, unsigned number) noexcept {
        text_[at] = static_cast<char>('0' + number / 10);
        text_[at + 1] = static_cast<char>('0' + number % 10);
    }

    std::int64_t seconds_ = -1;
    std::array<char, 37> text_ = [] {
        std::array<char, 37> text{};
        std::memcpy(text.data(), "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", text.size());
        return text;
    }();
};

}  // namespace flowcoro_http
