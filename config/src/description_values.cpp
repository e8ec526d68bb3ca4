// SPDX-License-Identifier: MIT
#include "description_values.hpp"
#include <algorithm>
#include <lib/checksum.hpp>

namespace config {
namespace {

// Takes decimal digits from the front. Nothing when there are none or they exceed `limit`.
std::optional<u64> take_number(std::string_view& text, u64 limit) {
    std::size_t used = 0;
    u64 value = 0;
    while (used < text.size() && text[used] >= '0' && text[used] <= '9') {
        value = value * 10 + static_cast<u64>(text[used] - '0');
        if (value > limit) return std::nullopt;
        ++used;
    }
    if (used == 0) return std::nullopt;
    text.remove_prefix(used);
    return value;
}

std::optional<u32> hex_digit(char c) {
    char const letter = static_cast<char>(c | 0x20);
    if (c >= '0' && c <= '9') return static_cast<u32>(c - '0');
    if (letter >= 'a' && letter <= 'f') return static_cast<u32>(letter - 'a' + 10);
    return std::nullopt;
}

void skip_spaces(std::string_view& text) {
    while (!text.empty() && text.front() == ' ')
        text.remove_prefix(1);
}

} // namespace

std::optional<u64> parse_size(std::string_view text) {
    constexpr u64 most = u64{1} << 50; // of the number alone; with T it is still below 2^64 after the check
    skip_spaces(text);
    auto const number = take_number(text, most);
    if (!number) return std::nullopt;
    skip_spaces(text);
    while (!text.empty() && text.back() == ' ')
        text.remove_suffix(1);
    if (text.empty()) return std::nullopt; // bytes? megabytes? a unit is required
    constexpr std::string_view units = "KMGT";
    char const letter = static_cast<char>(text.front() & ~0x20); // upper case
    std::size_t const unit = units.find(letter);
    std::string_view const suffix = text.substr(1);
    if (unit == std::string_view::npos || !(suffix.empty() || suffix == "iB" || suffix == "B")) return std::nullopt;
    auto const shift = static_cast<unsigned>((unit + 1) * 10);
    if (*number > ~u64{0} >> shift) return std::nullopt;
    return *number << shift;
}

bool parse_cpu_list(std::string_view text, CpuSet& out) {
    for (;;) {
        skip_spaces(text);
        auto const first = take_number(text, max_cpus - 1);
        if (!first) return false;
        u64 last = *first;
        skip_spaces(text);
        if (!text.empty() && text.front() == '-') {
            text.remove_prefix(1);
            skip_spaces(text);
            auto const end = take_number(text, max_cpus - 1);
            if (!end || *end < *first) return false;
            last = *end;
            skip_spaces(text);
        }
        for (u64 cpu = *first; cpu <= last; ++cpu)
            out.add(static_cast<u32>(cpu));
        if (text.empty()) return true;
        if (text.front() != ',') return false;
        text.remove_prefix(1);
    }
}

std::optional<MacAddress> parse_mac(std::string_view text) {
    constexpr std::size_t stride = 3, length = MacAddress{}.size() * stride - 1;
    if (text.size() != length) return std::nullopt;
    MacAddress mac{};
    for (std::size_t i = 0; i < text.size(); i++) {
        char const c = text[i];
        if (i % stride == 2) {
            if (c != ':') return std::nullopt;
            continue;
        }
        auto const value = hex_digit(c);
        if (!value) return std::nullopt;
        mac[i / stride] = static_cast<lib::u8>(u32{mac[i / stride]} << 4 | *value);
    }
    return mac;
}

namespace {

// Takes so many hexadecimal digits, and the character after them.
std::optional<u32> take_hex(std::string_view& text, std::size_t digits, char after) {
    std::size_t const all = digits + (after != 0 ? 1 : 0);
    if (text.size() < all || (after != 0 && text[digits] != after)) return std::nullopt;
    u32 value = 0;
    for (char const c : text.substr(0, digits)) {
        auto const digit = hex_digit(c);
        if (!digit) return std::nullopt;
        value = value << 4 | *digit;
    }
    text.remove_prefix(all);
    return value;
}

} // namespace

// As "lspci" writes places: segment, bus, device and function, the segment only where it is given.
std::optional<UplinkDescription> parse_uplink(std::string_view text) {
    using Kind = UplinkDescription::Kind;
    constexpr std::string_view prefix = "pci:";
    constexpr std::size_t short_size = 7, long_size = 12;
    if (text == "first") return UplinkDescription{Kind::First};
    if (!text.starts_with(prefix)) return std::nullopt;
    text.remove_prefix(prefix.size());
    if (text.size() != short_size && text.size() != long_size) return std::nullopt;
    auto const segment = text.size() == long_size ? take_hex(text, 4, ':') : std::optional<u32>{0};
    auto const bus = take_hex(text, 2, ':'), device = take_hex(text, 2, '.'), function = take_hex(text, 1, 0);
    if (!segment || !bus || !device || !function || *device > 31 || *function > 7) return std::nullopt;
    return UplinkDescription{Kind::Pci, static_cast<u16>(*segment), static_cast<lib::u8>(*bus),
                             static_cast<lib::u8>(*device), static_cast<lib::u8>(*function)};
}

namespace {

std::optional<u32> take_ipv4(std::string_view& text) {
    u32 address = 0;
    for (u32 i = 0; i < 4; i++) {
        if (i != 0) {
            if (!text.starts_with('.')) return std::nullopt;
            text.remove_prefix(1);
        }
        auto const byte = take_number(text, 255);
        if (!byte) return std::nullopt;
        address = address << 8 | static_cast<u32>(*byte);
    }
    return address;
}

std::optional<u16> take_port(std::string_view& text) {
    auto const port = take_number(text, 65535);
    if (!port || *port == 0) return std::nullopt;
    return static_cast<u16>(*port);
}

} // namespace

std::optional<u32> parse_ipv4(std::string_view text) {
    auto const address = take_ipv4(text);
    return text.empty() ? address : std::nullopt;
}

std::optional<SubnetDescription> parse_subnet(std::string_view text) {
    auto const address = take_ipv4(text);
    if (!address || !text.starts_with('/')) return std::nullopt;
    text.remove_prefix(1);
    auto const length = take_number(text, 32);
    if (!length || !text.empty()) return std::nullopt;
    return SubnetDescription{*address, static_cast<u32>(*length)};
}

std::optional<ForwardDescription> parse_forward(std::string_view text) {
    ForwardDescription forward{};
    if (text.starts_with("udp "))
        forward.protocol = ForwardProtocol::Udp;
    else if (!text.starts_with("tcp "))
        return std::nullopt;
    text.remove_prefix(4);
    skip_spaces(text);
    auto const outside = take_port(text);
    skip_spaces(text);
    if (!outside || !text.starts_with("->")) return std::nullopt;
    text.remove_prefix(2);
    skip_spaces(text);
    auto const colon = text.find(':');
    if (colon == std::string_view::npos || colon == 0) return std::nullopt;
    forward.vm = text.substr(0, colon);
    text.remove_prefix(colon + 1);
    auto const inside = take_port(text);
    if (!inside || !text.empty()) return std::nullopt;
    forward.outside_port = *outside;
    forward.inside_port = *inside;
    return forward;
}

MacAddress default_mac(std::string_view vm, u32 nic) {
    lib::Checksum hash;
    for (char const c : vm)
        hash.add(static_cast<lib::u8>(c));
    hash.add(static_cast<lib::u8>(nic));
    MacAddress mac{0x02}; // administered locally, of one station
    for (std::size_t i = 1; i < mac.size(); i++)
        mac[i] = static_cast<lib::u8>(hash.value() >> i * 8);
    return mac;
}

u32 distance(std::string_view a, std::string_view b) {
    constexpr std::size_t longest = 24;
    if (a.size() > longest || b.size() > longest) return 1000;
    std::array<u32, longest + 1> row{};
    for (std::size_t j = 0; j <= b.size(); ++j)
        row[j] = static_cast<u32>(j);
    for (std::size_t i = 1; i <= a.size(); ++i) {
        u32 diagonal = row[0];
        row[0] = static_cast<u32>(i);
        for (std::size_t j = 1; j <= b.size(); ++j) {
            u32 const replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({replace, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row[b.size()];
}

} // namespace config
