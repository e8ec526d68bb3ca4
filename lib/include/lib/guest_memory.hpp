// SPDX-License-Identifier: MIT
#pragma once
// A bounds-checked window on guest RAM. Copies only: the guest may change memory while we look, so a value is fetched
// once, then validated, then used.
#include <array>
#include <concepts>
#include <cstring>
#include <lib/memory.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <span>
#include <type_traits>

namespace lib {

using lib::GuestPhys;
using lib::u64;
using lib::u8;

// One piece of guest RAM: contiguous in guest-physical space and, through `host`, in ours.
struct RamPiece {
    GuestPhys base;
    u64 size;
    u8* host;
};

class GuestRange;

class GuestMemory {
public:
    // `pieces` must be sorted by base, must not overlap, and must outlive this object.
    explicit GuestMemory(std::span<RamPiece const> pieces) : pieces_(pieces) {}

    lib::Result<void> read(GuestPhys at, std::span<u8> out) const;
    lib::Result<void> write(GuestPhys at, std::span<u8 const> bytes) const;
    lib::Result<void> fill(GuestPhys at, u64 size, u8 value) const;

    template <typename T> lib::Result<T> read(GuestPhys at) const {
        static_assert(std::is_trivially_copyable_v<T>);
        if (u8 const* const host = in_one_piece(at, sizeof(T)); host != nullptr)
            return lib::load<T>(host); // nearly always, and the size is known here
        std::array<u8, sizeof(T)> bytes;
        if (auto const done = read(at, std::span<u8>(bytes)); !done) return lib::fail(done.error());
        return lib::load<T>(bytes.data());
    }
    // Bytes are for the function above: of a std::span<u8>, this one would write its address.
    template <typename T>
        requires(!std::convertible_to<T const&, std::span<u8 const>>)
    lib::Result<void> write(GuestPhys at, T const& value) const {
        static_assert(std::is_trivially_copyable_v<T>);
        std::array<u8, sizeof(T)> bytes;
        lib::store(bytes.data(), value);
        return write(at, std::span<u8 const>(bytes));
    }
    // One access that nothing tears, at a multiple of T's size; a load comes before what follows it, a store after what
    // precedes it. For what the guest reads and writes at the same time.
    template <typename T> lib::Result<T> load(GuestPhys at) const {
        static_assert(std::is_unsigned_v<T>);
        T* const host = reinterpret_cast<T*>(aligned(at, sizeof(T)));
        if (host == nullptr) return lib::fail(lib::Errc::BadGuest);
        return __atomic_load_n(host, __ATOMIC_ACQUIRE);
    }
    template <typename T> lib::Result<void> store(GuestPhys at, T value) const {
        static_assert(std::is_unsigned_v<T>);
        T* const host = reinterpret_cast<T*>(aligned(at, sizeof(T)));
        if (host == nullptr) return lib::fail(lib::Errc::BadGuest);
        __atomic_store_n(host, value, __ATOMIC_RELEASE);
        return {};
    }
    // True when every byte of [at, at + size) is RAM. An empty range is RAM nowhere and everywhere: true.
    bool contains(GuestPhys at, u64 size) const;
    std::span<RamPiece const> pieces() const { return pieces_; }

private:
    friend GuestRange;
    // These are here because a request of a disk takes about twenty of them.
    RamPiece const* find(GuestPhys at) const {
        for (RamPiece const& piece : pieces_)
            if (at - piece.base < piece.size) return &piece; // below the base, the difference wraps around
        return nullptr;
    }
    // Null where not all of it is RAM of one piece, and for an empty range, which is RAM wherever it is, and whose
    // bytes may be nowhere.
    u8* in_one_piece(GuestPhys at, u64 size) const {
        RamPiece const* const piece = find(at);
        if (piece == nullptr || size == 0) return nullptr;
        u64 const offset = at - piece->base;
        return piece->size - offset < size ? nullptr : piece->host + offset;
    }
    // The same, and null where `at` is no multiple of `size`.
    u8* aligned(GuestPhys at, u64 size) const { return at.value % size != 0 ? nullptr : in_one_piece(at, size); }
    std::span<RamPiece const> pieces_;
};

// A range of guest RAM that is looked up once and accessed often, such as a ring. Valid as long as the memory's pieces
// stay what they are. It has no bytes if one of the bytes asked for is not RAM, and an access outside of it fails.
class GuestRange {
public:
    GuestRange() = default;
    GuestRange(GuestMemory const& memory, GuestPhys at, u64 size)
        : host_(memory.in_one_piece(at, size)), size_(host_ != nullptr || memory.contains(at, size) ? size : 0),
          memory_(&memory), at_(at) {}

    bool is_empty() const { return size_ == 0; }
    // As those of GuestMemory. Offsets of load() and store() are multiples of T's size, and so is the range's begin.
    template <typename T> lib::Result<T> read(u64 offset) const {
        if (!has(offset, sizeof(T))) return lib::fail(lib::Errc::BadGuest);
        return host_ != nullptr ? lib::load<T>(host_ + offset) : memory_->read<T>(at_ + offset);
    }
    template <typename T> lib::Result<T> load(u64 offset) const {
        static_assert(std::is_unsigned_v<T>);
        if (!has(offset, sizeof(T))) return lib::fail(lib::Errc::BadGuest);
        if (host_ == nullptr) return memory_->load<T>(at_ + offset);
        return __atomic_load_n(reinterpret_cast<T const*>(host_ + offset), __ATOMIC_ACQUIRE);
    }
    template <typename T> lib::Result<void> store(u64 offset, T value) const {
        static_assert(std::is_unsigned_v<T>);
        if (!has(offset, sizeof(T))) return lib::fail(lib::Errc::BadGuest);
        if (host_ == nullptr) return memory_->store<T>(at_ + offset, value);
        __atomic_store_n(reinterpret_cast<T*>(host_ + offset), value, __ATOMIC_RELEASE);
        return {};
    }

private:
    bool has(u64 offset, u64 size) const { return size <= size_ && offset <= size_ - size; }
    u8* host_ = nullptr; // null where the range is not in one piece: each access is looked up
    u64 size_ = 0;
    GuestMemory const* memory_ = nullptr;
    GuestPhys at_{};
};

} // namespace lib
