// SPDX-License-Identifier: MIT
// The four functions that the compiler calls by itself, plus strlen and memchr. REP string instructions: no vector
// registers in ring 0.
#include <cstddef>
#include <cstdint>

#if !__STDC_HOSTED__
extern "C" {
void* memcpy(void* to, void const* from, std::size_t count);
void* memmove(void* to, void const* from, std::size_t count);
void* memset(void* to, int value, std::size_t count);
int memcmp(void const* left, void const* right, std::size_t count);
std::size_t strlen(char const* text);
void* memchr(void const* bytes, int value, std::size_t count);

void* memcpy(void* to, void const* from, std::size_t count) {
    void* const result = to;
    std::size_t words = count / 8;
    std::size_t rest = count % 8;
    asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(rest) : : "memory");
    return result;
}

void* memmove(void* to, void const* from, std::size_t count) {
    if (reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(from) >= count)
        return memcpy(to, from, count);
    auto* out = static_cast<unsigned char*>(to) + count;
    auto const* in = static_cast<unsigned char const*>(from) + count;
    while (count-- != 0) {
        *--out = *--in;
        asm volatile("" : : : "memory"); // or the compiler makes this loop a call of memmove
    }
    return to;
}

void* memset(void* to, int value, std::size_t count) {
    void* const result = to;
    std::uint64_t const pattern = 0x0101010101010101U * static_cast<unsigned char>(value);
    std::size_t words = count / 8;
    std::size_t rest = count % 8;
    asm volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(pattern) : "memory");
    asm volatile("rep stosb" : "+D"(to), "+c"(rest) : "a"(pattern) : "memory");
    return result;
}

int memcmp(void const* left, void const* right, std::size_t count) {
    auto const* a = static_cast<unsigned char const*>(left);
    auto const* b = static_cast<unsigned char const*>(right);
    for (std::size_t i = 0; i < count; i++)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return 0;
}

std::size_t strlen(char const* text) {
    std::size_t n = 0;
    while (text[n] != 0) {
        n++;
        asm volatile("" : : : "memory");
    }
    return n;
}

void* memchr(void const* bytes, int value, std::size_t count) {
    auto const* at = static_cast<unsigned char const*>(bytes);
    for (; count != 0; at++, count--)
        if (*at == static_cast<unsigned char>(value)) return const_cast<unsigned char*>(at);
    return nullptr;
}
}
#endif
