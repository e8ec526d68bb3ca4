// SPDX-License-Identifier: MIT
#pragma once
// Device memory of a VM under test: what is read has one value, and every access is kept.
#include <vector>
#include <vm/vm.hpp>

namespace support {

class DeviceMemory : public vm::VirtualPlatform {
public:
    struct Access {
        lib::u64 address;
        lib::u8 size;
        bool is_write;
        lib::u64 value;
    };
    std::vector<Access> accesses;
    lib::u64 device_value = ~lib::u64{0};

    lib::u64 mmio_read(lib::u64 address, lib::u8 size) override {
        accesses.push_back({address, size, false, 0});
        return device_value;
    }
    void mmio_write(lib::u64 address, lib::u8 size, lib::u64 value) override {
        accesses.push_back({address, size, true, value});
    }
    void mmio_update(lib::u64 address, lib::u8 size, vm::MmioChange change) override {
        lib::u64 value = 0;
        if (change(mmio_read(address, size), value)) mmio_write(address, size, value);
    }

protected:
    ~DeviceMemory() = default;
};

} // namespace support
