// SPDX-License-Identifier: MIT
#pragma once
// Registers, and the entries of queues. [nvme/1.4] 3.1, 4.2, 4.6
#include <block/nvme.hpp>
#include <lib/bits.hpp>

namespace block {
namespace nvme {

inline constexpr u32 CAP = 0x00, CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30, doorbells = 0x1000;

struct Cap : lib::Reg<Cap, u64> {
    using MQES = lib::Bits<u64, 15, 0>;
    using TO = lib::Bits<u64, 31, 24>; // of 500 ms
    using DSTRD = lib::Bits<u64, 35, 32>;
    using NvmCommandSet = lib::Bits<u64, 37>;
    using MPSMIN = lib::Bits<u64, 51, 48>;
};
struct Cc : lib::Reg<Cc, u32> {
    using EN = lib::Bits<u32, 0>;
    using IOSQES = lib::Bits<u32, 19, 16>; // exponents of the sizes of entries
    using IOCQES = lib::Bits<u32, 23, 20>;
};
struct Csts : lib::Reg<Csts, u32> {
    using RDY = lib::Bits<u32, 0>;
    using CFS = lib::Bits<u32, 1>;
};

// [nvme/1.4] 5 and 6
inline constexpr u8 CREATE_SUBMISSION_QUEUE = 0x01, CREATE_COMPLETION_QUEUE = 0x05, IDENTIFY = 0x06,
                    SET_FEATURES = 0x09;
inline constexpr u8 FLUSH = 0x00, WRITE = 0x01, READ = 0x02;
inline constexpr u32 number_of_queues = 0x07;       // a feature
inline constexpr u32 every_namespace = 0xffff'ffff; // instead of an id. [nvme/1.4] 6.1.2
inline constexpr u32 CNS_NAMESPACE = 0, CNS_CONTROLLER = 1, CNS_LIST = 2;

inline constexpr u32 admin_entries = 16;
inline constexpr u32 admin_page = 0, io_page = 2, identify_page = 4;

} // namespace nvme

struct Nvme::Submission {
    u32 cdw0; // opcode, and in the upper half the identifier
    u32 nsid;
    u64 reserved, metadata;
    u64 prp1, prp2;
    u32 cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
struct Nvme::Completion {
    u32 dw0, dw1;
    lib::u16 sq_head, sq_id;
    lib::u16 id;
    lib::u16 status; // bit 0: the phase
};

} // namespace block
