// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <network/checksum.hpp>
#include <network/dhcp.hpp>

namespace network {
namespace {

constexpr u32 cookie_at = 236, options_at = 240, cookie = 0x6382'5363; // [rfc/2131] 3
constexpr u32 transaction_at = 4, flags_at = 10, client_at = 12, your_at = 16, relay_at = 24, mac_at = 28;
constexpr u16 broadcast_flag = 0x8000;
// [rfc/2132]
enum Option : u8 {
    Pad = 0,
    Mask = 1,
    RouterAddress = 3,
    NameServer = 6,
    Requested = 50,
    LeaseTime = 51,
    Overload = 52,
    MessageKind = 53,
    Server = 54,
    Wishes = 55,
    RenewTime = 58,
    RebindTime = 59,
    End = 255,
};

void take_option(DhcpMessage& message, u8 code, std::span<u8 const> value) {
    if (code == MessageKind && value.size() == 1 && value[0] >= 1 && value[0] <= 8)
        message.kind = static_cast<DhcpMessage::Kind>(value[0]);
    if (value.size() < 4) return;
    u32 const number = load_big32(value.data());
    switch (code) {
    case Mask: message.mask = number; break;
    case RouterAddress: message.router = number; break;
    case NameServer: message.name_server = number; break;
    case Requested: message.requested = number; break;
    case LeaseTime: message.lease_seconds = number; break;
    case Server: message.server = number; break;
    case RenewTime: message.renew_seconds = number; break;
    case RebindTime: message.rebind_seconds = number; break;
    default: break;
    }
}

class Writer {
public:
    explicit Writer(std::span<u8> room) : room_(room) {}
    void number(u8 code, u32 value) {
        if (value == 0) return;
        byte(code), byte(4);
        store_big32(room_.data() + used_, value);
        used_ += 4;
    }
    void byte(u8 value) { room_[used_++] = value; }

private:
    std::span<u8> room_;
    u32 used_ = 0;
};

void put_message(std::span<u8> at, DhcpMessage const& message) {
    constexpr u8 request = 1, reply = 2, ethernet = 1, mac_size = 6;
    std::ranges::fill(at, u8{0});
    at[0] = message.is_reply ? reply : request;
    at[1] = ethernet;
    at[2] = mac_size;
    store_big32(at.data() + transaction_at, message.transaction);
    store_big16(at.data() + flags_at, message.wants_broadcast ? broadcast_flag : 0);
    store_big32(at.data() + client_at, message.client);
    store_big32(at.data() + your_at, message.your);
    store_address(at.data() + mac_at, message.mac);
    store_big32(at.data() + cookie_at, cookie);
    Writer options(at.subspan(options_at));
    options.byte(MessageKind), options.byte(1), options.byte(static_cast<u8>(message.kind));
    options.number(Server, message.server);
    options.number(Requested, message.requested);
    options.number(LeaseTime, message.lease_seconds);
    options.number(Mask, message.mask);
    options.number(RouterAddress, message.router);
    options.number(NameServer, message.name_server);
    if (!message.is_reply)
        for (u8 const byte : {Wishes, Option{3}, Mask, RouterAddress, NameServer})
            options.byte(byte);
    options.byte(End);
}

} // namespace

std::optional<DhcpMessage> read_dhcp(std::span<u8 const> udp) {
    constexpr u8 request = 1, reply = 2, ethernet = 1, mac_size = 6;
    if (udp.size() < options_at || load_big32(udp.data() + cookie_at) != cookie) return std::nullopt;
    if ((udp[0] != request && udp[0] != reply) || udp[1] != ethernet || udp[2] != mac_size) return std::nullopt;
    DhcpMessage message{};
    message.is_reply = udp[0] == reply;
    message.transaction = load_big32(udp.data() + transaction_at);
    message.wants_broadcast = (load_big16(udp.data() + flags_at) & broadcast_flag) != 0;
    message.client = load_big32(udp.data() + client_at);
    message.your = load_big32(udp.data() + your_at);
    message.relay = load_big32(udp.data() + relay_at);
    message.mac = load_address(udp.data() + mac_at);
    for (std::size_t at = options_at; at < udp.size();) {
        u8 const code = udp[at++];
        if (code == Pad) continue;
        if (code == End || at == udp.size()) break;
        u8 const size = udp[at++];
        if (size > udp.size() - at) return std::nullopt;
        take_option(message, code, udp.subspan(at, size));
        at += size;
    }
    if (message.kind == DhcpMessage::Kind::None) return std::nullopt;
    return message;
}

DhcpFrame make_dhcp(DhcpMessage const& message, DhcpRoute const& route) {
    DhcpFrame frame;
    u8* const at = frame.bytes.data();
    put_ethernet(at, route.to, route.from, type_ipv4);
    constexpr u32 udp_size = udp_header + DhcpMessage::size;
    auto const protocol = static_cast<u8>(Transport::Udp);
    put_ipv4(at + ip_at, {route.source, route.destination, protocol, smallest_ipv4_header + udp_size});
    u8* const udp = at + ip_at + smallest_ipv4_header;
    store_big16(udp, message.is_reply ? DhcpMessage::server_port : DhcpMessage::client_port);
    store_big16(udp + 2, message.is_reply ? DhcpMessage::client_port : DhcpMessage::server_port);
    store_big16(udp + 4, udp_size);
    store_big16(udp + 6, 0); // no checksum [rfc/768]
    put_message({udp + udp_header, DhcpMessage::size}, message);
    return frame;
}

} // namespace network
