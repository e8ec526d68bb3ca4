// SPDX-License-Identifier: MIT
#pragma once
// VM-execution, VM-exit and VM-entry control words, a type each, so that bits of one cannot land in another.
// [intel/vol3] 25.6, 25.7, 25.8
#include <lib/bits.hpp>
#include <lib/result.hpp>

namespace vmx {

using lib::Bits;
using lib::Reg;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

struct PinControls : Reg<PinControls, u32> {
    using ExternalInterruptExiting = Bits<u32, 0>;
    using NmiExiting = Bits<u32, 3>;
    using VirtualNmis = Bits<u32, 5>;
    using ActivatePreemptionTimer = Bits<u32, 6>;
    using ProcessPostedInterrupts = Bits<u32, 7>;
};
struct CpuControls : Reg<CpuControls, u32> {
    using InterruptWindowExiting = Bits<u32, 2>;
    using UseTscOffsetting = Bits<u32, 3>;
    using HltExiting = Bits<u32, 7>;
    using InvlpgExiting = Bits<u32, 9>;
    using MwaitExiting = Bits<u32, 10>;
    using RdpmcExiting = Bits<u32, 11>;
    using RdtscExiting = Bits<u32, 12>;
    using Cr3LoadExiting = Bits<u32, 15>;
    using Cr3StoreExiting = Bits<u32, 16>;
    using Cr8LoadExiting = Bits<u32, 19>;
    using Cr8StoreExiting = Bits<u32, 20>;
    using UseTprShadow = Bits<u32, 21>;
    using NmiWindowExiting = Bits<u32, 22>;
    using MovDrExiting = Bits<u32, 23>;
    using UnconditionalIoExiting = Bits<u32, 24>;
    using UseIoBitmaps = Bits<u32, 25>;
    using UseMsrBitmaps = Bits<u32, 28>;
    using MonitorExiting = Bits<u32, 29>;
    using PauseExiting = Bits<u32, 30>;
    using ActivateSecondaryControls = Bits<u32, 31>;
};
struct CpuControls2 : Reg<CpuControls2, u32> {
    using VirtualizeApicAccesses = Bits<u32, 0>;
    using EnableEpt = Bits<u32, 1>;
    using DescriptorTableExiting = Bits<u32, 2>;
    using EnableRdtscp = Bits<u32, 3>;
    using VirtualizeX2apicMode = Bits<u32, 4>;
    using EnableVpid = Bits<u32, 5>;
    using WbinvdExiting = Bits<u32, 6>;
    using UnrestrictedGuest = Bits<u32, 7>;
    using ApicRegisterVirtualization = Bits<u32, 8>;
    using VirtualInterruptDelivery = Bits<u32, 9>;
    using PauseLoopExiting = Bits<u32, 10>;
    using RdrandExiting = Bits<u32, 11>;
    using EnableInvpcid = Bits<u32, 12>;
    using RdseedExiting = Bits<u32, 16>;
    using EnableXsaves = Bits<u32, 20>;
    using UseTscScaling = Bits<u32, 25>;
};
struct ExitControls : Reg<ExitControls, u32> {
    using SaveDebugControls = Bits<u32, 2>;
    using HostAddressSpaceSize = Bits<u32, 9>;
    using AcknowledgeInterrupt = Bits<u32, 15>;
    using SavePat = Bits<u32, 18>;
    using LoadPat = Bits<u32, 19>;
    using SaveEfer = Bits<u32, 20>;
    using LoadEfer = Bits<u32, 21>;
    using SavePreemptionTimer = Bits<u32, 22>;
};
struct EntryControls : Reg<EntryControls, u32> {
    using LoadDebugControls = Bits<u32, 2>;
    using Ia32eModeGuest = Bits<u32, 9>;
    using LoadPat = Bits<u32, 14>;
    using LoadEfer = Bits<u32, 15>;
};

// [intel/vol3] A.1
struct BasicInfo : Reg<BasicInfo, u64> {
    using Revision = Bits<u64, 30, 0, u32>;
    using RegionSize = Bits<u64, 44, 32, u32>;
    using MemoryType = Bits<u64, 53, 50, u8>;
    using TrueControls = Bits<u64, 55>;
};
// [intel/vol3] A.10
struct EptVpidCapabilities : Reg<EptVpidCapabilities, u64> {
    using WalkLength4 = Bits<u64, 6>;
    using WriteBack = Bits<u64, 14>;
    using Pages2m = Bits<u64, 16>;
    using Pages1g = Bits<u64, 17>;
    using Invept = Bits<u64, 20>;
    using AccessedDirty = Bits<u64, 21>;
    using InveptSingle = Bits<u64, 25>;
    using InveptAll = Bits<u64, 26>;
    using Invvpid = Bits<u64, 32>;
    using InvvpidSingle = Bits<u64, 41>;
    using InvvpidAll = Bits<u64, 42>;
};

// A control word that the CPU accepts: every required bit, those wanted bits that it can do, and what it insists on.
// The capability MSR holds the bits that must be 1 in its low half and those that may be 1 in its high half.
// [intel/vol3] A.2. Fails with Unsupported when a required bit cannot be set.
template <typename Controls>
constexpr lib::Result<Controls> adjust(Controls wanted, Controls required, u64 capability) {
    auto const must_be_one = static_cast<u32>(capability);
    auto const may_be_one = static_cast<u32>(capability >> 32);
    if ((required.raw & ~may_be_one) != 0) return lib::fail(lib::Errc::Unsupported);
    return Controls{{((wanted.raw | required.raw) & may_be_one) | must_be_one}};
}

} // namespace vmx
