// SPDX-License-Identifier: MIT
// VMCS fields are read and written with their own types, and only while a VMCS is loaded.
#include <vmx/vmcs.hpp>

using namespace vmx;

void use(Loaded vmcs, [[maybe_unused]] CpuControls cpu);
void use(Loaded vmcs, [[maybe_unused]] CpuControls cpu) {
#if WRONG == 1 // expect: no matching member function for call to 'write'
    vmcs.write(field::PIN_CONTROLS, cpu);
#elif WRONG == 2  // expect: no matching member function for call to 'write'
    vmcs.write(field::EXIT_REASON, ExitReasonField{});
#elif WRONG == 3  // expect: no matching member function for call to 'write'
    vmcs.write(field::GUEST_RIP, 5U);
#elif WRONG == 4  // expect: no matching member function for call to 'write'
    vmcs.write(field::GUEST_ES, 5);
#elif WRONG == 5  // expect: is not a constant expression
    constexpr Rw<u32> wrong_width{0x681e};
    (void)wrong_width;
#elif WRONG == 6  // expect: is not a constant expression
    constexpr Rw<u32> read_only{0x4402};
    (void)read_only;
#elif WRONG == 7  // expect: is not a constant expression
    constexpr Ro<u64> writable{0x681e};
    (void)writable;
#elif WRONG == 8  // expect: calling a private constructor
    Loaded const unproven;
    (void)unproven;
#elif WRONG == 9  // expect: no viable conversion
    u32 const reason = vmcs.read(field::EXIT_REASON);
    (void)reason;
#elif WRONG == 10 // expect: no matching member function for call to 'write'
    vmcs.write(field::EPT_POINTER, u64{0x1000});
#else
    vmcs.write(field::GUEST_RIP, u64{5});
    (void)vmcs.read(field::EXIT_REASON);
#endif
}
