// SPDX-License-Identifier: MIT
#pragma once
// The states of a VM's vCPUs at its last crash, as text.
#include <kernel/heap.hpp>
#include <lib/types.hpp>
#include <new>
#include <span>
#include <string_view>
#include <vm/vcpu.hpp>

namespace manage {

class CrashDump {
public:
    CrashDump() = default;
    CrashDump(CrashDump const&) = delete;
    CrashDump& operator=(CrashDump const&) = delete;
    ~CrashDump() { ::operator delete(text_, capacity_); }

    // For so many vCPUs; what was kept is gone. Without memory there is no room: then the log alone has the report.
    void make_room(lib::u32 vcpus) {
        std::size_t const wanted = vcpus * vm::Vcpu::most_state_text;
        size_ = 0;
        if (wanted == capacity_) return;
        ::operator delete(text_, capacity_);
        text_ = static_cast<char*>(::operator new(wanted, std::nothrow));
        capacity_ = text_ == nullptr ? 0 : wanted;
    }
    std::span<char> room() { return {text_, capacity_}; }
    void keep(std::size_t size) { size_ = size; }
    std::string_view text() const { return {text_, size_}; }

private:
    char* text_ = nullptr;
    std::size_t capacity_ = 0;
    std::size_t size_ = 0;
};

} // namespace manage
