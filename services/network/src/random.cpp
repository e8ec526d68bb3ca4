// SPDX-License-Identifier: MIT
#include <bit>
#include <network/random.hpp>

namespace network {
namespace {

struct State {
    u64 v0, v1, v2, v3;

    void round() {
        v0 += v1;
        v1 = std::rotl(v1, 13) ^ v0;
        v0 = std::rotl(v0, 32);
        v2 += v3;
        v3 = std::rotl(v3, 16) ^ v2;
        v0 += v3;
        v3 = std::rotl(v3, 21) ^ v0;
        v2 += v1;
        v1 = std::rotl(v1, 17) ^ v2;
        v2 = std::rotl(v2, 32);
    }
    void absorb(u64 word) {
        v3 ^= word;
        round();
        round();
        v0 ^= word;
    }
};

} // namespace

u64 Random::siphash(u64 word) const {
    constexpr u64 length = u64{8} << 56; // of the message, in the top byte of its last word
    State state{key_[0] ^ 0x736f'6d65'7073'6575, key_[1] ^ 0x646f'7261'6e64'6f6d, key_[0] ^ 0x6c79'6765'6e65'7261,
                key_[1] ^ 0x7465'6462'7974'6573};
    state.absorb(word);
    state.absorb(length);
    state.v2 ^= 0xff;
    for (u32 i = 0; i < 4; i++)
        state.round();
    return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

} // namespace network
