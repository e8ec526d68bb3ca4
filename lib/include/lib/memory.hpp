// SPDX-License-Identifier: MIT
#pragma once
// Little-endian values at any address. In freestanding code std::memcpy is a call, whatever the size; these are the
// compiler's own loads and stores.
#include <lib/types.hpp>
#include <type_traits>

namespace lib {

template <typename T> T load(void const* from) {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    __builtin_memcpy(&value, from, sizeof(T));
    return value;
}
template <typename T> void store(void* to, T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    __builtin_memcpy(to, &value, sizeof(T));
}

// Of 1, 2, 4 or 8 bytes, zero-extended.
inline u64 load_sized(void const* from, u32 size) {
    switch (size) {
    case 1: return load<u8>(from);
    case 2: return load<u16>(from);
    case 4: return load<u32>(from);
    default: return load<u64>(from);
    }
}
inline void store_sized(void* to, u32 size, u64 value) {
    switch (size) {
    case 1: return store(to, static_cast<u8>(value));
    case 2: return store(to, static_cast<u16>(value));
    case 4: return store(to, static_cast<u32>(value));
    default: return store(to, value);
    }
}

} // namespace lib
