// SPDX-License-Identifier: MIT
#include <manage/snapshot.hpp>
#include <new>

namespace manage {

lib::Result<kernel::Own<Snapshot>> Snapshot::create(u64 memory, u32 node, u32 vcpus, u32 platform_size) {
    kernel::Own<Snapshot> made(new (std::nothrow) Snapshot);
    if (!made) return lib::fail(lib::Errc::NoMemory);
    auto const allocate = [](u64 bytes) { return ::operator new(bytes, std::nothrow); };
    made->vcpus_ = static_cast<vm::VcpuState*>(allocate(vcpus * sizeof(vm::VcpuState)));
    made->vcpu_count_ = vcpus;
    made->platform_ = static_cast<u8*>(allocate(platform_size));
    made->platform_size_ = platform_size;
    if (made->vcpus_ == nullptr || made->platform_ == nullptr) return lib::fail(lib::Errc::NoMemory);
    TRY(made->ram.allocate(memory, node));
    return made;
}

Snapshot::~Snapshot() {
    ::operator delete(vcpus_, vcpu_count_ * sizeof(vm::VcpuState));
    ::operator delete(platform_, platform_size_);
}

} // namespace manage
