// SPDX-License-Identifier: MIT
#pragma once
// Builds physical memory with ACPI tables in it, checksums and root tables included.
#include <cstring>
#include <drivers/acpi.hpp>
#include <map>
#include <string>
#include <vector>

namespace drivers_test {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

class Bytes : public std::vector<u8> {
public:
    using std::vector<u8>::vector;
    template <typename T> Bytes& put(T value) {
        for (unsigned i = 0; i < sizeof(T); i++)
            push_back(static_cast<u8>(u64{value} >> i * 8));
        return *this;
    }
    Bytes& zeros(std::size_t count) {
        resize(size() + count);
        return *this;
    }
    template <typename T> Bytes& set(std::size_t at, T value) {
        if (size() < at + sizeof(T)) resize(at + sizeof(T));
        std::memcpy(data() + at, &value, sizeof(T));
        return *this;
    }
    u8 sum(std::size_t count) const {
        unsigned total = 0;
        for (std::size_t i = 0; i < count; i++)
            total += (*this)[i];
        return static_cast<u8>(total);
    }
};

inline Bytes table(char const* signature, u8 revision, Bytes const& body) {
    Bytes bytes(36);
    std::memcpy(bytes.data(), signature, 4);
    bytes.insert(bytes.end(), body.begin(), body.end());
    bytes.set(4, static_cast<u32>(bytes.size()));
    bytes.set(8, revision);
    bytes.set(9, static_cast<u8>(-bytes.sum(bytes.size())));
    return bytes;
}

class Memory {
public:
    void place(u64 at, Bytes bytes) { pieces_[at] = std::move(bytes); }
    // Puts the table behind all others and gives its address.
    u64 add(Bytes bytes) {
        u64 const at = next_;
        next_ += (bytes.size() + 0xfff) & ~u64{0xfff};
        place(at, std::move(bytes));
        return at;
    }
    std::span<u8 const> read(lib::HostPhys at, u64 size) {
        for (auto const& [base, bytes] : pieces_)
            if (at.value >= base && size <= bytes.size() && at.value - base <= bytes.size() - size)
                return std::span<u8 const>(bytes).subspan(at.value - base, size);
        return {};
    }
    drivers::PhysicalMap map() { return drivers::PhysicalMap::to<&Memory::read>(*this); }
    Bytes& at(u64 address) { return pieces_.at(address); }

    drivers::Rsdp xsdt(std::vector<u64> const& tables) {
        Bytes body;
        for (u64 const address : tables)
            body.put(address);
        return {.revision = 2, .rsdt = 0, .xsdt = add(table("XSDT", 1, body))};
    }
    drivers::Rsdp rsdt(std::vector<u64> const& tables) {
        Bytes body;
        for (u64 const address : tables)
            body.put(static_cast<u32>(address));
        return {.revision = 0, .rsdt = static_cast<u32>(add(table("RSDT", 1, body))), .xsdt = 0};
    }

private:
    std::map<u64, Bytes> pieces_;
    u64 next_ = 0x7fe0'0000;
};

inline Bytes rsdp_bytes(u8 revision, u32 rsdt, u64 xsdt) {
    Bytes bytes(revision >= 2 ? 36 : 20);
    std::memcpy(bytes.data(), "RSD PTR ", 8);
    bytes[15] = revision;
    bytes.set(16, rsdt);
    bytes[8] = static_cast<u8>(-bytes.sum(20));
    if (revision >= 2) {
        bytes.set(20, u32{36}).set(24, xsdt);
        bytes[32] = static_cast<u8>(-bytes.sum(36));
    }
    return bytes;
}

} // namespace drivers_test
