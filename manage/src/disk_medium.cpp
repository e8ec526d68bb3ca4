// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <manage/disk_medium.hpp>

namespace manage {

lib::Result<void> DiskMedium::create(u64 size, std::span<u8 const> contents, u32 node) {
    if (size == 0 || size > largest || contents.size() > size) return lib::fail(lib::Errc::OutOfRange);
    TRY(memory_.allocate(lib::align_up(size, vm::GuestRam::granule), node));
    size_ = size;
    contents_ = contents;
    copied_ = 0;
    return {};
}

bool DiskMedium::go_on(u64 bytes) {
    if (!memory_.scrub(bytes)) return false;
    // Up to the end of a granule, so that it lies in one block.
    u64 const room = vm::GuestRam::granule - copied_ % vm::GuestRam::granule;
    u64 const size = std::min({contents_.size() - copied_, bytes, room});
    if (size != 0) std::memcpy(memory_.pointer({copied_}, size), contents_.data() + copied_, size);
    copied_ += size;
    return copied_ == contents_.size();
}

void DiskMedium::release() {
    memory_.release();
    size_ = copied_ = 0;
    contents_ = {};
}

} // namespace manage
